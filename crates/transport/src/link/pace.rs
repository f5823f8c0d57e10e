//! How long a wait spins, by how long the last one took.

use std::time::Duration;

use crate::tuning::Tuning;

/// What a sleeping thread is woken late by, at most.
const LATE: Duration = Duration::from_micros(60);

/// So many waits in a row that spinning did not shorten end it. It costs a core that others may need: where sessions
/// outnumber cores every wait is long, and one that spins gets less done than its neighbours.
const IN_VAIN: u32 = 4;

/// A thread that has looked for so long lets others of its core have a turn between two looks: where the
/// cores are busy, the peer may be one of them, and the kernel would let it wait until this one sleeps.
const ALONE: Duration = Duration::from_micros(12);

/// A turn of others that took so long was one: a call of the system that switches to nobody is back sooner.
pub const TURN: Duration = Duration::from_micros(3);
/// What it counts for that a wait ended in such a turn, which may be chance; each wait takes one off, and with so much
/// the core is taken to be shared.
const IN_TURN: u32 = 12;
const SHARED: u32 = 2 * IN_TURN;
/// There a thread that looks for so long after the last turn of others sleeps: the kernel gives no turn to one that has
/// itself given away many, and the peer may be that.
const UNSHARED_MAX: Duration = Duration::from_micros(10);

pub struct Pace {
    pub spin: Duration,
    /// Waits in a row that were too long for it.
    in_vain: u32,
    /// What speaks for a core that the peer uses too.
    shared: u32,
}

impl Pace {
    pub fn new(tuning: &Tuning) -> Pace {
        Pace {
            spin: tuning.spin,
            in_vain: 0,
            shared: 0,
        }
    }

    /// How long to look before others of the core have a turn: where one of them uses it, all that this thread
    /// looks for before is what the other could have done by then.
    pub fn alone(&self) -> Duration {
        if self.shared > SHARED {
            Duration::ZERO
        } else {
            ALONE
        }
    }

    /// How long to look without a turn of others.
    pub fn patience(&self) -> Duration {
        if self.shared > SHARED {
            UNSHARED_MAX
        } else {
            Duration::MAX
        }
    }

    /// What was waited for has come in a turn of others.
    pub fn shares(&mut self) {
        self.shared = (self.shared + IN_TURN).min(SHARED + IN_TURN);
    }

    /// A wait has taken so long. One that spinning would have shortened makes the next spin longer, any longer one
    /// makes it as short as it was, and several of those in a row end it until a wait is short again.
    pub fn learn(&mut self, waited: Duration, tuning: &Tuning) {
        self.shared = self.shared.saturating_sub(1);
        if waited < tuning.spin_max + LATE {
            self.in_vain = 0;
            self.spin = (2 * waited).clamp(tuning.spin, tuning.spin_max);
        } else {
            self.in_vain = self.in_vain.saturating_add(1);
            self.spin = match self.in_vain {
                0..IN_VAIN => tuning.spin,
                IN_VAIN.. => Duration::ZERO,
            };
        }
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
    fn waits_that_are_long_again_and_again_end_the_spinning_until_one_is_short() {
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
        let spins: Vec<u128> = (0..6).map(|_| after(5_000)).collect();
        assert_eq!(spins, [30, 30, 30, 0, 0, 0]);
        // A sleeping thread has found its answer as late as it is woken.
        assert_eq!(after(50), 100);
        assert_eq!(after(5_000), 30);
    }

    #[test]
    fn a_core_that_the_peer_uses_is_given_to_it_at_once_for_a_while() {
        let tuning = Tuning::default();
        let mut pace = Pace::new(&tuning);
        let mut after = |waits_in_turns: u32, others: u32| {
            for _ in 0..waits_in_turns {
                pace.shares();
                pace.learn(Duration::from_micros(5), &tuning);
            }
            (0..others).for_each(|_| pace.learn(Duration::from_micros(5), &tuning));
            pace.patience() < Duration::MAX
        };
        assert!(!after(1, 0));
        assert!(!after(0, IN_TURN));
        assert!(after(3, 0));
        assert!(after(100, IN_TURN / 2));
        assert!(!after(0, IN_TURN));
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
