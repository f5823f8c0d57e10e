//! Threads that do a part of a link's sealing and opening, where there are cores to spare.
//!
//! What is long is cut into jobs. The thread that writes or reads posts them as one batch, goes on with the
//! socket, and does itself what no other thread has taken by the time that it needs it. So nothing depends
//! on the crew: where it has no threads, or they are late, the same is done in the same order by one.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::lock;

/// Starts a thread of this name, or says with the system's error that there can be none.
pub type StartThread = fn(name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<()>;

/// How long a thread looks for another batch before it sleeps. A sleeping one is woken late by more than a
/// job takes.
const SPIN: Duration = Duration::from_micros(60);
/// Looks at a job that another thread does before the core is offered to somebody else.
const LOOKS: u32 = 4096;

/// The threads of one link. They begin with the first batch and end with the link.
pub struct Crew {
    size: usize,
    start_thread: StartThread,
    started: OnceLock<bool>,
    board: Arc<Board>,
}

/// Where batches are posted.
#[derive(Default)]
struct Board {
    present: Mutex<Present>,
    posted: Condvar,
    /// Counts batches, for who spins.
    batches: AtomicU64,
}

#[derive(Default)]
struct Present {
    batch: Option<Arc<Batch>>,
    asleep: usize,
    over: bool,
}

/// Jobs that are numbered, and taken in that order.
struct Batch {
    work: Work,
    next: AtomicUsize,
    done: Box<[AtomicBool]>,
    panicked: AtomicBool,
}

/// The work of a batch: valid until its poster has seen all jobs done.
struct Work(*const (dyn Fn(usize) + Sync));

// SAFETY: what it points to may be called from any thread, and outlives every call (`Crew::share`).
unsafe impl Send for Work {}
// SAFETY: as above.
unsafe impl Sync for Work {}

impl Batch {
    /// Takes a job and does it; `false` if none is left.
    fn do_next(&self) -> bool {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(done) = self.done.get(index) else {
            return false;
        };
        // SAFETY: this job is not done, so whoever has posted it still waits for it.
        let work = unsafe { &*self.work.0 };
        if catch_unwind(AssertUnwindSafe(|| work(index))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        done.store(true, Ordering::Release);
        true
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index].load(Ordering::Acquire)
    }

    /// Returns when that job is done, doing others meanwhile.
    fn finish(&self, index: usize) {
        let mut looks = 0;
        while !self.is_done(index) {
            if self.do_next() {
                continue;
            }
            looks += 1;
            if looks % LOOKS == 0 {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// A batch, for who has posted it.
pub struct Shared<'a>(&'a Batch);

impl Shared<'_> {
    /// Returns when job `index` is done, doing others meanwhile.
    pub fn finish(&self, index: usize) {
        self.0.finish(index);
    }
}

/// Has every job done before the work goes.
struct Joined<'a>(&'a Batch);

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        (0..self.0.done.len()).for_each(|index| self.0.finish(index));
    }
}

impl Crew {
    /// A crew of at most `size` threads beside the callers.
    pub fn new(size: usize, start_thread: StartThread) -> Crew {
        Crew {
            size,
            start_thread,
            started: OnceLock::new(),
            board: Arc::default(),
        }
    }

    /// Whether there is anybody to share work with. The first time the threads are started.
    pub fn is_there(&self) -> bool {
        self.size > 0 && *self.started.get_or_init(|| self.start() > 0)
    }

    fn start(&self) -> usize {
        let start = |_| {
            let board = self.board.clone();
            (self.start_thread)("harp-crew", Box::new(move || board.serve()))
        };
        (0..self.size).map(start).filter(io::Result::is_ok).count()
    }

    /// Has `work(0)` to `work(count - 1)` done by the crew and this thread, which does `act` meanwhile. All are
    /// done when this returns.
    pub fn share<T>(
        &self,
        count: usize,
        work: &(dyn Fn(usize) + Sync),
        act: impl FnOnce(Shared<'_>) -> T,
    ) -> T {
        // SAFETY: only the lifetime changes. `Joined` keeps this function from ending, also by a panic, before
        // every job is done; after that nobody calls the work.
        let work: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let batch = Arc::new(Batch {
            work: Work(work),
            next: AtomicUsize::new(0),
            done: (0..count).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
        });
        let joined = Joined(&batch);
        self.board.post(&batch);
        let result = act(Shared(&batch));
        drop(joined);
        assert!(!batch.panicked.load(Ordering::Relaxed), "a job panicked");
        result
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        lock(&self.board.present).over = true;
        self.board.batches.fetch_add(1, Ordering::Release);
        self.board.posted.notify_all();
    }
}

impl Board {
    /// Shows a batch to the crew, in place of one that is done or soon will be without it.
    fn post(&self, batch: &Arc<Batch>) {
        let mut present = lock(&self.present);
        present.batch = Some(batch.clone());
        self.batches.fetch_add(1, Ordering::Release);
        if present.asleep > 0 {
            self.posted.notify_all();
        }
    }

    /// The life of a thread of the crew.
    fn serve(&self) {
        let mut seen = 0;
        loop {
            let end = Instant::now() + SPIN;
            while self.batches.load(Ordering::Acquire) == seen && Instant::now() < end {
                std::hint::spin_loop();
            }
            let mut present = lock(&self.present);
            while self.batches.load(Ordering::Acquire) == seen {
                present.asleep += 1;
                present = self
                    .posted
                    .wait(present)
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                present.asleep -= 1;
            }
            if present.over {
                return;
            }
            seen = self.batches.load(Ordering::Acquire);
            let batch = present.batch.clone();
            drop(present);
            while batch.as_ref().is_some_and(|batch| batch.do_next()) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew(size: usize) -> Crew {
        Crew::new(size, |name, body| {
            let builder = thread::Builder::new().name(name.to_owned());
            builder.spawn(body).map(drop)
        })
    }

    #[test]
    fn every_job_is_done_once_with_and_without_threads() {
        for size in [0, 1, 3] {
            let crew = crew(size);
            assert_eq!(crew.is_there(), size > 0);
            for round in 1..200 {
                let times: Vec<AtomicUsize> =
                    (0..round % 17).map(|_| AtomicUsize::new(0)).collect();
                let work = |index: usize| {
                    times[index].fetch_add(1, Ordering::Relaxed);
                };
                crew.share(times.len(), &work, |batch| {
                    for index in (0..times.len()).rev().step_by(3) {
                        batch.finish(index);
                        assert_eq!(times[index].load(Ordering::Relaxed), 1);
                    }
                });
                assert!(times.iter().all(|times| times.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn two_batches_at_a_time_are_both_done() {
        let crew = crew(1);
        assert!(crew.is_there());
        let sum = AtomicUsize::new(0);
        let work = |index: usize| {
            sum.fetch_add(index, Ordering::Relaxed);
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..500).for_each(|_| crew.share(9, &work, |_| ())));
            }
        });
        assert_eq!(sum.into_inner(), 2 * 500 * 36);
    }

    #[test]
    fn a_job_that_panics_is_told_to_its_poster() {
        let crew = crew(1);
        assert!(crew.is_there());
        let work = |index: usize| assert!(index != 3, "told");
        let told = catch_unwind(AssertUnwindSafe(|| crew.share(8, &work, |_| ())));
        assert!(told.is_err());
        crew.share(3, &work, |_| ());
    }

    #[test]
    fn without_threads_to_be_had_there_is_nobody() {
        let none = Crew::new(2, |_, _| Err(io::ErrorKind::WouldBlock.into()));
        assert!(!none.is_there());
        let done = AtomicUsize::new(0);
        let work = |_: usize| {
            done.fetch_add(1, Ordering::Relaxed);
        };
        none.share(4, &work, |batch| batch.finish(3));
        assert_eq!(done.into_inner(), 4);
    }
}
