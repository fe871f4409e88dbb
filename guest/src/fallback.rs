//! Who carries a connection, and why not the card.

use toe_abi::Reason;

use crate::error::reason_name;

/// Who carries a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Offload {
    /// The card.
    Card,
    /// The guest's kernel, for this reason.
    Kernel(FallbackReason),
}

impl Offload {
    /// Whether it is the card.
    pub fn is_card(self) -> bool {
        self == Self::Card
    }
}

impl std::fmt::Display for Offload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Card => f.write_str("card"),
            Self::Kernel(reason) => write!(f, "kernel: {reason}"),
        }
    }
}

/// Why the kernel carries a connection. Displayed in kebab case; a reason of the card by its own name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FallbackReason {
    /// The interface has no card behind it: nobody answered HELLO.
    NoCard,
    /// The card was there and does not answer any more.
    CardSilent,
    /// This process may not open an AF_PACKET socket: CAP_NET_RAW is missing.
    NotPermitted,
    /// The route goes through an interface that cannot have a card, or another than the chosen one.
    OtherInterface,
    /// The address is one of this machine.
    Local,
    /// There is no route (the kernel's own error will say the same).
    NoRoute,
    /// An address with a scope (IPv6 link-local), a group or a broadcast address: not for the card.
    AddressKind,
    /// The next hop did not answer ARP or neighbour discovery.
    NoNeighbour,
    /// The card handed the connection's first packet on to the kernel's listener.
    PassedOn,
    /// The operating system did not let the library ask (sockets, threads); the log says what.
    System,
    /// The card refused, for this reason (a [`Reason`] as `u32`).
    Card(u32),
    /// The card refused the process as a whole, and its operator wants programs to be told: nothing is carried.
    Denied(u32),
}

impl FallbackReason {
    /// The card's own reason, if that is what it is.
    pub fn card_reason(self) -> Option<Reason> {
        match self {
            Self::Card(reason) | Self::Denied(reason) => Reason::from_u32(reason),
            _ => None,
        }
    }
}

impl std::fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoCard => "no-card",
            Self::CardSilent => "card-silent",
            Self::NotPermitted => "not-permitted",
            Self::OtherInterface => "other-interface",
            Self::Local => "local-address",
            Self::NoRoute => "no-route",
            Self::AddressKind => "address-kind",
            Self::NoNeighbour => "no-neighbour",
            Self::PassedOn => "passed-on",
            Self::System => "system-error",
            Self::Card(reason) | Self::Denied(reason) => return f.write_str(&reason_name(*reason)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_shown_by_name() {
        assert_eq!(Offload::Card.to_string(), "card");
        let full = FallbackReason::Card(Reason::Connections as u32);
        assert_eq!(Offload::Kernel(full).to_string(), "kernel: connections-full");
        assert_eq!(full.card_reason(), Some(Reason::Connections));
        assert_eq!(Offload::Kernel(FallbackReason::NoCard).to_string(), "kernel: no-card");
    }
}
