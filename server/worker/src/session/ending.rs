//! The one way out of the process, and what is told about the session on the way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use harp_wire::CallId;

use super::recording;
use crate::control::{Control, Event};

/// What a session ends for whose worker has an error.
const PANICKED: &str = "the worker has failed: its output says how";

/// How long telling of that may take.
const PANIC_PATIENCE: Duration = Duration::from_secs(3);

/// Counters of a session. Written by whoever runs the loop, once per frame; read at the end.
#[derive(Debug)]
pub struct Statistics {
    /// Calls executed.
    pub calls: AtomicU64,
    /// Calls among them whose client waited for a reply.
    pub waits: AtomicU64,
    /// Bytes of call frames received and reply frames sent.
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    /// Bytes that came from the cache in place of the client.
    pub bytes_cached: AtomicU64,
    /// Of the waits, by the call's place in `CallId::ALL`.
    answers: Box<[AtomicU64]>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            calls: AtomicU64::default(),
            waits: AtomicU64::default(),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
            bytes_cached: AtomicU64::default(),
            answers: CallId::ALL.iter().map(|_| AtomicU64::default()).collect(),
        }
    }
}

impl Statistics {
    /// Counts a call that its client waits for.
    #[inline]
    pub fn count_wait(&self, call: CallId) {
        if let Some(place) = call.place() {
            self.answers[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each call was waited for, of those that were; and how many of all these waits the program
    /// did not ask for.
    fn waited_for(&self) -> (BTreeMap<&'static str, u64>, u64) {
        let counts = CallId::ALL.iter().zip(&self.answers);
        let counts = counts.map(|(call, count)| (*call, count.load(Ordering::Relaxed)));
        let waited: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        let unasked = waited
            .iter()
            .filter(|((call, _), _)| !call.because().is_asked());
        let unasked = unasked.map(|(_, count)| count).sum();
        let by_name = waited.iter().map(|((_, name), count)| (*name, *count));
        (by_name.collect(), unasked)
    }
}

/// Ends the session, once.
pub struct Ending {
    control: Control,
    session: OnceLock<(String, Instant)>,
    pub statistics: Statistics,
    begun: AtomicBool,
    cause: OnceLock<String>,
}

impl Ending {
    pub fn new(control: Control) -> Self {
        Self {
            control,
            session: OnceLock::new(),
            statistics: Statistics::default(),
            begun: AtomicBool::new(false),
            cause: OnceLock::new(),
        }
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The session's name; empty before it has begun.
    pub fn session(&self) -> &str {
        self.session.get().map_or("", |(name, _)| name)
    }

    /// From now on the end is that of session `name`.
    pub fn session_begins(&self, name: &str) {
        // A worker has one session; a second name would change nothing.
        let _ = self.session.set((name.to_owned(), Instant::now()));
    }

    /// The session is about to end for this cause, whatever else fails while the client is told.
    pub fn is_near(&self, cause: &str) {
        let _ = self.cause.set(cause.to_owned());
    }

    /// From now on a panic ends the session, on whichever thread it is: what that thread was to answer nobody else
    /// would. `goodbye` tells the client.
    pub fn comes_with_panics(self: &Arc<Self>, goodbye: impl Fn(&str) + Send + Sync + 'static) {
        let (ending, goodbye) = (self.clone(), Arc::new(goodbye));
        let note = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            note(panic);
            // On another thread: this one may hold a lock that is needed for it.
            let (ending, goodbye) = (ending.clone(), goodbye.clone());
            let _ = std::thread::Builder::new().spawn(move || {
                goodbye(PANICKED);
                ending.end(PANICKED)
            });
            std::thread::sleep(PANIC_PATIENCE);
            // SAFETY: as in `end`.
            unsafe { libc::_exit(1) }
        }));
    }

    /// Reports the end and leaves the process. The kernel frees what the driver holds: it does so for a worker that is
    /// killed as well, it cannot hang as a driver's own cleanup can behind an endless kernel, and no other session lives
    /// here. The first cause counts; a thread that comes second waits for the exit of the first.
    pub fn end(&self, cause: &str) -> ! {
        if self.begun.swap(true, Ordering::SeqCst) {
            loop {
                std::thread::park();
            }
        }
        let (session, seconds) = match self.session.get() {
            Some((name, start)) => (name.as_str(), start.elapsed().as_secs_f64()),
            None => ("", 0.0),
        };
        let cause = self.cause.get().map_or(cause, String::as_str);
        recording::end();
        let (waited_for, waits_unasked) = self.statistics.waited_for();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.control.report(&Event::End {
            session,
            calls: count(&self.statistics.calls),
            waits: count(&self.statistics.waits),
            waits_unasked,
            waited_for: &waited_for,
            bytes_in: count(&self.statistics.bytes_in),
            bytes_out: count(&self.statistics.bytes_out),
            bytes_cached: count(&self.statistics.bytes_cached),
            seconds: (seconds * 1e3).round() / 1e3,
            cause,
        });
        // SAFETY: ends the process without running destructors, which is the point.
        unsafe { libc::_exit(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_panic_on_any_thread_ends_the_session() {
        let (agent, control) = harp_content::channel::pair().unwrap();
        // SAFETY: the child never gets out of its block.
        let child = unsafe {
            let child = libc::fork();
            if child == 0 {
                std::panic::set_hook(Box::new(|_| ()));
                let ending = Arc::new(Ending::new(Control::new(control)));
                ending.session_begins("s-1");
                ending.comes_with_panics(|_| ());
                let _ = std::thread::spawn(|| panic!("as a test wants")).join();
                libc::_exit(99);
            }
            child
        };
        drop(control);
        let mut text = [0u8; 4096];
        // SAFETY: the buffer is as long as said.
        let count = unsafe { libc::recv(agent.as_raw_fd(), text.as_mut_ptr().cast(), 4096, 0) };
        let mut status = 0;
        // SAFETY: the child of this test.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        let event: serde_json::Value = serde_json::from_slice(&text[..count as usize]).unwrap();
        assert_eq!(
            (&event["event"], &event["session"]),
            (&"end".into(), &"s-1".into())
        );
        assert_eq!(event["cause"], PANICKED);
    }
}
