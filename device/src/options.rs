//! The command line of `toe-nic`: rust-vmm's habits (`--socket-path`) and QEMU's conventions for a vhost-user program
//! (`--fd`, `--print-capabilities`).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Parser};
use toe_command_line::Shell;
use toe_firmware::Profile;
use toe_firmware::fault::Rules;
use toe_impair::Spec;

use crate::capture::filter::{Instruction, compile};
use crate::wire::WireSpec;

/// What needs no card.
const PRINT: [&str; 4] = ["print_capabilities", "print_profile", "print_completions", "print_man_page"];
const FRONTEND_OR_PRINT: [&str; 5] = ["fd", PRINT[0], PRINT[1], PRINT[2], PRINT[3]];

/// A virtual network card with a TCP offload engine: the vhost-user backend of a virtio-net device.
#[derive(Parser, Clone, Debug)]
#[command(name = "toe-nic", version, group(ArgGroup::new("frontend").args(["socket_path", "fd"])))]
pub struct Options {
    /// Listen for the frontend (QEMU, …) on this Unix socket; a stale one is replaced
    #[arg(long, value_name = "PATH", required_unless_present_any = FRONTEND_OR_PRINT)]
    pub socket_path: Option<PathBuf>,

    /// Take the frontend's socket from this inherited descriptor, listening or connected
    #[arg(long, value_name = "N", value_parser = descriptor)]
    pub fd: Option<RawFd>,

    /// Say in JSON what kind of device this is, and exit
    #[arg(long)]
    pub print_capabilities: bool,

    /// Print a profile in full as TOML, with what each field is and may be, and exit: a built-in one, or a file
    #[arg(long, value_name = "NAME|FILE", value_parser = named_profile)]
    pub print_profile: Option<NamedProfile>,

    /// Print completions for a shell, and exit
    #[arg(long, value_name = "SHELL")]
    pub print_completions: Option<Shell>,

    /// Print the man page, and exit
    #[arg(long)]
    pub print_man_page: bool,

    /// What the card is plugged into: `tap:NAME`, `interface:NAME` (one of the host's), `loop` (what is sent comes back), `none`, or for measuring `source:BYTES` (the same frame for ever)
    #[arg(long, value_name = "WIRE", required_unless_present_any = PRINT)]
    pub wire: Option<WireSpec>,

    /// Make the wire bad in each direction: `loss=1%,duplicate=0.5%,reorder=2%,corrupt=0.1%,delay=10ms,jitter=1ms,rate=100mbit,queue=256kB`, any of them; the guest gets no offloads then
    #[arg(long, value_name = "SPEC")]
    pub impair: Option<Spec>,

    /// Seed of what goes wrong on the wire: the same seed and frames, the same losses
    #[arg(long, value_name = "N", default_value_t = 1, requires = "impair")]
    pub impair_seed: u64,

    #[arg(long, value_name = "NAME|FILE", default_value = "default", value_parser = profile, help = profile_help())]
    #[allow(missing_docs, reason = "what it is depends on the built-in profiles, see `profile_help`")]
    pub profile: Profile,

    /// Pairs of receive and transmit rings
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub queue_pairs: u16,

    /// Answer `toectl` on this Unix socket (HTTP with JSON)
    #[arg(long, value_name = "PATH")]
    pub management_socket: Option<PathBuf>,

    /// Answer Prometheus (`GET /metrics`) on this address of the loopback interface
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub metrics: Option<SocketAddr>,

    /// Write what passes through the card to this file from the beginning, as pcapng; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,

    /// Which frames are captured, as tcpdump has it: `tcp port 80`; tcpdump compiles it
    #[arg(long, value_name = "FILTER", requires = "capture", value_parser = filter)]
    pub capture_filter: Option<Filter>,

    /// Cut captured frames after so many bytes
    #[arg(long, value_name = "BYTES", requires = "capture", default_value_t = 65_549, value_parser = clap::value_parser!(u32).range(1..=65_549))]
    pub capture_snaplen: u32,

    /// Arm the faults of this rule file from the beginning (see `toectl faults`)
    #[arg(long, value_name = "FILE", value_parser = rules)]
    pub faults: Option<Rules>,

    /// Seed of the faults' chance: the same rules, seed and passages, the same faults
    #[arg(long, value_name = "N", default_value_t = 1, requires = "faults")]
    pub faults_seed: u64,

    /// Seed of everything random in the firmware, for tests: 64 hexadecimal digits [default: from the system]
    #[arg(long, value_name = "HEX", value_parser = seed)]
    pub seed: Option<Seed>,

    /// After the last frame, look for more for so long before sleeping, in microseconds: answers come sooner, and a processor has no rest meanwhile
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub poll_us: u64,

    /// Let programs have their payload read from and written to the frontend's memory, past the channel's frames. For frontends that are
    /// themselves the program: in a guest, whoever may send channel frames could have all of the guest's memory
    #[arg(long)]
    pub shared_rings: bool,

    /// Log more: -v what frontends do, -vv every change of a ring
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// A profile and what it was asked for by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedProfile {
    /// Of a built-in one, or a path.
    pub name: String,
    /// What is in it.
    pub profile: Profile,
}

fn named_profile(text: &str) -> Result<NamedProfile, String> {
    Ok(NamedProfile { name: text.to_owned(), profile: profile(text)? })
}

/// 256 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(pub [u8; 32]);

fn descriptor(text: &str) -> Result<RawFd, String> {
    text.parse().ok().filter(|fd| *fd > 2).ok_or_else(|| "a descriptor is a number from 3 up".to_owned())
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "an address is as `127.0.0.1:9464` or `[::1]:9464`".to_owned())?;
    if !address.ip().is_loopback() {
        return Err("it is not of the loopback interface: name 127.0.0.1 or [::1], and put a proxy in front".to_owned());
    }
    Ok(address)
}

/// A filter, compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter(pub Vec<Instruction>);

fn filter(text: &str) -> Result<Filter, String> {
    compile(text).map(Filter)
}

fn seed(text: &str) -> Result<Seed, String> {
    let digits = text.as_bytes().as_chunks::<2>().0;
    if text.len() != 64 || !text.is_ascii() {
        return Err(format!("a seed has 64 hexadecimal digits, this one {}", text.chars().count()));
    }
    let mut seed = [0; 32];
    for (byte, pair) in seed.iter_mut().zip(digits) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).map_err(|_| format!("`{pair}` is no pair of hexadecimal digits"))?;
    }
    Ok(Seed(seed))
}

fn rules(path: &str) -> Result<Rules, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    toe_faults::read(&text).map_err(|error| error.to_string())
}

fn profile_help() -> String {
    format!("The card's limits and defaults: built in (`{}`), or a TOML file", Profile::BUILT_IN.join("`, `"))
}

/// The profile of that name, or in that file.
fn profile(text: &str) -> Result<Profile, String> {
    let profile = match Profile::built_in(text) {
        Some(profile) => profile,
        None => {
            let contents = std::fs::read_to_string(text).map_err(|error| {
                let names = Profile::BUILT_IN.join("`, `");
                format!("neither built in (`{names}`) nor a file that can be read: {error}")
            })?;
            parse(&contents)?
        }
    };
    profile.validate().map_err(|error| error.to_string())?;
    Ok(profile)
}

fn parse(contents: &str) -> Result<Profile, String> {
    toml::from_str(contents).map_err(|error| {
        let mut text = String::new();
        if let Some(span) = error.span() {
            let before = &contents[..span.start.min(contents.len())];
            let number = before.matches('\n').count() + 1;
            let line = contents.lines().nth(number - 1).unwrap_or_default().trim();
            // Infallible: a String takes everything.
            let _ = write!(text, "line {number} (`{line}`): ");
        }
        text + &error.message().replace('\n', "; ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_args(args: &[&str]) -> Result<Options, String> {
        let all = ["toe-nic"].iter().chain(args);
        Options::try_parse_from(all).map_err(|error| {
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        })
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn a_socket_and_a_wire_are_needed_and_nothing_else() {
        let options = parse_args(&["--socket-path", "a.sock", "--wire", "loop"]).unwrap();
        assert_eq!((options.queue_pairs, options.wire), (4, Some(WireSpec::Loop)));
        assert_eq!(options.profile, Profile::default());
        parse_args(&["--fd", "3", "--wire", "none"]).unwrap();
        parse_args(&["--print-capabilities"]).unwrap();
        parse_args(&["--print-man-page"]).unwrap();
        parse_args(&["--print-completions", "zsh"]).unwrap();
        assert_eq!(parse_args(&["--print-profile", "tiny"]).unwrap().print_profile.unwrap().name, "tiny");
        assert!(parse_args(&["--wire", "none"]).unwrap_err().contains("--socket-path"));
        assert!(parse_args(&["--fd", "3"]).unwrap_err().contains("--wire"));
        assert!(parse_args(&["--fd", "3", "--socket-path", "a", "--wire", "none"]).unwrap_err().contains("--fd"));
        assert!(parse_args(&["--fd", "2", "--wire", "none"]).unwrap_err().contains("from 3 up"));
        let impaired = parse_args(&["--fd", "3", "--wire", "none", "--impair", "loss=1%,delay=5ms"]).unwrap();
        assert_eq!(impaired.impair.unwrap().to_string(), "loss=1%,delay=5ms");
        assert!(parse_args(&["--fd", "3", "--wire", "none", "--impair", "loss=200%"]).unwrap_err().contains("100%"));
        assert!(parse_args(&["--fd", "3", "--wire", "none", "--queue-pairs", "33"]).unwrap_err().contains("1..=32"));
    }

    #[test]
    fn metrics_stay_on_the_machine() {
        let metrics = |address| parse_args(&["--fd", "3", "--wire", "none", "--metrics", address]);
        assert_eq!(metrics("[::1]:9464").unwrap().metrics, "[::1]:9464".parse().ok());
        assert!(metrics("192.0.2.1:9464").unwrap_err().contains("loopback"));
        assert!(metrics("9464").unwrap_err().contains("127.0.0.1:9464"));
    }

    #[test]
    fn a_seed_is_64_digits() {
        assert_eq!(seed(&"0f".repeat(32)), Ok(Seed([15; 32])));
        assert!(seed("0f").unwrap_err().contains("this one 2"));
        assert!(seed(&"zz".repeat(32)).unwrap_err().contains("`zz`"));
        assert!(seed(&"é".repeat(32)).is_err());
    }

    #[test]
    fn a_profile_that_makes_no_sense_is_told_in_one_line() {
        for (contents, expected) in [
            ("[limits]\nconections = 4\n", "line 2 (`conections = 4`): unknown field `conections`"),
            ("[limits]\nconnections = -1\n", "line 2 (`connections = -1`): invalid value"),
            ("[limits\n", "line 1"),
        ] {
            let text = parse(contents).unwrap_err();
            assert!(text.starts_with(expected), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
        assert!(profile("huge").unwrap_err().contains("`default`, `tiny`"));
        assert_eq!(profile("tiny"), Ok(Profile::built_in("tiny").unwrap()));
    }
}
