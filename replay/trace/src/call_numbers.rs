//! Which number in the trace a call has that its session knows by its place in the stream. The two differ where there are
//! several sessions, and where calls were lost.

use std::collections::VecDeque;

/// Calls of a session that are remembered; a server tells of no older ones.
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
    /// The places and numbers of the last ones that are in the trace, ascending.
    known: VecDeque<(u64, u64)>,
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
            if session.known.len() == MOST {
                session.known.pop_front();
            }
            session.known.push_back((session.sent, self.recorded));
            self.recorded += 1;
        }
        session.sent += 1;
    }

    /// The number in the trace of a session's call at that place in its stream, if it is there. Calls before it are
    /// asked for no more.
    pub fn of(&mut self, session: u32, place: u64) -> Option<u64> {
        let known = &mut self.sessions.get_mut(session as usize)?.known;
        while known.front().is_some_and(|(before, _)| *before < place) {
            known.pop_front();
        }
        match known.front() {
            Some((found, number)) if *found == place => Some(*number),
            _ => None,
        }
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
    fn the_oldest_are_forgotten() {
        let mut numbers = CallNumbers::default();
        (0..=MOST).for_each(|_| numbers.count(0, true));
        assert_eq!(numbers.of(0, 0), None);
        assert_eq!(numbers.of(0, 1), Some(1));
    }
}
