//! Where faults can strike, and what they can be.

/// A place that something passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Site {
    /// A frame from the wire, before the card has it.
    WireRx,
    /// A frame of the card for the wire.
    WireTx,
    /// A channel frame of the guest, before the card has it.
    ChannelRx,
    /// A channel frame of the card for the guest.
    ChannelTx,
    /// The host is about to call the card because a timer is due.
    TimerWake,
}

/// What a fault does, without its figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActionKind {
    /// See [`Action::Drop`].
    Drop,
    /// See [`Action::Duplicate`].
    Duplicate,
    /// See [`Action::Delay`].
    Delay,
    /// See [`Action::FlipBit`].
    FlipBit,
    /// See [`Action::Truncate`].
    Truncate,
}

/// What a fault does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It never comes. Of a wake: the host looks at the card's timers again a second later.
    Drop,
    /// It comes twice.
    Duplicate,
    /// It comes so many microseconds later; what is behind it overtakes it.
    Delay(u64),
    /// One bit behind the Ethernet header is turned over, by chance.
    FlipBit,
    /// It ends after so many bytes.
    Truncate(u32),
}

impl Action {
    /// What it is, without its figures.
    pub fn kind(self) -> ActionKind {
        match self {
            Self::Drop => ActionKind::Drop,
            Self::Duplicate => ActionKind::Duplicate,
            Self::Delay(_) => ActionKind::Delay,
            Self::FlipBit => ActionKind::FlipBit,
            Self::Truncate(_) => ActionKind::Truncate,
        }
    }
}

impl ActionKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Drop, Self::Duplicate, Self::Delay, Self::FlipBit, Self::Truncate];

    /// As rules write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Delay => "delay",
            Self::FlipBit => "flip-bit",
            Self::Truncate => "truncate",
        }
    }
}

impl Site {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::WireRx, Self::WireTx, Self::ChannelRx, Self::ChannelTx, Self::TimerWake];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::WireRx => "wire.rx.frame",
            Self::WireTx => "wire.tx.frame",
            Self::ChannelRx => "channel.rx.frame",
            Self::ChannelTx => "channel.tx.frame",
            Self::TimerWake => "timer.wake",
        }
    }

    /// The site of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// What can happen there. The channel is memory: it loses and repeats, but has no checksum by which damage would show.
    pub fn actions(self) -> &'static [ActionKind] {
        match self {
            Self::WireRx | Self::WireTx => &ActionKind::ALL,
            Self::ChannelRx | Self::ChannelTx => &[ActionKind::Drop, ActionKind::Duplicate, ActionKind::Delay],
            Self::TimerWake => &[ActionKind::Drop, ActionKind::Duplicate, ActionKind::Delay],
        }
    }

    /// Whether what passes there belongs to a connection, so that a filter can ask for it.
    pub fn has_connection(self) -> bool {
        matches!(self, Self::WireRx | Self::WireTx)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
