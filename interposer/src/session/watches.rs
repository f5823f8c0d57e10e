//! Events whose completion the server tells of, so that a program that asks how far they are need not
//! wait for the answer.
//!
//! Until it is told, an event has not completed as far as anybody here can know: the server tells it
//! before any reply that would give it away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use harp_cuda_abi::types::CUresult;
use harp_wire::calls::encode_harp_event_watch;
use harp_wire::CallId;

use super::Session;

/// Records that are watched at a time: beyond that programs wait for what they ask.
const MOST_WATCHED: usize = 256;

const OPEN: u8 = 0;
const OVER: u8 = 1;
const UNCLEAR: u8 = 2;

/// What is known of an event's last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing has been heard of it yet.
    Open,
    /// It has completed.
    Over,
    /// The server has to be asked.
    Unclear,
}

/// One record of an event that the server tells of.
pub struct Watch {
    number: u64,
    progress: Arc<AtomicU8>,
}

impl Watch {
    pub fn progress(&self) -> Progress {
        match self.progress.load(Ordering::Acquire) {
            OPEN => Progress::Open,
            OVER => Progress::Over,
            _ => Progress::Unclear,
        }
    }
}

/// The watches of a session.
#[derive(Default)]
pub struct Watches {
    /// The server knows how to.
    able: bool,
    /// The program has asked how far an event is: it will again.
    wanted: AtomicBool,
    last: AtomicU64,
    open: Mutex<HashMap<u64, Arc<AtomicU8>>>,
}

impl Watches {
    pub fn new(able: bool) -> Watches {
        Watches {
            able,
            ..Watches::default()
        }
    }

    /// From now on records are watched.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    fn begin(&self) -> Option<Watch> {
        if !self.able || !self.wanted.load(Ordering::Relaxed) {
            return None;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST_WATCHED {
            return None;
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let progress = Arc::new(AtomicU8::new(OPEN));
        open.insert(number, progress.clone());
        Some(Watch { number, progress })
    }

    /// Nobody is interested in that record any more.
    pub fn end(&self, watch: Option<Watch>) {
        if let Some(watch) = watch {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.remove(&watch.number);
        }
    }

    /// What the server says of a watch; one that has ended meanwhile is of no interest.
    pub fn told(&self, number: u64, over: bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = open.remove(&number) {
            progress.store(if over { OVER } else { UNCLEAR }, Ordering::Release);
        }
    }
}

impl Session {
    /// Has the server tell of an event's last record, if it is worth it.
    pub fn watch_event(&self, event: u64) -> Option<Watch> {
        let watch = self.watches.begin()?;
        self.tell(CallId::harp_event_watch, |encoder| {
            encode_harp_event_watch(encoder, event, watch.number);
        });
        Some(watch)
    }

    /// Takes in what the server has said by now, without waiting for it.
    ///
    /// # Errors
    /// The code of a session that is lost.
    pub fn glance(&self) -> Result<(), CUresult> {
        self.alive()?;
        self.incoming.glance().map_err(|cause| self.lose(&cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_open_until_it_is_told_of() {
        let watches = Watches::new(true);
        assert!(watches.begin().is_none(), "nobody has asked yet");
        watches.want();
        let [first, second, third] = [(); 3].map(|()| watches.begin().unwrap());
        watches.told(second.number, true);
        watches.told(third.number, false);
        watches.told(4711, true);
        let progress = [&first, &second, &third].map(Watch::progress);
        assert_eq!(
            progress,
            [Progress::Open, Progress::Over, Progress::Unclear]
        );
        watches.end(Some(first));
        assert!(watches.open.lock().unwrap().is_empty());
        let room = (0..).map_while(|_| watches.begin()).count();
        assert_eq!(room, MOST_WATCHED);
        let old = Watches::new(false);
        old.want();
        assert!(old.begin().is_none());
    }
}
