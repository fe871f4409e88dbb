//! Time that is measured in sections, and what several rounds of it come to.
//!
//! Only what a stack does is inside a section; making and reading frames is outside. What the two looks at the clock take is
//! found out once and taken off.

use std::sync::OnceLock;
use std::time::Instant;

/// A sum of measured sections.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stopwatch {
    ns: u64,
    sections: u64,
}

impl Stopwatch {
    /// Measures one section.
    pub fn time<R>(&mut self, section: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        let result = measured_section(section);
        self.ns += began.elapsed().as_nanos() as u64;
        self.sections += 1;
        result
    }

    /// Nanoseconds in all sections, without those of the clock.
    pub fn ns(&self) -> f64 {
        (self.ns as f64 - self.sections as f64 * clock_ns()).max(0.0)
    }
}

/// By its name callgrind knows what to count (`firmware::instructions`).
#[inline(never)]
pub fn measured_section<R>(section: impl FnOnce() -> R) -> R {
    section()
}

/// Nanoseconds of a section in which nothing happens.
pub fn clock_ns() -> f64 {
    static NS: OnceLock<f64> = OnceLock::new();
    *NS.get_or_init(|| {
        let one = |_| {
            let mut watch = Stopwatch::default();
            for _ in 0..100 {
                watch.time(|| std::hint::black_box(0));
            }
            watch.ns as f64 / 100.0
        };
        Figure::of((0..101).map(one).collect()).median
    })
}

/// What several rounds measured.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The one in the middle.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Figure {
    /// Of at least one round.
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        Self { median: rounds[rounds.len() / 2], low: rounds[0], high: rounds[rounds.len() - 1] }
    }

    /// For a table: the median, and from where to where the rounds went.
    pub fn cell(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.low, self.high)
    }

    /// For the file.
    pub fn json(&self) -> serde_json::Value {
        let rounded = |x: f64| (x * 100.0).round() / 100.0;
        serde_json::json!({ "median": rounded(self.median), "low": rounded(self.low), "high": rounded(self.high) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_ends() {
        let figure = Figure::of(vec![3.0, 1.0, 10.0]);
        assert_eq!((figure.median, figure.low, figure.high), (3.0, 1.0, 10.0));
        assert_eq!(figure.cell(0), "3 (1 to 10)");
    }
}
