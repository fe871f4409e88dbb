//! What a fault does.

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
    /// See [`Action::Reorder`].
    Reorder,
    /// See [`Action::Corrupt`].
    Corrupt,
    /// See [`Action::Error`].
    Error,
    /// See [`Action::Hang`].
    Hang,
    /// See [`Action::Crash`].
    Crash,
    /// See [`Action::CrashKept`].
    CrashKept,
    /// See [`Action::Slow`].
    Slow,
    /// See [`Action::Leak`].
    Leak,
    /// See [`Action::Early`].
    Early,
    /// See [`Action::Jump`].
    Jump,
}

/// What a fault does. What each means at a site, [`Site::text`](super::Site::text) says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It never comes. Of a wake: the host looks at the card's timers again a second later.
    Drop,
    /// It comes twice.
    Duplicate,
    /// It comes so many microseconds later; what is behind it overtakes it.
    Delay(u64),
    /// One bit is turned over. The number says which: it is drawn when the rule strikes, and a rule's own means nothing.
    FlipBit(u64),
    /// It ends after so many bytes.
    Truncate(u32),
    /// So many that come after it overtake it.
    Reorder(u32),
    /// It has this value; of a rule without one, a value that is drawn when the rule strikes.
    Corrupt(Option<u64>),
    /// It fails.
    Error,
    /// It stands still for so many microseconds; [`FOR_EVER`]: until the card is reset, or the faults are disarmed.
    Hang(u64),
    /// The firmware stops, and what it held is lost.
    Crash,
    /// The firmware stops, and what it held is still there.
    CrashKept,
    /// It is so many times slower, for so many microseconds or [`FOR_EVER`].
    Slow {
        /// How many times.
        times: u32,
        /// For how long, in microseconds.
        lasting_us: u64,
    },
    /// It is never given back.
    Leak,
    /// It comes before its time.
    Early,
    /// Time goes on by so many microseconds at once.
    Jump(u64),
}

/// Of a time in microseconds: without an end.
pub const FOR_EVER: u64 = u64::MAX;

impl Action {
    /// What it is, without its figures.
    pub fn kind(self) -> ActionKind {
        match self {
            Self::Drop => ActionKind::Drop,
            Self::Duplicate => ActionKind::Duplicate,
            Self::Delay(_) => ActionKind::Delay,
            Self::FlipBit(_) => ActionKind::FlipBit,
            Self::Truncate(_) => ActionKind::Truncate,
            Self::Reorder(_) => ActionKind::Reorder,
            Self::Corrupt(_) => ActionKind::Corrupt,
            Self::Error => ActionKind::Error,
            Self::Hang(_) => ActionKind::Hang,
            Self::Crash => ActionKind::Crash,
            Self::CrashKept => ActionKind::CrashKept,
            Self::Slow { .. } => ActionKind::Slow,
            Self::Leak => ActionKind::Leak,
            Self::Early => ActionKind::Early,
            Self::Jump(_) => ActionKind::Jump,
        }
    }
}

impl ActionKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Drop,
        Self::Duplicate,
        Self::Delay,
        Self::FlipBit,
        Self::Truncate,
        Self::Reorder,
        Self::Corrupt,
        Self::Error,
        Self::Hang,
        Self::Crash,
        Self::CrashKept,
        Self::Slow,
        Self::Leak,
        Self::Early,
        Self::Jump,
    ];

    /// As rules write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Delay => "delay",
            Self::FlipBit => "flip-bit",
            Self::Truncate => "truncate",
            Self::Reorder => "reorder",
            Self::Corrupt => "corrupt",
            Self::Error => "error",
            Self::Hang => "hang",
            Self::Crash => "crash",
            Self::CrashKept => "crash-kept",
            Self::Slow => "slow",
            Self::Leak => "leak",
            Self::Early => "early",
            Self::Jump => "jump",
        }
    }
}
