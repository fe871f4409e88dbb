//! How the benchmarks of the whole card take turns: rounds, of what length, and which of them.

/// How to measure.
#[derive(clap::Args, Debug)]
pub struct Turns {
    /// Rounds; in each, everything is measured on the card and on what stands beside it
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// How long a measurement takes, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// One round of half a second, to see that it works
    #[arg(long)]
    quick: bool,

    /// Only what has this in its name, as the table's first column shows it
    #[arg(long, default_value = "")]
    only: String,
}

impl Turns {
    /// How many, and how long a measurement takes, in seconds.
    pub fn rounds_and_seconds(&self) -> (usize, f64) {
        if self.quick { (1, 0.5) } else { (self.rounds.max(1), self.seconds) }
    }

    /// Whether what has that name is to be measured.
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}
