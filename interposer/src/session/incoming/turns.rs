//! Whose turn it is to read, and how the others sleep.

use std::sync::MutexGuard;
use std::time::Duration;

use super::{lock, Incoming, Pending, HEALTH_INTERVAL};

/// Who has stepped aside reads again when nobody has for so long.
const STEP_ASIDE: Duration = Duration::from_micros(300);

/// What a thread waits for: the reply with a ticket, or, without, what comes unasked for.
pub(super) type Awaited = Option<u32>;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Readiness {
    Reads,
    StepsAside,
}

/// Threads sleep apart by what they wait for, so that few wake for what is not theirs.
pub(super) const BEDS: usize = 8;

fn bed(awaited: Awaited) -> usize {
    awaited.map_or(0, |ticket| 1 + ticket as usize % (BEDS - 1))
}

impl Incoming {
    /// Sleeps until what is awaited has been read, or it is this thread's turn to read.
    pub(super) fn sleep<'a>(
        &self,
        mut pending: MutexGuard<'a, Pending>,
        awaited: Awaited,
        readiness: Readiness,
    ) -> MutexGuard<'a, Pending> {
        let longest = match readiness {
            Readiness::Reads => HEALTH_INTERVAL,
            Readiness::StepsAside => STEP_ASIDE,
        };
        pending.asleep.push((awaited, readiness));
        let woken = self.beds[bed(awaited)].wait_timeout(pending, longest);
        let (mut pending, _) = woken.unwrap_or_else(|poison| poison.into_inner());
        let mut asleep = pending.asleep.iter();
        if let Some(place) = asleep.position(|one| *one == (awaited, readiness)) {
            pending.asleep.swap_remove(place);
        }
        pending
    }

    /// Leaves the reader to others for as long as they use it.
    pub(super) fn step_aside(&self, awaited: Awaited) {
        let mut pending = lock(&self.pending);
        let news = pending.news;
        loop {
            let over = match awaited {
                Some(ticket) => pending.has_arrived(ticket),
                None => pending.news != news,
            };
            if over {
                return;
            }
            let turns = pending.turns;
            pending = self.sleep(pending, awaited, Readiness::StepsAside);
            if pending.turns == turns {
                return;
            }
        }
    }

    /// Wakes those who wait for what has just been read. Says whether there are any.
    pub(super) fn wake(&self, mut pending: MutexGuard<'_, Pending>, awaited: Awaited) -> bool {
        pending.news += u64::from(awaited.is_none());
        let sleeps = pending.asleep.iter().any(|(other, _)| *other == awaited);
        drop(pending);
        if sleeps {
            self.beds[bed(awaited)].notify_all();
        }
        sleeps
    }

    /// Wakes a thread that still has to wait, if there is one: it reads. The reader has been let go of, and
    /// taking `pending` orders this after a thread's failed try and before its sleep.
    pub(super) fn wake_one(&self) {
        let mut pending = lock(&self.pending);
        pending.turns += 1;
        let has_come = |ticket| pending.has_arrived(ticket);
        let reads = |(awaited, readiness): &&(Awaited, Readiness)| {
            *readiness == Readiness::Reads && !awaited.is_some_and(has_come)
        };
        if let Some((awaited, _)) = pending.asleep.iter().find(reads).copied() {
            self.wake(pending, awaited);
        }
    }

    /// A thread that may have been woken to read, and has nothing to wait for any more, wakes another.
    pub(super) fn see_that_one_reads(&self) {
        if self.reader.try_lock().is_ok() {
            self.wake_one();
        }
    }
}
