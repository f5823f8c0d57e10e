//! The one way out of the process, and what is told about the session on the way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::Instant;

use crate::control::{Control, Event};

/// Counters of a session. Written by whoever runs the loop, once per frame; read at the end.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Calls executed.
    pub calls: AtomicU64,
    /// Calls among them whose client waited for a reply.
    pub waits: AtomicU64,
    /// Bytes of call frames received and reply frames sent.
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

/// Ends the session, once.
pub struct Ending {
    control: Control,
    session: OnceLock<(String, Instant)>,
    pub statistics: Statistics,
    begun: AtomicBool,
}

impl Ending {
    pub fn new(control: Control) -> Self {
        Self {
            control,
            session: OnceLock::new(),
            statistics: Statistics::default(),
            begun: AtomicBool::new(false),
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
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.control.report(&Event::End {
            session,
            calls: count(&self.statistics.calls),
            waits: count(&self.statistics.waits),
            bytes_in: count(&self.statistics.bytes_in),
            bytes_out: count(&self.statistics.bytes_out),
            seconds: (seconds * 1e3).round() / 1e3,
            cause,
        });
        // SAFETY: ends the process without running destructors, which is the point.
        unsafe { libc::_exit(0) }
    }
}
