//! Which number in the trace a call has that its session knows by its place in the stream. The two differ where there are
//! several sessions, and where calls were lost.

use std::collections::VecDeque;

/// Runs of a session's calls that are remembered. Where there is one session and nothing is lost there is one.
const MOST: usize = 1 << 16;

#[derive(Default)]
pub struct CallNumbers {
    /// Calls in the trace so far.
    recorded: u64,
    sessions: Vec<Session>,
}

#[derive(Default)]
struct Session {
    /// Calls in its stream so far.
    sent: u64,
    /// The last ones that are in the trace, ascending.
    known: VecDeque<Run>,
}

/// Calls that follow each other in their stream and in the trace.
struct Run {
    place: u64,
    number: u64,
    calls: u64,
}

impl CallNumbers {
    /// The next call of a session's stream; whether it is in the trace.
    pub fn count(&mut self, session: u32, is_recorded: bool) {
        let session = session as usize;
        if self.sessions.len() <= session {
            self.sessions.resize_with(session + 1, Session::default);
        }
        let session = &mut self.sessions[session];
        if is_recorded {
            let (place, number) = (session.sent, self.recorded);
            let follows =
                |run: &&mut Run| run.place + run.calls == place && run.number + run.calls == number;
            if let Some(run) = session.known.back_mut().filter(follows) {
                run.calls += 1;
            } else {
                if session.known.len() == MOST {
                    session.known.pop_front();
                }
                session.known.push_back(Run {
                    place,
                    number,
                    calls: 1,
                });
            }
            self.recorded += 1;
        }
        session.sent += 1;
    }

    /// The number in the trace of a session's call at that place in its stream, if it is there. Calls before it are
    /// asked for no more.
    pub fn of(&mut self, session: u32, place: u64) -> Option<u64> {
        let known = &mut self.sessions.get_mut(session as usize)?.known;
        while known
            .front()
            .is_some_and(|run| run.place + run.calls <= place)
        {
            known.pop_front();
        }
        let run = known.front()?;
        let offset = place.checked_sub(run.place)?;
        Some(run.number + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_by_its_place_in_its_stream() {
        let mut numbers = CallNumbers::default();
        for (session, is_recorded) in [(0, true), (1, true), (0, false), (0, true), (1, true)] {
            numbers.count(session, is_recorded);
        }
        assert_eq!(numbers.of(0, 0), Some(0));
        assert_eq!(numbers.of(0, 1), None);
        assert_eq!(numbers.of(0, 2), Some(2));
        assert_eq!(numbers.of(1, 1), Some(3));
        assert_eq!(numbers.of(1, 7), None);
        assert_eq!(numbers.of(9, 0), None);
    }

    #[test]
    fn calls_that_follow_each_other_are_one_run() {
        let mut numbers = CallNumbers::default();
        (0..10 * MOST).for_each(|_| numbers.count(0, true));
        assert_eq!(numbers.sessions[0].known.len(), 1);
        assert_eq!(numbers.of(0, 0), Some(0));
        assert_eq!(
            numbers.of(0, 10 * MOST as u64 - 1),
            Some(10 * MOST as u64 - 1)
        );
        assert_eq!(numbers.of(0, 10 * MOST as u64), None);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut numbers = CallNumbers::default();
        for _ in 0..=MOST {
            numbers.count(0, true);
            numbers.count(1, true);
        }
        assert_eq!(numbers.of(0, 0), None);
        assert_eq!(numbers.of(0, 1), Some(2));
    }
}
