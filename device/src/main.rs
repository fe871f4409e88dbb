//! `toe-nic`: the card as a process of the host.

use std::process::ExitCode;

use toe_device::capture::Request;
use toe_device::options::{NamedProfile, Options};
use toe_device::{Config, Device, FrontendSocket, profile_text};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let options: Options = toe_command_line::parse();
    if let Some(result) = printed(&options) {
        return toe_command_line::finish("toe-nic", result);
    }
    let level = ["warn", "info", "debug", "trace"][usize::from(options.verbose.min(3))];
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    // A card that lost a thread must not limp on: ended, it is started again by who watches it.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => toe_command_line::fail("toe-nic", &error.to_string()),
    }
}

/// What is asked for needs no card.
fn printed(options: &Options) -> Option<Result<String, String>> {
    if options.print_capabilities {
        return Some(Ok(format!("{}\n", serde_json::json!({ "type": "net" }))));
    }
    if options.print_man_page {
        return Some(toe_command_line::man_page::<Options>(None));
    }
    if let Some(shell) = options.print_completions {
        return Some(Ok(toe_command_line::completions::<Options>(shell)));
    }
    let NamedProfile { name, profile } = options.print_profile.as_ref()?;
    Some(profile_text::print(name, profile).map_err(|error| format!("the profile `{name}` cannot be printed: {error}")))
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let Options {
        socket_path,
        fd,
        print_capabilities: _,
        print_profile: _,
        print_completions: _,
        print_man_page: _,
        wire,
        impair,
        impair_seed,
        profile,
        queue_pairs,
        management_socket,
        metrics,
        capture,
        capture_filter,
        capture_snaplen,
        faults,
        faults_seed,
        seed,
        poll_us,
        shared_rings,
        verbose: _,
    } = options;
    let frontend = match (socket_path, fd) {
        (Some(path), _) => FrontendSocket::Path(path),
        (None, fd) => FrontendSocket::Inherited(fd.ok_or("--socket-path or --fd is needed")?),
    };
    let wire = wire.ok_or("--wire is needed")?;
    let seed = seed.map(|seed| seed.0);
    let impair = impair.map(|spec| (spec, impair_seed));
    let capture = match capture {
        Some(file) => {
            let filter = capture_filter.map(|filter| filter.0);
            let request = Request { snaplen: capture_snaplen as usize, filter, ..Request::default() };
            Some((file, request))
        }
        None => None,
    };
    let faults = faults.map(|rules| (rules, faults_seed));
    let poll = std::time::Duration::from_micros(poll_us);
    let config = Config {
        frontend,
        wire,
        impair,
        profile,
        queue_pairs,
        management_socket,
        metrics,
        capture,
        faults,
        seed,
        poll,
        shared_rings,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        // Before there is anything to tidy up.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (ended, end) = tokio::sync::oneshot::channel();
        // The receiver is gone only if the process is about to end.
        let mut device = Device::start(config, move |result| drop(ended.send(result)))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            result = end => result.unwrap_or(Ok(()))?,
            result = device.manage() => result?,
        }
        Ok(())
    })
}
