//! One descriptor that a program can poll for a card connection as it would poll a socket.
//!
//! It is one end of a socket pair that carries no data of the connection. A byte lies in it exactly while a
//! read would not wait, so that it polls readable. Its way out is stuffed exactly while a write would have to wait, so
//! that it does not poll writable. It works with poll, select and epoll, also edge-triggered if the program reads and
//! writes until `WouldBlock`. A program must neither read nor write it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use socket2::SockRef;

/// A pollable state; see the module.
#[derive(Debug)]
pub(crate) struct Readiness {
    program: UnixStream,
    ours: UnixStream,
    shown: Mutex<Shown>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    readable: bool,
    writable: bool,
}

impl Readiness {
    /// Shows neither.
    pub(crate) fn new() -> io::Result<Self> {
        let (program, ours) = UnixStream::pair()?;
        program.set_nonblocking(true)?;
        ours.set_nonblocking(true)?;
        // The kernel raises it to its least, a few kilobytes.
        SockRef::from(&program).set_send_buffer_size(1)?;
        let shown = Mutex::new(Shown { readable: false, writable: true });
        let readiness = Self { program, ours, shown };
        readiness.show(false, false);
        Ok(readiness)
    }

    /// Changes what the descriptor shows.
    pub(crate) fn show(&self, readable: bool, writable: bool) {
        let mut shown = self.shown.lock().unwrap_or_else(|e| e.into_inner());
        let before = std::mem::replace(&mut *shown, Shown { readable, writable });
        let result = (|| -> io::Result<()> {
            match (before.readable, readable) {
                (false, true) => (&self.ours).write_all(&[1])?,
                // The one byte that is there.
                (true, false) => (&self.program).read_exact(&mut [0])?,
                _ => {}
            }
            match (before.writable, writable) {
                (true, false) => stuff(&self.program)?,
                (false, true) => drain(&self.ours)?,
                _ => {}
            }
            Ok(())
        })();
        if let Err(e) = result {
            log::error!("a connection's readiness cannot be shown: {e}");
        }
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

fn drain(mut from: &UnixStream) -> io::Result<()> {
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

fn stuff(mut into: &UnixStream) -> io::Result<()> {
    loop {
        match into.write(&[0; 2048]) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags};

    use super::*;

    fn polled(r: &Readiness) -> (bool, bool) {
        let mut fds = [PollFd::new(r, PollFlags::IN | PollFlags::OUT)];
        crate::transport::poll(&mut fds, Some(std::time::Duration::ZERO)).unwrap();
        let events = fds[0].revents();
        (events.contains(PollFlags::IN), events.contains(PollFlags::OUT))
    }

    #[test]
    fn all_four_states_can_be_polled_in_any_order() {
        let r = Readiness::new().unwrap();
        assert_eq!(polled(&r), (false, false));
        let states = [(false, false), (false, true), (true, false), (true, true)];
        for from in states {
            for to in states {
                for state in [from, to, to] {
                    r.show(state.0, state.1);
                    assert_eq!(polled(&r), state, "{from:?} to {to:?}");
                }
            }
        }
    }
}
