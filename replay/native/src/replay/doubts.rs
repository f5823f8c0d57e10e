//! What may be other than in the recording because the trace has lost what the program sent: the memory that it
//! was sent to, and all that was given to a kernel or a copy together with such memory.

use std::collections::HashSet;

use super::kernels::Place;

/// The memory of which nothing can be told.
#[derive(Debug, Default)]
pub struct Doubts {
    places: HashSet<Place>,
    /// Sessions with any of it.
    sessions: HashSet<u32>,
    /// Sessions of which all memory is.
    whole: HashSet<u32>,
    /// Sessions of which it is not known what their shared memory held.
    shared: HashSet<u32>,
}

impl Doubts {
    /// What was sent to this memory is lost. Where it is not known which that is, it is all of the session's.
    pub fn begin(&mut self, session: u32, place: Option<Place>) {
        self.sessions.insert(session);
        match place {
            Some(place) => self.places.insert(place),
            None => self.whole.insert(session),
        };
    }

    /// What kernels have changed of the memory that they share with the program is lost.
    pub fn begin_shared(&mut self, session: u32) {
        self.shared.insert(session);
    }

    /// Whether what the session shares with its program is doubtful: anything may have got there.
    pub fn are_about_shared(&self, session: u32) -> bool {
        self.are_in(session) || self.shared.contains(&session)
    }

    /// Whether there is any in that session.
    pub fn are_in(&self, session: u32) -> bool {
        self.sessions.contains(&session)
    }

    /// Whether this memory is doubtful; of such as is not known, whether any is.
    pub fn are_about(&self, session: u32, place: Option<Place>) -> bool {
        self.are_in(session)
            && (self.whole.contains(&session)
                || place.is_none_or(|place| self.places.contains(&place)))
    }

    /// Work of the device is given these together.
    pub fn spread(&mut self, session: u32, places: &[Place]) {
        let any = |place: &Place| self.are_about(session, Some(*place));
        if places.iter().any(any) {
            self.places.extend(places);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_spread_to_what_is_used_together() {
        let mut doubts = Doubts::default();
        let [a, b, c] = [1, 2, 3].map(Place::Allocation);
        doubts.spread(0, &[a, b]);
        assert!(!doubts.are_in(0) && !doubts.are_about(0, None));
        doubts.begin(0, Some(a));
        assert!(doubts.are_about(0, Some(a)) && !doubts.are_about(0, Some(b)));
        doubts.spread(0, &[b, c]);
        assert!(!doubts.are_about(0, Some(c)));
        doubts.spread(0, &[a, b]);
        doubts.spread(0, &[b, c]);
        assert!(doubts.are_about(0, Some(c)) && doubts.are_about(0, None));
        assert!(!doubts.are_about(1, None));
        doubts.begin(1, None);
        assert!(doubts.are_about(1, Some(Place::Allocation(9))));
    }
}
