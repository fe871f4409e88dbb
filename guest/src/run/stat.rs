//! The counters of supervisors that run, for `toe stat`.
//!
//! Each has a Unix socket of the abstract name `toe-run/` and its process id, so that nothing is left in a file system
//! when it dies. Who connects gets one JSON object.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

const PREFIX: &str = "toe-run/";
const PATIENCE: Duration = Duration::from_secs(2);
/// How old the counters may be.
const INTERVAL: Duration = Duration::from_millis(200);

/// Where a supervisor leaves its counters.
#[derive(Debug)]
pub(super) struct Published {
    value: Arc<Mutex<(Value, Option<Instant>)>>,
}

impl Published {
    /// Leaves them there, if the last are old enough.
    pub(super) fn set(&self, now: Instant, value: impl FnOnce() -> Value) {
        let mut place = self.value.lock().unwrap_or_else(|e| e.into_inner());
        if place.1.is_none_or(|at| now.saturating_duration_since(at) > INTERVAL) {
            *place = (value(), Some(now));
        }
    }
}

/// Begins to answer; nothing if the socket cannot be had, which the log says.
pub(super) fn publish() -> Option<Published> {
    let listen = || {
        let name = format!("{PREFIX}{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        let value = Arc::new(Mutex::new((Value::Null, None)));
        let published = Published { value: value.clone() };
        std::thread::Builder::new().name("toe-stat".into()).spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let text = value.lock().unwrap_or_else(|e| e.into_inner()).0.to_string();
                let written = stream.set_write_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(text.as_bytes()));
                if let Err(e) = written {
                    log::debug!("the counters were asked for and not taken: {e}");
                }
            }
        })?;
        std::io::Result::Ok(published)
    };
    listen().inspect_err(|e| log::warn!("`toe stat` will not show this: {e}")).ok()
}

/// The counters of every supervisor that runs here, by its process id.
pub fn running() -> Vec<(u32, Value)> {
    let names = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut ids: Vec<u32> = names
        .lines()
        .filter_map(|line| line.split_whitespace().last()?.strip_prefix('@')?.strip_prefix(PREFIX)?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let ask = |id: u32| {
        let mut stream =
            UnixStream::connect_addr(&SocketAddr::from_abstract_name(format!("{PREFIX}{id}")).ok()?).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some((id, serde_json::from_str(&text).ok()?))
    };
    ids.into_iter().filter_map(ask).collect()
}
