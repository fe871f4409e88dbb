//! Every pool of the firmware exhausted under a real guest, one after the other: it refuses whatever is asked of it, and the moment
//! that it gives again everything works.
//!
//! What services and their clients do asks most of the pools. The others need somebody who asks for just that ([`Stimulus`]): a
//! listener, a loss, a processor that is busy, a finding, an active close, Fast Open. For the last the card has a profile that
//! allows it ([`PROFILE`]) and the peer's kernel gives out cookies.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use toe_firmware::fault::Site;

use crate::faults::{self, Services, rule, short, strikes};
use crate::host::wait_for;
use crate::net::{GUEST_V4, PEER_V4};
use crate::{Lab, LabOptions, Nic};

/// What the card's profile says beside the default.
pub const PROFILE: &str = "[tcp]\nfast_open = true\n";
/// A request after a pool gives again must work at once: so long may it take in a guest that may be emulated.
const AT_ONCE: Duration = Duration::from_secs(15);
/// How often what asks a pool is tried: in a guest that is slow enough the card can seem not to be there, and the kernel does it.
const ATTEMPTS: u32 = 4;
const PORT: u16 = 7200;

/// Who asks for what a pool has, beside nginx, its client, and curl in the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stimulus {
    /// Nobody.
    None,
    /// A program that listens.
    Listener,
    /// A program that closes first.
    ActiveClose,
    /// A fault beside it, that makes the card need one.
    Fault(&'static str, &'static str, &'static str),
    /// A client in the guest with Fast Open.
    FastOpen,
    /// A server in the guest with Fast Open.
    FastOpenServer,
}

impl Stimulus {
    fn of(site: &str) -> Self {
        match site {
            "pool.listeners.alloc" | "pool.context_addresses.alloc" => Self::Listener,
            "pool.time_wait.alloc" => Self::ActiveClose,
            "pool.out_of_order_ranges.alloc" => Self::Fault("wire.rx.frame", "every = 9", "\"drop\""),
            "pool.wire_fifo.alloc" | "pool.connection_fifo.alloc" => {
                Self::Fault("processor", "", "{ slow = 200, lasting = \"5s\" }")
            }
            // A connection that is found damaged is an event.
            "pool.events.alloc" => Self::Fault("tcb.snd_nxt", "nth = 20", "{ corrupt = 74565 }"),
            "pool.fast_open_servers.alloc" => Self::FastOpen,
            "pool.fast_open_pending.alloc" => Self::FastOpenServer,
            _ => Self::None,
        }
    }

    fn rules(self) -> String {
        match self {
            Self::Fault(site, when, action) => rule(site, when, action),
            _ => String::new(),
        }
    }

    /// Does it; that it is refused is no error.
    fn act(self, lab: &Lab) -> Result<()> {
        let guest = lab.guest()?;
        match self {
            Self::None | Self::Fault(..) => {}
            Self::Listener => drop(guest.run(&format!("toe run -- toe-peer listen {PORT}"))?),
            Self::ActiveClose => drop(guest.run(&format!("toe nc {PEER_V4} 80 </dev/null"))?),
            Self::FastOpen => drop(guest.run(&format!("toe-peer fast-open {PEER_V4}:80"))?),
            Self::FastOpenServer => {
                let server = guest.start(&format!("toe-peer fast-open-server {PORT} 2"))?;
                wait_for("two requests with Fast Open", Duration::from_secs(30), || {
                    let mut curl = lab.namespace.command("curl");
                    curl.args(["-s", "-m", "3", "--tcp-fastopen", &format!("http://{GUEST_V4}:{PORT}/")]);
                    // Refused until the server listens, and once more than it answers.
                    curl.stdin(Stdio::null()).stdout(Stdio::null()).status().context("curl")?;
                    Ok(guest.wait(server, Duration::ZERO).is_ok().then_some(()))
                })?;
            }
        }
        Ok(())
    }
}

/// A lab whose card has [`PROFILE`].
///
/// # Errors
/// If the profile cannot be written.
pub fn with_profile(mut options: LabOptions) -> Result<LabOptions> {
    let directory = crate::host::target().join("guest-images");
    std::fs::create_dir_all(&directory)?;
    let file = directory.join("fast-open.toml");
    std::fs::write(&file, PROFILE)?;
    if let Nic::Card(card) = &mut options.nic {
        card.profile = file.display().to_string();
    }
    Ok(options)
}

/// One after the other, each pool of the firmware refuses everything for a while.
///
/// # Errors
/// If a pool was not asked, or something does not work at once when it gives again.
pub fn exhausted_pools(lab: &mut Lab, services: &Services) -> Result<()> {
    for site in Site::ALL.into_iter().map(Site::name).filter(|n| n.starts_with("pool.") && n.ends_with(".alloc")) {
        let stimulus = Stimulus::of(site);
        lab.card()?.arm(&(rule(site, "", "\"error\"") + &stimulus.rules()), 1)?;
        // Refused, fallen back or slow: the card's policy says which. That it ends is what counts here.
        let mut meanwhile = Ok(());
        for _ in 0..ATTEMPTS {
            let work = |lab: &Lab| {
                stimulus.act(lab)?;
                faults::fetch_from_guest(lab)?;
                faults::fetch_in_guest(lab.guest()?)
            };
            meanwhile = meanwhile.and(work(lab));
            if strikes(&lab.card()?.faults()?, site) > 0 {
                break;
            }
        }
        let done = lab.card()?.disarm()?;
        ensure!(strikes(&done, site) > 0, "{site} was never asked: {}", short(&done));
        let start = Instant::now();
        faults::fetch_from_guest(lab).with_context(|| format!("nginx at once after {site}"))?;
        let nginx = start.elapsed();
        faults::fetch_in_guest(lab.guest()?).with_context(|| format!("curl at once after {site}"))?;
        let both = start.elapsed();
        ensure!(both < AT_ONCE, "{site}: nginx and curl took {:.1} s", both.as_secs_f64());
        lab.step(&format!(
            "{}: {}; then nginx answered after {:.1} s and curl had its file after {:.1} s",
            short(&done),
            if meanwhile.is_ok() { "nothing was noticed" } else { "it was noticed" },
            nginx.as_secs_f64(),
            both.as_secs_f64()
        ));
    }
    services.recover(lab, "exhausted pools")
}
