//! The sending half: calls are appended to a queue and leave in batches.
//!
//! A batch leaves when it is full, when a thread wants to wait, or when the flusher comes by: at
//! most [`FLUSH_INTERVAL`] after the first call in it. A call leaves at once where nothing has left
//! for a while. Whoever holds `sender` empties the queue before letting go, so a thread that finds it
//! taken may leave its calls behind.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::Thread;
use std::time::{Duration, Instant};

use harp_driver_front::threads::Uncancelled;
use harp_transport::{Loan, Sender};
use harp_wire::calls::encode_harp_set_current;
use harp_wire::{CallId, Encoder};

use super::thread;
use crate::clock::Moment;
use crate::recording::recorder;

/// A batch of this many bytes leaves at once.
const BATCH_BYTES: usize = 16 << 10;
/// A queue of this many bytes makes the appending thread wait for the network.
const QUEUE_BYTES: usize = 1 << 20;
/// A payload from this size on is sent straight from where it lies.
const DIRECT_BYTES: usize = 16 << 10;
/// The longest that an appended call stays here: it is to be at the server within 50 us.
const FLUSH_INTERVAL: Duration = Duration::from_micros(40);
/// So much later than it is told to the kernel may wake the flusher; 50 us unless it is asked.
const TIMER_SLACK: Duration = Duration::from_micros(1);
/// The flusher sleeps until it is woken after this many visits to an empty queue: each costs those
/// who work some microseconds of a core.
const IDLE_VISITS: u32 = 3;
/// While the flusher sleeps, a call leaves by itself where none has done so for so long.
const SILENCE: Duration = Duration::from_micros(100);

pub struct Outgoing {
    /// The number of the session.
    session: usize,
    queue: Mutex<Queue>,
    sender: Mutex<Lane>,
    /// True while the flusher comes by on its own.
    flusher_awake: AtomicBool,
    flusher: Mutex<Option<Thread>>,
    /// The process has no thread for a flusher: every call leaves at once.
    no_flusher: AtomicBool,
    begun: Instant,
    /// When a call has last left by itself while the flusher slept, in nanoseconds since `begun`.
    left_alone: AtomicU64,
    /// Bytes that have left, for who must not wait for `sender`.
    sent: AtomicU64,
}

/// What has been appended and has not left.
struct Queue {
    records: Encoder,
    /// Calls that have been appended since the session began: where in their order the next one stands.
    appended: u64,
}

/// The wire, and the buffer that the queue is swapped with.
struct Lane {
    sender: Sender,
    batch: Encoder,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl Outgoing {
    /// The sending half of the session with that number.
    pub fn new(sender: Sender, session: usize) -> Outgoing {
        Outgoing {
            session,
            queue: Mutex::new(Queue {
                records: Encoder::new(),
                appended: 0,
            }),
            sender: Mutex::new(Lane {
                sender,
                batch: Encoder::new(),
            }),
            flusher_awake: AtomicBool::new(false),
            flusher: Mutex::new(None),
            no_flusher: AtomicBool::new(false),
            begun: Instant::now(),
            left_alone: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Adds a call; it leaves soon. `ticket` asks for a reply. Where there was no room before the network had
    /// taken what was there, it says since when it waited.
    pub fn append(
        &self,
        call: CallId,
        ticket: Option<u32>,
        encode: impl FnOnce(&mut Encoder),
    ) -> io::Result<Option<Moment>> {
        self.append_with(call, ticket, encode, None)
    }

    #[inline]
    fn append_with(
        &self,
        call: CallId,
        ticket: Option<u32>,
        encode: impl FnOnce(&mut Encoder),
        payload: Option<&[u8]>,
    ) -> io::Result<Option<Moment>> {
        let waiting = self.queue(call, ticket, encode, payload);
        if ticket.is_some() {
            return Ok(None); // the caller flushes
        }
        self.leave(waiting)
    }

    /// Adds a call whose reply nobody waits for; it leaves soon.
    pub fn append_unawaited(
        &self,
        call: CallId,
        ticket: u32,
        encode: impl FnOnce(&mut Encoder),
    ) -> io::Result<Option<Moment>> {
        let waiting = self.queue(call, Some(ticket), encode, None);
        self.leave(waiting)
    }

    /// Adds a record, whose last argument is `payload` where there is one, and returns how many bytes
    /// wait.
    #[inline]
    fn queue(
        &self,
        call: CallId,
        ticket: Option<u32>,
        encode: impl FnOnce(&mut Encoder),
        payload: Option<&[u8]>,
    ) -> usize {
        let mut queue = lock(&self.queue);
        queue.appended += 1;
        let queue = &mut queue.records;
        let start = self.begin_record(queue, call, ticket);
        encode(queue);
        if let Some(payload) = payload {
            queue.bytes(payload);
        }
        queue.end_record(start);
        if let Some(recorder) = recorder() {
            recorder.call(
                self.session,
                &queue.as_slice()[start..],
                payload.map_or(0, <[u8]>::len),
            );
        }
        queue.len()
    }

    /// Sees that `waiting` bytes leave: at once where they are many, else by the flusher.
    fn leave(&self, waiting: usize) -> io::Result<Option<Moment>> {
        if waiting >= QUEUE_BYTES {
            let since = Moment::now();
            return self.flush().map(|()| Some(since));
        }
        if waiting >= BATCH_BYTES {
            let _uncancelled = Uncancelled::new();
            if let Ok(lane) = self.sender.try_lock() {
                return self.drain(lane).map(|()| None);
            }
        }
        if self.no_flusher.load(Ordering::Relaxed) {
            return self.flush().map(|()| None);
        }
        if self.flusher_awake.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if self.breaks_silence() {
            // Waking the flusher would take this thread as long, and the call longer.
            let _uncancelled = Uncancelled::new();
            if let Ok(lane) = self.sender.try_lock() {
                self.drain(lane)?;
                self.left_alone.store(self.now(), Ordering::Relaxed);
                return Ok(None);
            }
        }
        self.wake_flusher();
        Ok(None)
    }

    /// Whether no call has left by itself lately.
    fn breaks_silence(&self) -> bool {
        let last = self.left_alone.load(Ordering::Relaxed);
        self.now().saturating_sub(last) >= SILENCE.as_nanos() as u64
    }

    /// Nanoseconds since this was made.
    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// There is no flusher: from now on every call is sent when it is made.
    pub fn go_without_flusher(&self) {
        self.no_flusher.store(true, Ordering::Relaxed);
    }

    /// Adds a call whose last argument is `payload`; it has left when this returns, unless it is small.
    ///
    /// # Safety
    /// With a loan the payload stays as it is until that has been dropped.
    pub unsafe fn append_bytes(
        &self,
        call: CallId,
        ticket: Option<u32>,
        encode: impl FnOnce(&mut Encoder),
        payload: &[u8],
        loan: Option<&Loan>,
    ) -> io::Result<Option<Moment>> {
        if payload.len() < DIRECT_BYTES {
            return self.append_with(call, ticket, encode, Some(payload));
        }
        let _uncancelled = Uncancelled::new();
        let mut lane = lock(&self.sender);
        let Lane { sender, batch } = &mut *lane;
        batch.clear();
        let mut queue = lock(&self.queue);
        queue.appended += 1;
        std::mem::swap(&mut queue.records, batch);
        // What others append meanwhile comes behind this, in a trace too.
        let queue = recorder().is_some().then_some(queue);
        let start = self.begin_record(batch, call, ticket);
        encode(batch);
        batch.u64(payload.len() as u64);
        batch.end_record_with(start, payload.len());
        if let Some(recorder) = recorder() {
            recorder.call_with(self.session, &batch.as_slice()[start..], payload);
        }
        drop(queue);
        let parts = [batch.as_slice(), payload];
        match loan {
            None => sender.send(&parts)?,
            // SAFETY: the caller's promise; a batch is too short to be lent.
            Some(loan) => unsafe { sender.send_lent(&parts, loan)? },
        }
        self.sent.store(sender.bytes_sent(), Ordering::Relaxed);
        Ok(None)
    }

    /// Sends everything that was appended before this call.
    pub fn flush(&self) -> io::Result<()> {
        let _uncancelled = Uncancelled::new();
        self.drain(lock(&self.sender))
    }

    fn drain(&self, mut lane: MutexGuard<'_, Lane>) -> io::Result<()> {
        let Lane { sender, batch } = &mut *lane;
        loop {
            batch.clear();
            std::mem::swap(&mut lock(&self.queue).records, batch);
            if batch.is_empty() {
                return Ok(());
            }
            sender.send(&[batch.as_slice()])?;
            self.sent.store(sender.bytes_sent(), Ordering::Relaxed);
        }
    }

    /// The calls that have been appended until now.
    pub fn appended(&self) -> u64 {
        lock(&self.queue).appended
    }

    /// The bytes that have left.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Says goodbye, without waiting longer than `bound` for the socket.
    pub fn end(&self, bound: Duration) {
        let Ok(mut lane) = self.sender.try_lock() else {
            return;
        };
        let Lane { sender, batch } = &mut *lane;
        sender.set_send_timeout(bound);
        batch.clear();
        if let Ok(mut queue) = self.queue.try_lock() {
            std::mem::swap(&mut queue.records, batch);
        }
        if batch.is_empty() || sender.send(&[batch.as_slice()]).is_ok() {
            let _ = sender.bye();
        }
        self.sent.store(sender.bytes_sent(), Ordering::Relaxed);
    }

    fn wake_flusher(&self) {
        if !self.flusher_awake.swap(true, Ordering::AcqRel) {
            if let Some(thread) = &*lock(&self.flusher) {
                thread.unpark();
            }
        }
    }

    /// The flusher's life: sends what others appended and left behind. `fail` hears of an error;
    /// `over` ends it. While there is nothing to send, it does something else now and then.
    pub fn run_flusher(
        &self,
        fail: impl Fn(&io::Error),
        over: impl Fn() -> bool,
        (interval, meanwhile): (Duration, impl Fn()),
    ) {
        *lock(&self.flusher) = Some(std::thread::current());
        // SAFETY: sets how exact this thread's timers are.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK.as_nanos() as u64) };
        while !over() {
            while !self.flusher_awake.load(Ordering::Acquire) {
                std::thread::park_timeout(interval);
                if over() {
                    return;
                }
                meanwhile();
            }
            if let Err(error) = self.come_by() {
                fail(&error);
                return;
            }
            self.flusher_awake.store(false, Ordering::Release);
            // What was appended between the last visit and the store rang nobody.
            if !lock(&self.queue).records.is_empty() {
                self.flusher_awake.store(true, Ordering::Release);
            }
        }
    }

    /// Sends what there is again and again, until there is none for a while.
    fn come_by(&self) -> io::Result<()> {
        let mut idle = 0;
        while idle < IDLE_VISITS {
            if lock(&self.queue).records.is_empty() {
                idle += 1;
            } else {
                idle = 0;
                self.flush()?;
            }
            std::thread::sleep(FLUSH_INTERVAL);
        }
        Ok(())
    }

    /// Begins a record, and before it tells the server of this thread's current context when it has
    /// last heard of another.
    fn begin_record(&self, queue: &mut Encoder, call: CallId, ticket: Option<u32>) -> usize {
        let thread = thread::id();
        if let Some(context) = thread::unsent_context(self.session) {
            let start = queue.begin_record(CallId::harp_set_current, None, thread);
            encode_harp_set_current(queue, context);
            queue.end_record(start);
            if let Some(recorder) = recorder() {
                recorder.call(self.session, &queue.as_slice()[start..], 0);
            }
        }
        queue.begin_record(call, ticket, thread)
    }
}
