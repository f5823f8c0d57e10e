//! The threads that execute queued work.
//!
//! One set of threads serves all devices. Each looks for a ready queue, then for a grid of another
//! thread to help with, then sleeps; one of them at a time looks a little longer, so that a stream
//! of short commands costs no wake-ups.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use harp_driver_front::threads::{no_thread, start_thread};
use harp_softgpu_engine::{Grid, Scratch};

use super::command::Launch;
use super::queue::Queue;
use crate::faults;
use crate::settings::{cores, settings};

/// How long an idle thread looks for more work before it sleeps, where there is another core for who
/// is to give it some.
const LINGER: Duration = Duration::from_micros(50);

/// After so many pauses in a row in which nothing came it sleeps at once, until one is short again: where
/// sessions outnumber cores others need the core.
const IN_VAIN: usize = 4;

/// So often it looks before it lets others of its core have a turn.
const LOOKS_IN_A_ROW: u32 = 32;

/// A grid that several threads execute, and the queue that goes on after it.
pub struct SharedGrid {
    grid: Arc<Grid>,
    queue: Arc<Queue>,
    finished: AtomicBool,
}

impl SharedGrid {
    pub fn new(grid: Arc<Grid>, queue: Arc<Queue>) -> Arc<Self> {
        Arc::new(Self {
            grid,
            queue,
            finished: AtomicBool::new(false),
        })
    }

    /// Executes blocks until none is left to start. True for the one thread that finds the grid
    /// finished: it has to go on with the queue.
    pub fn take_part(self: &Arc<Self>, scratch: &mut Scratch) -> bool {
        faults::run(&self.grid, scratch);
        executor().unshare(self);
        let last = self.grid.is_finished() && !self.finished.swap(true, Ordering::AcqRel);
        if last {
            faults::note(&self.grid, self.queue.fault_cell());
        }
        last
    }
}

/// The threads and what waits for them.
pub struct Executor {
    threads: usize,
    linger: Duration,
    ready: Mutex<VecDeque<Arc<Queue>>>,
    ready_count: AtomicUsize,
    grids: Mutex<Vec<Arc<SharedGrid>>>,
    grid_count: AtomicUsize,
    idle: Mutex<()>,
    wake: Condvar,
    sleeping: AtomicUsize,
    lingering: AtomicUsize,
    /// Pauses in a row that were too long to linger for.
    in_vain: AtomicUsize,
    start: Once,
}

/// When a thread of the executor is woken for what the calling thread makes ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wakes {
    AtOnce,
    Later,
    /// Later, and there is something.
    Owed,
}

thread_local! {
    static WAKES: Cell<Wakes> = const { Cell::new(Wakes::AtOnce) };
}

/// The executor of this process.
pub fn executor() -> &'static Executor {
    static EXECUTOR: OnceLock<Executor> = OnceLock::new();
    EXECUTOR.get_or_init(|| Executor {
        threads: settings().threads,
        linger: if cores() > 1 { LINGER } else { Duration::ZERO },
        ready: Mutex::default(),
        ready_count: AtomicUsize::new(0),
        grids: Mutex::default(),
        grid_count: AtomicUsize::new(0),
        idle: Mutex::default(),
        wake: Condvar::new(),
        sleeping: AtomicUsize::new(0),
        lingering: AtomicUsize::new(0),
        in_vain: AtomicUsize::new(0),
        start: Once::new(),
    })
}

/// Lends the calling thread's scratch space.
pub fn with_scratch<R>(body: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    }
    // A thread that is ending has lost its own and gets a fresh one.
    let kept = SCRATCH.try_with(Cell::take).ok().flatten();
    let mut scratch = kept.unwrap_or_else(|| Box::new(Scratch::new()));
    let result = body(&mut scratch);
    let _ = SCRATCH.try_with(|cell| cell.set(Some(scratch)));
    result
}

impl Executor {
    /// Takes a queue that has work. A thread is woken for it, later if the calling thread [gathers](Self::gather).
    pub fn ready(&'static self, queue: Arc<Queue>) {
        self.start.call_once(|| self.start_threads());
        {
            let mut ready = lock(&self.ready);
            if queue.is_urgent() {
                ready.push_front(queue);
            } else {
                ready.push_back(queue);
            }
            self.ready_count.store(ready.len(), Ordering::SeqCst);
        }
        match WAKES.get() {
            Wakes::AtOnce => self.notify(),
            Wakes::Later | Wakes::Owed => WAKES.set(Wakes::Owed),
        }
    }

    /// Until [`release`](Self::release) nobody is woken for what the calling thread makes ready: it knows that more
    /// comes, perhaps a wait, and then does the work itself. Where sessions outnumber cores that spares two changes of
    /// threads for each wait.
    pub fn gather(&self) {
        if WAKES.get() == Wakes::AtOnce {
            WAKES.set(Wakes::Later);
        }
    }

    /// Ends that, and wakes whom it owes.
    pub fn release(&self) {
        if WAKES.replace(Wakes::AtOnce) == Wakes::Owed {
            self.notify_if_more();
        }
    }

    /// Takes a queue off the list that a synchronising thread has claimed.
    pub fn withdraw(&self, queue: &Arc<Queue>) {
        let mut ready = lock(&self.ready);
        ready.retain(|other| !Arc::ptr_eq(other, queue));
        self.ready_count.store(ready.len(), Ordering::SeqCst);
    }

    /// Whether more than one thread could and may work on `launch`.
    pub fn is_worth_sharing(&self, launch: &Launch) -> bool {
        self.threads > 1 && launch.blocks > 1 && !settings().serial
    }

    /// Offers a grid to idle threads.
    pub fn share(&'static self, grid: Arc<SharedGrid>) {
        self.start.call_once(|| self.start_threads());
        {
            let mut grids = lock(&self.grids);
            grids.push(grid);
            self.grid_count.store(grids.len(), Ordering::SeqCst);
        }
        self.notify();
    }

    /// Takes the offer of a grid back: it has no blocks left to start.
    fn unshare(&self, grid: &Arc<SharedGrid>) {
        let mut grids = lock(&self.grids);
        grids.retain(|other| !Arc::ptr_eq(other, grid));
        self.grid_count.store(grids.len(), Ordering::SeqCst);
    }

    /// Helps with a shared grid; false where there is none. A synchronising thread names its queue
    /// and the count that it waits for.
    pub fn help(&self, wanted: Option<(&Arc<Queue>, u64)>) -> bool {
        if self.grid_count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let is_wanted = |grid: &&Arc<SharedGrid>| {
            wanted.is_none_or(|(queue, _)| Arc::ptr_eq(&grid.queue, queue))
        };
        let Some(grid) = lock(&self.grids).iter().find(is_wanted).cloned() else {
            return false;
        };
        with_scratch(|scratch| {
            if grid.take_part(scratch) {
                grid.queue
                    .go_on(scratch, wanted.map_or(u64::MAX, |(_, count)| count));
            }
        });
        true
    }

    fn start_threads(&'static self) {
        for number in 0..self.threads {
            if let Err(error) = start_thread(format!("harp-soft-{number}"), || self.serve()) {
                // Threads that synchronise execute what they wait for, so that all work gets done.
                no_thread(
                    &error,
                    "kernels and copies run with fewer threads, or when the program waits for them",
                );
                return;
            }
        }
    }

    fn serve(&self) {
        loop {
            if let Some(queue) = self.take() {
                self.notify_if_more();
                with_scratch(|scratch| queue.run(scratch, u64::MAX));
            } else if self.grid_count.load(Ordering::SeqCst) > 0 {
                self.notify_if_more();
                self.help(None);
            } else {
                self.rest();
            }
        }
    }

    /// A ready queue, now the calling thread's to run.
    fn take(&self) -> Option<Arc<Queue>> {
        while self.ready_count.load(Ordering::SeqCst) > 0 {
            let queue = {
                let mut ready = lock(&self.ready);
                let queue = ready.pop_front();
                self.ready_count.store(ready.len(), Ordering::SeqCst);
                queue?
            };
            // A synchronising thread may have claimed it just now.
            if queue.claim() {
                return Some(queue);
            }
        }
        None
    }

    fn has_work(&self) -> bool {
        self.ready_count.load(Ordering::SeqCst) > 0 || self.grid_count.load(Ordering::SeqCst) > 0
    }

    /// Wakes a thread, unless one is looking anyway.
    fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.lingering.load(Ordering::SeqCst) == 0 && self.sleeping.load(Ordering::SeqCst) > 0 {
            let _idle = lock(&self.idle);
            self.wake.notify_one();
        }
    }

    /// Passes the news on: every thread that finds work wakes the next while there is more.
    fn notify_if_more(&self) {
        if self.has_work() {
            self.notify();
        }
    }

    /// Looks for work for a moment, then sleeps until there is some.
    fn rest(&self) {
        let may_linger = self.in_vain.load(Ordering::Relaxed) < IN_VAIN;
        if self.lingering.fetch_add(1, Ordering::SeqCst) == 0 && may_linger {
            let until = Instant::now() + self.linger;
            // A pause takes some 40 ns and a look at a flag of another core's 100: a kernel that is
            // launched now starts within 1.5 us of its call.
            for look in 1u32.. {
                if self.has_work() || Instant::now() >= until {
                    break;
                }
                if look.is_multiple_of(LOOKS_IN_A_ROW) {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
            self.note_pause(self.has_work());
        }
        self.lingering.fetch_sub(1, Ordering::SeqCst);
        let mut idle = lock(&self.idle);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        // Whoever added work before it saw this thread sleeping is seen here.
        fence(Ordering::SeqCst);
        let since = Instant::now();
        while !self.has_work() {
            idle = self.wake.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        if since.elapsed() < self.linger {
            self.note_pause(true);
        }
    }

    /// Work has come as soon as a thread lingers for it, or it has not.
    fn note_pause(&self, was_short: bool) {
        if was_short {
            self.in_vain.store(0, Ordering::Relaxed);
        } else {
            self.in_vain.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
