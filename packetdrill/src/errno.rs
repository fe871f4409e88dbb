//! Error numbers, and what the card's reasons are among them.

use toe_abi::Reason;

/// An `errno`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// That of the C library's last failure on this thread.
    pub fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

/// What a call gives that may have to wait: `None` is "not yet".
pub type Attempt<T> = Result<Option<T>, Errno>;

/// Why a connection ended, as `SO_ERROR` has it; zero if the program asked for it.
///
/// RFC 9293, 3.10.7.4, wants the same answer in every state after ESTABLISHED; Linux says EPIPE in CLOSE-WAIT.
pub fn of_ending(reason: Reason) -> i32 {
    match reason {
        Reason::Refused => libc::ECONNREFUSED,
        Reason::Reset => libc::ECONNRESET,
        Reason::TimedOut => libc::ETIMEDOUT,
        Reason::Unreachable => libc::EHOSTUNREACH,
        Reason::AbortedByGuest => 0,
        _ => libc::ECONNABORTED,
    }
}

/// Why a request was refused.
pub fn of_refusal(reason: Reason) -> Errno {
    Errno(match reason {
        Reason::AddressInUse => libc::EADDRINUSE,
        Reason::AddressInvalid => libc::EADDRNOTAVAIL,
        Reason::OptionUnknown => libc::ENOPROTOOPT,
        Reason::OptionValue => libc::EINVAL,
        Reason::UnknownObject | Reason::WrongState => libc::EINVAL,
        Reason::Contexts
        | Reason::Connections
        | Reason::Listeners
        | Reason::SendMemory
        | Reason::ReceiveMemory
        | Reason::TransmitRecords => libc::ENOBUFS,
        _ => libc::EIO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_what_a_program_expects() {
        assert_eq!(of_ending(Reason::Refused), libc::ECONNREFUSED);
        assert_eq!(of_ending(Reason::Reset), libc::ECONNRESET);
        assert_eq!(of_ending(Reason::TimedOut), libc::ETIMEDOUT);
        assert_eq!(of_ending(Reason::AbortedByGuest), 0);
    }

    #[test]
    fn no_refusal_is_success() {
        assert!(Reason::ALL.iter().all(|reason| of_refusal(*reason).0 != 0));
    }
}
