//! A queue of commands that run in order: the inside of a stream.
//!
//! At most one thread *runs* a queue at a time. A queue with work is *ready* (in the executor's
//! list), *running*, or *parked* until another queue has come far enough. While a large grid is
//! executed by several threads the queue keeps running without a thread of its own; whoever
//! finishes the grid goes on with the queue.
//!
//! Progress is one counter of completed commands, so that every kind of waiting (events, stream
//! order, synchronisation) is a comparison with it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_ILLEGAL_ADDRESS};
use harp_softgpu_engine::Scratch;

use super::busy::Busy;
use super::command::{run_here, Command, Marker, Stored, Work};
use super::executor::{executor, with_scratch, SharedGrid};
use super::{host_calls, polls};
use crate::faults;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No commands.
    Idle,
    /// In the executor's list.
    Ready,
    /// A thread, a shared grid or a host call will go on with it.
    Running,
    /// Another queue will make it ready.
    Parked,
}

struct Pending {
    commands: VecDeque<Command>,
    phase: Phase,
    /// What a parked queue waits for.
    blocker: Option<Marker>,
}

struct Watchers {
    /// Queues parked until this one has come so far.
    queues: Vec<(u64, Arc<Queue>)>,
}

/// Commands in order.
pub struct Queue {
    pending: Mutex<Pending>,
    submitted: AtomicU64,
    completed: AtomicU64,
    /// Smallest count that somebody waits for, `u64::MAX` for none.
    attention: AtomicU64,
    watchers: Mutex<Watchers>,
    progress: Condvar,
    /// The context's sticky error.
    fault: Arc<AtomicU32>,
    /// Runs before others where there is a choice.
    urgent: bool,
    /// Waits for the legacy stream, and the legacy stream for it.
    blocking: bool,
    /// A function of the program, or a value that it is to write, is waited for.
    held: AtomicBool,
    /// Where it is listed while it has work, if anywhere; and whether it is.
    busy: Weak<Busy>,
    listed: AtomicBool,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Queue({} of {})", self.completed(), self.submitted())
    }
}

/// How a command went on.
enum Step {
    Complete,
    /// Something else will call [`Queue::go_on`].
    Elsewhere,
}

/// Commands that a queue holds before those who put more in have to wait. NVIDIA's driver takes about
/// a thousand.
pub(super) const BACKLOG_MAX: u64 = 16 << 10;

/// Bytes of the program's that all queues hold before who puts more in has to wait.
const STORED_MAX: u64 = 64 << 20;

/// How long a synchronising thread looks for news before it sleeps.
const SPINS: u32 = 200;

impl Queue {
    /// An empty queue of a context whose sticky error is `fault`.
    pub fn new(fault: Arc<AtomicU32>) -> Arc<Self> {
        Self::of_stream(fault, Weak::new(), false, false)
    }

    /// The empty queue of a stream, which is in the list `busy` while it has work.
    pub fn of_stream(
        fault: Arc<AtomicU32>,
        busy: Weak<Busy>,
        blocking: bool,
        urgent: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            pending: Mutex::new(Pending {
                commands: VecDeque::new(),
                phase: Phase::Idle,
                blocker: None,
            }),
            submitted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            attention: AtomicU64::new(u64::MAX),
            watchers: Mutex::new(Watchers { queues: Vec::new() }),
            progress: Condvar::new(),
            fault,
            urgent,
            blocking,
            held: AtomicBool::new(false),
            busy,
            listed: AtomicBool::new(false),
        })
    }

    /// Commands that were put in so far.
    pub fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Acquire)
    }

    /// Commands that are complete.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::SeqCst)
    }

    /// Whether all that was put in is complete.
    pub fn is_drained(&self) -> bool {
        self.completed() == self.submitted.load(Ordering::SeqCst)
    }

    /// Whether the legacy stream waits for it.
    pub fn is_blocking(&self) -> bool {
        self.blocking
    }

    /// Lists the queue as busy, unless it is. Its work is in by now: where `unlist` has just found it
    /// drained, either this sees that it is not listed, or that one sees the work.
    fn list(self: &Arc<Self>) {
        if !self.listed.load(Ordering::SeqCst) && !self.listed.swap(true, Ordering::SeqCst) {
            if let Some(busy) = self.busy.upgrade() {
                busy.add(self.clone());
            }
        }
    }

    /// Whether the list that holds the queue is to drop it: it is drained, or listed anew. Only who
    /// has the list's lock may ask.
    pub(super) fn unlist(&self) -> bool {
        if !self.is_drained() {
            return false;
        }
        self.listed.store(false, Ordering::SeqCst);
        // What came in since is listed again, here unless it has been already.
        self.is_drained() || self.listed.swap(true, Ordering::SeqCst)
    }

    /// The context's sticky error, 0 for none.
    pub fn fault(&self) -> CUresult {
        self.fault.load(Ordering::Acquire)
    }

    /// Whether the executor should prefer this queue.
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// The point that all of its present commands lead to.
    pub fn end(self: &Arc<Self>) -> Marker {
        Marker {
            queue: self.clone(),
            count: self.submitted(),
        }
    }

    /// Puts a command in and has it run by the executor; returns its count.
    pub fn submit(self: &Arc<Self>, command: Command) -> u64 {
        let (count, was_idle) = self.push(command, Phase::Ready);
        if was_idle {
            executor().ready(self.clone());
        }
        if count.wrapping_sub(self.completed()) > BACKLOG_MAX || Stored::bytes() > STORED_MAX {
            self.hold_back();
        }
        count
    }

    /// Lets a thread wait that queues faster than the device executes, until half of the backlog is
    /// done. It does not wait for what the program itself has to do first.
    #[cold]
    fn hold_back(self: &Arc<Self>) {
        const PAUSE: Duration = Duration::from_micros(100);
        executor().release();
        loop {
            let backlog = self.submitted() - self.completed();
            if backlog <= BACKLOG_MAX / 2 && (Stored::bytes() <= STORED_MAX / 2 || backlog == 0) {
                return;
            }
            let mut first = self.clone();
            while let Some(blocker) = first.blocker() {
                first = blocker.queue;
            }
            if first.held.load(Ordering::SeqCst) {
                return;
            }
            if first.claim() {
                with_scratch(|scratch| first.run(scratch, first.completed() + 1));
            } else if !executor().help(Some((&first, u64::MAX))) {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Puts a command in and returns when it is complete. An idle queue runs it right here.
    pub fn submit_and_wait(self: &Arc<Self>, command: Command) {
        let (count, was_idle) = self.push(command, Phase::Running);
        if was_idle {
            executor().release();
            with_scratch(|scratch| self.run(scratch, count));
        }
        self.wait(count);
    }

    fn push(self: &Arc<Self>, command: Command, phase: Phase) -> (u64, bool) {
        let pushed = self.append(command, phase);
        self.list();
        pushed
    }

    fn append(&self, command: Command, phase: Phase) -> (u64, bool) {
        let mut pending = self.pending();
        pending.commands.push_back(command);
        let was_idle = pending.phase == Phase::Idle;
        if was_idle {
            pending.phase = phase;
        }
        // Under the lock: counts follow the order of commands.
        (self.submitted.fetch_add(1, Ordering::SeqCst) + 1, was_idle)
    }

    /// Blocks until `count` commands are complete. The calling thread runs this queue, helps with
    /// its grid, or does what it waits for, before it sleeps.
    pub fn wait(self: &Arc<Self>, count: u64) {
        let mut spins = 0;
        while self.completed() < count {
            let claimed = self.claim();
            if claimed {
                executor().withdraw(self);
            }
            executor().release();
            if claimed {
                with_scratch(|scratch| self.run(scratch, count));
            } else if executor().help(Some((self, count))) {
                spins = 0;
            } else if let Some(blocker) = self.blocker() {
                blocker.wait();
            } else if spins < SPINS {
                spins += 1;
                if spins % 16 == 0 {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            } else {
                self.sleep(count);
            }
        }
    }

    fn sleep(&self, count: u64) {
        let watchers = self.watchers();
        self.attention.fetch_min(count, Ordering::SeqCst);
        if self.completed() < count {
            drop(
                self.progress
                    .wait(watchers)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    fn blocker(&self) -> Option<Marker> {
        let pending = self.pending();
        pending
            .blocker
            .clone()
            .filter(|_| pending.phase == Phase::Parked)
    }

    /// Takes the queue off the executor's list for the calling thread to run.
    pub(super) fn claim(&self) -> bool {
        let mut pending = self.pending();
        let ready = pending.phase == Phase::Ready;
        if ready {
            pending.phase = Phase::Running;
        }
        ready
    }

    /// Runs commands until `count` are complete, none is left, one has to wait, or something else
    /// will go on. The calling thread must have made the queue [`Phase::Running`].
    pub(super) fn run(self: &Arc<Self>, scratch: &mut Scratch, count: u64) {
        let mut batch = VecDeque::new();
        loop {
            let Some(command) = self.next(&mut batch) else {
                return;
            };
            if let Some(marker) = command.after.iter().find(|marker| !marker.is_reached()) {
                let marker = marker.clone();
                batch.push_front(command);
                if self.park(&mut batch, marker) {
                    return;
                }
                continue;
            }
            match self.execute(command.work, &mut batch, scratch) {
                Step::Complete => self.complete(),
                Step::Elsewhere => return,
            }
            if self.completed() >= count {
                self.leave(&mut batch);
                return;
            }
        }
    }

    /// The next command: from `batch`, refilled with all that is pending. None makes it idle.
    fn next(&self, batch: &mut VecDeque<Command>) -> Option<Command> {
        if batch.is_empty() {
            let mut pending = self.pending();
            core::mem::swap(batch, &mut pending.commands);
            if batch.is_empty() {
                pending.phase = Phase::Idle;
            }
        }
        batch.pop_front()
    }

    /// Completes what [`Step::Elsewhere`] stood for and goes on until `count` are complete.
    pub(super) fn go_on(self: &Arc<Self>, scratch: &mut Scratch, count: u64) {
        self.complete();
        if self.completed() < count {
            self.run(scratch, count);
        } else {
            self.leave(&mut VecDeque::new());
        }
    }

    /// As [`Queue::go_on`], for a thread that does not execute commands itself.
    pub(super) fn go_on_elsewhere(self: &Arc<Self>) {
        self.held.store(false, Ordering::SeqCst);
        self.complete();
        self.leave(&mut VecDeque::new());
    }

    /// Gives the rest of the commands to the executor.
    fn leave(self: &Arc<Self>, batch: &mut VecDeque<Command>) {
        let mut pending = self.pending();
        put_back(batch, &mut pending.commands);
        let idle = pending.commands.is_empty();
        pending.phase = if idle { Phase::Idle } else { Phase::Ready };
        drop(pending);
        if !idle {
            executor().ready(self.clone());
        }
    }

    /// Parks the queue until `marker` is reached; false where it is reached already.
    fn park(self: &Arc<Self>, batch: &mut VecDeque<Command>, marker: Marker) -> bool {
        {
            let mut pending = self.pending();
            put_back(batch, &mut pending.commands);
            pending.phase = Phase::Parked;
            pending.blocker = Some(marker.clone());
        }
        if marker.queue.watch(marker.count, self) {
            return true;
        }
        let mut pending = self.pending();
        pending.blocker = None;
        // Another watch of an earlier park may have made it ready in the meantime.
        let parked = pending.phase == Phase::Parked;
        if parked {
            pending.phase = Phase::Running;
        }
        !parked
    }

    /// Has `queue` made ready when `count` commands are complete; false where they are.
    fn watch(&self, count: u64, queue: &Arc<Queue>) -> bool {
        let mut watchers = self.watchers();
        self.attention.fetch_min(count, Ordering::SeqCst);
        if self.completed() >= count {
            return false;
        }
        watchers.queues.push((count, queue.clone()));
        true
    }

    fn unpark(self: &Arc<Self>) {
        let mut pending = self.pending();
        if pending.phase == Phase::Parked {
            pending.phase = Phase::Ready;
            pending.blocker = None;
            drop(pending);
            executor().ready(self.clone());
        }
    }

    fn complete(&self) {
        let done = self.completed.fetch_add(1, Ordering::SeqCst) + 1;
        if done >= self.attention.load(Ordering::SeqCst) {
            self.attend(done);
        }
    }

    /// Tells everybody who waited for `done` commands.
    #[cold]
    fn attend(&self, done: u64) {
        let mut reached = Vec::new();
        {
            let mut watchers = self.watchers();
            watchers.queues.retain(|(count, queue)| {
                let waits = *count > done;
                if !waits {
                    reached.push(queue.clone());
                }
                waits
            });
            let next = watchers.queues.iter().map(|(count, _)| *count).min();
            // Sleeping threads that are not satisfied say so again.
            self.attention
                .store(next.unwrap_or(u64::MAX), Ordering::SeqCst);
            self.progress.notify_all();
        }
        for queue in reached {
            queue.unpark();
        }
    }

    fn execute(
        self: &Arc<Self>,
        work: Work,
        batch: &mut VecDeque<Command>,
        scratch: &mut Scratch,
    ) -> Step {
        let failed = self.fault() != 0;
        match work {
            Work::Host(call) => {
                self.put_back(batch);
                self.held.store(true, Ordering::SeqCst);
                host_calls::hand_over(call, self.clone());
                Step::Elsewhere
            }
            Work::Free(_) | Work::Record(_) => {
                // SAFETY: neither is a copy or a fill.
                unsafe { run_here(work) };
                Step::Complete
            }
            _ if failed => Step::Complete,
            Work::Launch(launch) if executor().is_worth_sharing(&launch) => {
                self.put_back(batch);
                let shared = SharedGrid::new(launch.grid, self.clone());
                executor().share(shared.clone());
                if shared.take_part(scratch) {
                    Step::Complete
                } else {
                    Step::Elsewhere
                }
            }
            Work::Launch(launch) => {
                faults::run(&launch.grid, scratch);
                faults::note(&launch.grid, &self.fault);
                Step::Complete
            }
            Work::Poll(mut done) => {
                if done() {
                    return Step::Complete;
                }
                self.put_back(batch);
                self.held.store(true, Ordering::SeqCst);
                polls::hand_over(done, self.clone());
                Step::Elsewhere
            }
            other if !other.memory_is_there() => {
                faults::set(&self.fault, CUDA_ERROR_ILLEGAL_ADDRESS);
                Step::Complete
            }
            // SAFETY: the API checked every range before it queued the work, and it is still there.
            other => {
                unsafe { run_here(other) };
                Step::Complete
            }
        }
    }

    /// The cell of the context's sticky error.
    pub(super) fn fault_cell(&self) -> &AtomicU32 {
        &self.fault
    }

    fn put_back(&self, batch: &mut VecDeque<Command>) {
        put_back(batch, &mut self.pending().commands);
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts commands that were taken out in front of those that came since.
fn put_back(batch: &mut VecDeque<Command>, commands: &mut VecDeque<Command>) {
    if commands.is_empty() {
        core::mem::swap(batch, commands);
    } else {
        while let Some(command) = batch.pop_back() {
            commands.push_front(command);
        }
    }
}
