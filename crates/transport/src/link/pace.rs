//! How long a wait spins, by how long the last one took.

use std::time::Duration;

use crate::tuning::Tuning;

/// What a sleeping thread is woken late by, at most.
const LATE: Duration = Duration::from_micros(60);

pub struct Pace {
    pub spin: Duration,
}

impl Pace {
    pub fn new(tuning: &Tuning) -> Pace {
        Pace { spin: tuning.spin }
    }

    /// A wait has taken so long. One that spinning would have shortened makes the next spin longer, any longer one
    /// makes it as short as it was.
    pub fn learn(&mut self, waited: Duration, tuning: &Tuning) {
        self.spin = if waited < tuning.spin_max + LATE {
            (2 * waited).clamp(tuning.spin, tuning.spin_max)
        } else {
            tuning.spin
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_a_little_too_long_for_the_spin_make_it_longer_and_long_ones_do_not() {
        let tuning = Tuning {
            spin: Duration::from_micros(30),
            spin_max: Duration::from_micros(120),
            ..Tuning::default()
        };
        let mut pace = Pace::new(&tuning);
        let mut after = |micros| {
            pace.learn(Duration::from_micros(micros), &tuning);
            pace.spin.as_micros()
        };
        assert_eq!(after(5), 30);
        assert_eq!(after(45), 90);
        assert_eq!(after(100), 120);
        assert_eq!(after(5_000), 30);
    }

    #[test]
    fn without_a_core_to_spare_nothing_spins() {
        let tuning = Tuning {
            spin: Duration::ZERO,
            spin_max: Duration::ZERO,
            ..Tuning::default()
        };
        let mut pace = Pace::new(&tuning);
        pace.learn(Duration::from_micros(10), &tuning);
        assert_eq!(pace.spin, Duration::ZERO);
    }
}
