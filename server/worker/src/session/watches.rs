//! Events whose completion the client wants to hear of, so that it need not ask again and again.
//!
//! Whatever tells a program that an event is over, some reply, comes after what tells it so by name: each frame to the
//! client is preceded by what the events are asked then. While nothing is sent, a thread asks now and then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use harp_cuda_abi::types::{CUcontext, CUevent, CUDA_ERROR_NOT_READY};
use harp_wire::push::Push;
use harp_wire::reply::PUSH;
use harp_wire::Encoder;

use super::replies::Replies;
use super::Violation;
use crate::generated::driver::Driver;

/// Events that a session may have watched at a time.
const MOST_WATCHED: usize = 4096;

/// The thread asks this often, and after every time without an answer half as often as before, down to the second.
const PAUSE: Duration = Duration::from_micros(100);
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// One event.
struct Watched {
    /// `None` from when the driver may not be asked about it any more.
    event: Option<CUevent>,
    /// What the client calls this watch.
    number: u64,
}

// SAFETY: a handle is an opaque value for the driver, which takes it on any thread.
unsafe impl Send for Watched {}

/// The watched events of a session.
#[derive(Default)]
pub struct Watches {
    events: Mutex<Vec<Watched>>,
    /// How many there are, to be looked at before each reply.
    count: AtomicUsize,
    more: Condvar,
    started: Mutex<bool>,
}

impl Watches {
    /// Tells the client when the event's last record has completed, once; what was wanted of an earlier record of it is
    /// forgotten.
    pub fn watch(
        self: &Arc<Self>,
        (driver, replies): (&'static Driver, &Arc<Replies>),
        context: CUcontext,
        event: CUevent,
        number: u64,
    ) -> Result<(), Violation> {
        let mut events = self.lock();
        events.retain(|watched| watched.event != Some(event));
        if events.len() == MOST_WATCHED {
            return Err(Violation::new(format!(
                "more than {MOST_WATCHED} events are watched"
            )));
        }
        let event = Some(event);
        events.push(Watched { event, number });
        self.count.store(events.len(), Ordering::Release);
        drop(events);
        self.more.notify_one();
        let mut started = self
            .started
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        if !*started {
            *started = true;
            let (watches, replies) = (self.clone(), replies.clone());
            let context = context as usize;
            // Without the thread the client hears of events with its next reply.
            let _ = thread::Builder::new()
                .name("events".to_owned())
                .spawn(move || {
                    // SAFETY: a context of the session; where it is gone the driver says so to whoever asks.
                    unsafe { (driver.cuCtxSetCurrent)(context as CUcontext) };
                    watches.tend(&replies)
                });
        }
        Ok(())
    }

    /// The event is destroyed: the driver is asked nothing more about it once this returns.
    pub fn forget(&self, event: CUevent) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut events = self.lock();
        events.retain(|watched| watched.event != Some(event));
        self.count.store(events.len(), Ordering::Release);
    }

    /// A context may end, and its events with it: the driver is asked nothing more about any once this returns. The client
    /// is told with the next reply that it has to ask itself about those which go on.
    pub fn may_end(&self) {
        self.lock()
            .iter_mut()
            .for_each(|watched| watched.event = None);
    }

    /// What there is to tell the client of events that have completed since it was last asked for; `None` for nothing.
    /// Who may not ask the driver has no answer to any.
    pub fn completed(&self, driver: Option<&Driver>) -> Option<Encoder> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut told = Encoder::new();
        let mut events = self.lock();
        events.retain(|watched| {
            // SAFETY: `forget` or `may_end` comes before the event's end.
            let ask = |(driver, event): (&Driver, CUevent)| unsafe { (driver.cuEventQuery)(event) };
            let status = driver.zip(watched.event).map(ask);
            if status == Some(CUDA_ERROR_NOT_READY) {
                return true;
            }
            // Of anything but success the client had better ask itself, to hear of it as a program does.
            let (number, over) = (watched.number, status == Some(0));
            let start = told.begin_reply();
            Push::Event { number, over }.encode(&mut told);
            told.end_reply(start, PUSH, 0, 0);
            false
        });
        self.count.store(events.len(), Ordering::Release);
        (!told.is_empty()).then_some(told)
    }

    /// The thread's life.
    fn tend(&self, replies: &Replies) -> ! {
        let mut pause = PAUSE;
        loop {
            let mut events = self.lock();
            while events.is_empty() {
                events = self
                    .more
                    .wait(events)
                    .unwrap_or_else(|poison| poison.into_inner());
                pause = PAUSE;
            }
            let before = events.len();
            drop(events);
            thread::sleep(pause);
            replies.send_completed();
            pause = match self.count.load(Ordering::Acquire) {
                now if now < before => PAUSE,
                _ => (pause * 2).min(PAUSE_MAX),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.events
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}
