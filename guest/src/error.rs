//! What went wrong on the card, as errors with the kinds that std::net's have.

use std::io::{self, ErrorKind};

use toe_abi::Reason;

use crate::engine::Broken;

/// The name of a reason, also of one that only a newer card knows.
pub(crate) fn reason_name(reason: u32) -> String {
    Reason::from_u32(reason).map_or_else(|| format!("reason-{reason}"), |r| r.as_str().to_owned())
}

/// The inner error of an [`io::Error`] that the card is the source of; reach it with [`io::Error::get_ref`] and a
/// downcast.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CardError {
    /// The card refused, and its operator wants no fallback (or there is no kernel to fall back to).
    #[error("the card refused: {}", reason_name(*.0))]
    Refused(u32),
    /// The connection is broken, or never came about.
    #[error("{}", broken_text(*.0))]
    Broken(Broken),
    /// The card did not answer a question in time.
    #[error("the card does not answer")]
    Unanswered,
}

fn broken_text(broken: Broken) -> String {
    match broken {
        Broken::Aborted(reason) => match Reason::from_u32(reason) {
            Some(Reason::Refused) => "connection refused by the peer".to_owned(),
            Some(Reason::Reset) => "connection reset by the peer".to_owned(),
            Some(Reason::TimedOut) => "the peer does not answer any more".to_owned(),
            Some(Reason::Unreachable) => "the peer cannot be reached".to_owned(),
            _ => format!("the card ended the connection: {}", reason_name(reason)),
        },
        broken => broken.to_string(),
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Aborted(reason) => f.write_str(&reason_name(*reason)),
            Self::CardRestarted => f.write_str("the card was restarted"),
            Self::CardSilent => f.write_str("the card does not answer any more"),
        }
    }
}

impl CardError {
    /// The reason, as far as it is known by name.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Refused(reason) | Self::Broken(Broken::Aborted(reason)) => Reason::from_u32(reason),
            Self::Broken(_) | Self::Unanswered => None,
        }
    }

    fn kind(self) -> ErrorKind {
        match self {
            Self::Unanswered => ErrorKind::TimedOut,
            Self::Broken(Broken::CardRestarted | Broken::CardSilent) => ErrorKind::ConnectionReset,
            Self::Broken(Broken::Aborted(reason)) => match Reason::from_u32(reason) {
                Some(Reason::Refused) => ErrorKind::ConnectionRefused,
                Some(Reason::TimedOut) => ErrorKind::TimedOut,
                Some(Reason::Unreachable) => ErrorKind::HostUnreachable,
                Some(Reason::AbortedByGuest) => ErrorKind::ConnectionAborted,
                _ => ErrorKind::ConnectionReset,
            },
            Self::Refused(reason) => match Reason::from_u32(reason) {
                Some(Reason::AddressInUse) => ErrorKind::AddrInUse,
                Some(Reason::AddressInvalid) => ErrorKind::AddrNotAvailable,
                Some(Reason::OptionUnknown) => ErrorKind::Unsupported,
                Some(Reason::OptionValue) => ErrorKind::InvalidInput,
                Some(
                    Reason::Contexts
                    | Reason::Connections
                    | Reason::Listeners
                    | Reason::HalfOpen
                    | Reason::TimeWait
                    | Reason::SendMemory
                    | Reason::ReceiveMemory
                    | Reason::Backlog
                    | Reason::Addresses
                    | Reason::Quota
                    | Reason::FairShare,
                ) => ErrorKind::QuotaExceeded,
                _ => ErrorKind::Other,
            },
        }
    }
}

impl From<CardError> for io::Error {
    fn from(e: CardError) -> Self {
        io::Error::new(e.kind(), e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_have_the_kinds_of_std() {
        for (reason, kind) in [
            (Reason::Refused, ErrorKind::ConnectionRefused),
            (Reason::Reset, ErrorKind::ConnectionReset),
            (Reason::TimedOut, ErrorKind::TimedOut),
            (Reason::Unreachable, ErrorKind::HostUnreachable),
            (Reason::LeaseExpired, ErrorKind::ConnectionReset),
            (Reason::Evicted, ErrorKind::ConnectionReset),
        ] {
            let e = io::Error::from(CardError::Broken(Broken::Aborted(reason as u32)));
            assert_eq!(e.kind(), kind);
            let inner = e.get_ref().and_then(|e| e.downcast_ref::<CardError>()).unwrap();
            assert_eq!(inner.reason(), Some(reason));
        }
        let e = io::Error::from(CardError::Broken(Broken::CardRestarted));
        assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::ConnectionReset, "the card was restarted"));
        let e = io::Error::from(CardError::Refused(Reason::Connections as u32));
        assert_eq!(
            (e.kind(), e.to_string().as_str()),
            (ErrorKind::QuotaExceeded, "the card refused: connections-full")
        );
        assert_eq!(CardError::Refused(9999).to_string(), "the card refused: reason-9999");
    }
}
