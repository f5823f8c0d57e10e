//! Events whose completion the client wants to hear of, so that it need not ask again and again.
//!
//! Whatever tells a program that an event is over, some reply, comes after what tells it so by name: each frame to the
//! client is preceded by what the events are asked then, of each stream up to the first that has not completed. While
//! nothing is sent, a thread asks (`session::tending`).

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use harp_cuda_abi::types::{CUcontext, CUevent, CUresult, CUDA_ERROR_NOT_READY};
use harp_wire::push::Push;
use harp_wire::reply::PUSH;
use harp_wire::Encoder;

use super::Violation;
use crate::generated::driver::Driver;

/// Events that a session may have watched at a time.
const MOST_WATCHED: usize = 4096;

/// What completes in the order of its records: a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// A stream by the client's handle, with the thread and the context that it is another one in.
    Stream(u64, u32, usize),
    /// An event of which no record is known.
    Alone(usize),
}

impl Line {
    pub fn of(stream: u64, thread: u32, context: CUcontext) -> Line {
        match stream {
            0 | 1 => Line::Stream(stream, 0, context.addr()),
            2 => Line::Stream(stream, thread, context.addr()),
            _ => Line::Stream(stream, 0, 0),
        }
    }
}

/// One record of an event: its line, and when it was made.
type Place = (Line, u64);

/// One event.
struct Watched {
    event: CUevent,
    /// What the client calls this watch.
    number: u64,
}

// SAFETY: a handle is an opaque value for the driver, which takes it on any thread.
unsafe impl Send for Watched {}

#[derive(Default)]
struct Events {
    /// The last record of each event, as far as they are known.
    records: HashMap<usize, Place>,
    last: u64,
    watched: BTreeMap<Place, Watched>,
    /// Watches whose events the driver may not be asked about any more.
    unclear: Vec<u64>,
}

impl Events {
    fn len(&self) -> usize {
        self.watched.len() + self.unclear.len()
    }

    fn place_of(&self, event: CUevent) -> Place {
        let known = self.records.get(&event.addr());
        known.copied().unwrap_or((Line::Alone(event.addr()), 0))
    }

    fn recorded(&mut self, event: CUevent, line: Line) {
        let before = self.place_of(event);
        self.last += 1;
        let place = (line, self.last);
        self.records.insert(event.addr(), place);
        // What is asked about it tells of this record from now on.
        if let Some(watched) = self.watched.remove(&before) {
            self.watched.insert(place, watched);
        }
    }

    fn forget(&mut self, event: CUevent) {
        let place = self.place_of(event);
        self.watched.remove(&place);
        self.records.remove(&event.addr());
    }

    fn may_end(&mut self) {
        self.records.clear();
        let watched = std::mem::take(&mut self.watched);
        let numbers = watched.into_values().map(|watched| watched.number);
        self.unclear.extend(numbers);
    }

    /// Tells of those that have completed, by `ask`ing about each line's up to the first that has not.
    fn tell(
        &mut self,
        mut ask: impl FnMut(CUevent) -> Option<CUresult>,
        mut tell: impl FnMut(u64, bool),
    ) {
        for number in self.unclear.drain(..) {
            tell(number, false);
        }
        let mut passed = Bound::Unbounded;
        while let Some((&place, watched)) = self.watched.range((passed, Bound::Unbounded)).next() {
            let status = ask(watched.event);
            if status == Some(CUDA_ERROR_NOT_READY) {
                passed = Bound::Excluded((place.0, u64::MAX));
                continue;
            }
            // Of anything but success the client had better ask itself, to hear of it as a program does.
            tell(watched.number, status == Some(0));
            self.watched.remove(&place);
            passed = Bound::Excluded(place);
        }
    }
}

/// The watched events of a session.
#[derive(Default)]
pub struct Watches {
    /// A client that has never watched an event has its records not noted.
    are_wanted: AtomicBool,
    events: Mutex<Events>,
    /// How many there are, to be looked at before each reply.
    count: AtomicUsize,
}

impl Watches {
    /// Tells the client when the event's last record has completed, once; what was wanted of an earlier record of it is
    /// forgotten.
    pub fn watch(&self, event: CUevent, number: u64) -> Result<(), Violation> {
        self.are_wanted.store(true, Ordering::Relaxed);
        let mut events = self.lock();
        let place = events.place_of(event);
        events.watched.remove(&place);
        if events.len() >= MOST_WATCHED {
            return Err(Violation::new(format!(
                "more than {MOST_WATCHED} events are watched"
            )));
        }
        events.watched.insert(place, Watched { event, number });
        self.count.store(events.len(), Ordering::Release);
        Ok(())
    }

    /// The event is about to be recorded. It is said before: whoever asks about the event from the record on must not take
    /// its answer for that of an earlier record, behind which others have completed.
    #[inline]
    pub fn recorded(&self, event: CUevent, line: impl FnOnce() -> Line) {
        if self.are_wanted.load(Ordering::Relaxed) {
            self.lock().recorded(event, line());
        }
    }

    /// The event is destroyed: the driver is asked nothing more about it once this returns.
    pub fn forget(&self, event: CUevent) {
        if self.are_wanted.load(Ordering::Relaxed) {
            let mut events = self.lock();
            events.forget(event);
            self.count.store(events.len(), Ordering::Release);
        }
    }

    /// A context may end, and its events with it: the driver is asked nothing more about any once this returns. The client
    /// is told with the next reply that it has to ask itself about those which go on.
    pub fn may_end(&self) {
        self.lock().may_end();
    }

    /// What there is to tell the client of events that have completed since it was last asked for; `None` for nothing.
    /// Who may not ask the driver has no answer to any.
    pub fn completed(&self, driver: Option<&Driver>) -> Option<Encoder> {
        if self.open() == 0 {
            return None;
        }
        let mut told = Encoder::new();
        let mut events = self.lock();
        events.tell(
            // SAFETY: `forget` or `may_end` comes before the event's end.
            |event| driver.map(|driver| unsafe { (driver.cuEventQuery)(event) }),
            |number, over| {
                let start = told.begin_reply();
                Push::Event { number, over }.encode(&mut told);
                told.end_reply(start, PUSH, 0, 0);
            },
        );
        self.count.store(events.len(), Ordering::Release);
        (!told.is_empty()).then_some(told)
    }

    /// How many events are watched, and watches that there is something to tell of.
    pub fn open(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Line = Line::Stream(7, 0, 0);
    const SECOND: Line = Line::Stream(8, 0, 0);

    fn event(number: usize) -> CUevent {
        std::ptr::without_provenance_mut(number)
    }

    fn watch(events: &mut Events, number: usize) {
        let (event, place) = (event(number), events.place_of(event(number)));
        let number = number as u64;
        events.watched.insert(place, Watched { event, number });
    }

    /// Which events are asked about, and what is told, where those of `open` have not completed.
    fn round(events: &mut Events, open: &[usize]) -> (Vec<usize>, Vec<(u64, bool)>) {
        let (mut asked, mut told) = (Vec::new(), Vec::new());
        events.tell(
            |event| {
                asked.push(event.addr());
                let is_open = open.contains(&event.addr());
                Some(if is_open { CUDA_ERROR_NOT_READY } else { 0 })
            },
            |number, over| told.push((number, over)),
        );
        (asked, told)
    }

    #[test]
    fn of_each_stream_no_more_is_asked_than_the_first_that_has_not_completed() {
        let mut events = Events::default();
        // Noted before it was known that records are wanted.
        watch(&mut events, 9);
        for number in 1..=3 {
            events.recorded(event(number), FIRST);
            watch(&mut events, number);
        }
        events.recorded(event(4), SECOND);
        watch(&mut events, 4);
        let all = [1, 2, 3, 4, 9];
        assert_eq!(round(&mut events, &all), (vec![1, 4, 9], vec![]));
        let told = vec![(1, true), (2, true), (9, true)];
        assert_eq!(round(&mut events, &[3, 4]), (vec![1, 2, 3, 4, 9], told));
        assert_eq!(round(&mut events, &[3]), (vec![3, 4], vec![(4, true)]));
        events.forget(event(3));
        assert_eq!(round(&mut events, &[]), (vec![], vec![]));
    }

    #[test]
    fn an_event_that_is_recorded_elsewhere_holds_up_nothing_where_it_was() {
        let mut events = Events::default();
        for number in 1..=2 {
            events.recorded(event(number), FIRST);
            watch(&mut events, number);
        }
        events.recorded(event(1), SECOND);
        assert_eq!(round(&mut events, &[1]), (vec![2, 1], vec![(2, true)]));
        // The same event is watched once.
        watch(&mut events, 1);
        assert_eq!(events.len(), 1);
        events.may_end();
        assert_eq!(round(&mut events, &[1]), (vec![], vec![(1, false)]));
        assert_eq!(events.len(), 0);
    }
}
