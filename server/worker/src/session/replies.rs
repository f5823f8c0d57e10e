//! The way back to the client, shared by the thread that runs the loop and by those that sit in waits; and errors of
//! calls that nobody waits for, until a reply can carry them. What the device has printed goes ahead of every reply, and
//! so does what is to be told of events.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use harp_cuda_abi::types::{CUcontext, CUdeviceptr, CUevent, CUresult, CUstream};
use harp_transport::{Buffer, LinkError, Loan, Sender};
use harp_wire::push::encode_output;
use harp_wire::reply::PUSH;
use harp_wire::Encoder;

use super::device_times::DeviceTimes;
use super::landings::Landings;
use super::recording::recorder;
use super::staging::Buffer as Staged;
use super::tending::{self, Tending};
use super::waits::{reply_head, Outcome};
use super::watches::Watches;
use super::Violation;
use crate::generated::driver::Driver;
use crate::output::{self, Output};

/// How long a client that has been told goodbye has to close.
const LINGER: Duration = Duration::from_millis(300);

/// How long telling it may take.
const GOODBYE: Duration = Duration::from_millis(500);

pub struct Replies {
    way: Mutex<Way>,
    driver: &'static Driver,
    pub watches: Watches,
    landings: Landings,
    pub(super) tending: Tending,
    /// Where the client wants to know how long calls take on the device.
    times: OnceLock<Mutex<DeviceTimes>>,
    deferred: AtomicU32,
    bytes_sent: AtomicU64,
}

/// What has to be held together to send, so that nothing overtakes text.
struct Way {
    sender: Sender,
    output: Output,
    /// How often the device had shown what it had printed when that was last looked for, if it says.
    shown: Option<u64>,
}

impl Way {
    /// Sends one frame of whole replies, and has it recorded.
    fn send(&mut self, frame: &[u8]) -> std::io::Result<()> {
        send_recorded(&mut self.sender, frame)
    }

    /// Sends one reply that ends with all of `buffer`, and has it recorded.
    fn send_buffer(&mut self, head: &[u8], buffer: Buffer) -> std::io::Result<()> {
        if let Some(recorder) = recorder() {
            recorder.reply(head, (*buffer).as_ref());
        }
        self.sender.send_buffer(&[head], buffer)
    }

    /// Sends what the device has printed, unless it says that there is nothing new; the bytes of it.
    fn send_new_output(&mut self, driver: &Driver) -> usize {
        let shown = driver.shown();
        if shown.is_some() && shown == self.shown {
            return 0;
        }
        self.shown = shown;
        self.send_output()
    }

    /// Sends what the device has printed; the bytes of it.
    fn send_output(&mut self) -> usize {
        let Self { sender, output, .. } = self;
        let mut bytes = 0;
        output.drain(&mut |stream, text| {
            let mut e = Encoder::with_capacity(text.len() + 64);
            let start = e.begin_reply();
            encode_output(&mut e, stream, text);
            e.end_reply(start, PUSH, 0, 0);
            // If the client is gone, whoever reads from it ends the session.
            let _ = send_recorded(sender, e.as_slice());
            bytes += e.len();
        });
        bytes
    }
}

fn send_recorded(sender: &mut Sender, frame: &[u8]) -> std::io::Result<()> {
    if let Some(recorder) = recorder() {
        recorder.frame(frame);
    }
    sender.send(&[frame])
}

impl Replies {
    pub fn new(sender: Sender, mut output: Output, driver: &'static Driver) -> Self {
        output.begin();
        Self {
            way: Mutex::new(Way {
                sender,
                output,
                shown: None,
            }),
            driver,
            watches: Watches::default(),
            landings: Landings::default(),
            tending: Tending::default(),
            times: OnceLock::new(),
            deferred: AtomicU32::new(0),
            bytes_sent: AtomicU64::new(0),
        }
    }

    /// Starts to pass on what the device prints while nothing else is sent.
    pub fn watch_output(self: Arc<Self>) -> std::io::Result<()> {
        let descriptors = self.lock().output.descriptors();
        let thread = thread::Builder::new().name("output".to_owned());
        thread
            .spawn(move || loop {
                output::wait_for_text(descriptors);
                let bytes = self.lock().send_output();
                self.count(bytes);
            })
            .map(drop)
    }

    /// Bytes of reply frames sent so far.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The client is told how long calls take on the device, in times from `started`.
    pub fn tell_device_times(&self, started: Instant) {
        let times = DeviceTimes::new(self.driver, started);
        let _ = self.times.set(Mutex::new(times));
    }

    /// The times of calls on the device, where they are wanted.
    #[inline]
    pub fn device_times(&self) -> Option<MutexGuard<'_, DeviceTimes>> {
        let times = self.times.get()?;
        Some(times.lock().unwrap_or_else(|poison| poison.into_inner()))
    }

    /// Tells the client when the event of the current `context` has completed, as [`Watches::watch`] does.
    pub fn watch(
        self: &Arc<Self>,
        context: CUcontext,
        event: CUevent,
        number: u64,
    ) -> Result<(), Violation> {
        self.watches.watch(event, number)?;
        // Without the thread the client hears of it with its next reply.
        self.tending.start(self.driver, self, context);
        self.tending.look();
        Ok(())
    }

    /// Answers `ticket` when a copy has landed, as [`Landings::begin`] does, and says what became of queueing it. `None`
    /// where nobody would send it.
    pub fn begin_landing(
        self: &Arc<Self>,
        ticket: u32,
        to: (CUdeviceptr, Staged),
        (context, stream): (CUcontext, CUstream),
    ) -> Option<Result<(), CUresult>> {
        if !self.tending.start(self.driver, self, context) {
            return None;
        }
        let begun = self.landings.begin(self.driver, ticket, to, stream);
        self.tending.look();
        Some(begun)
    }

    /// How much there will be to tell that nobody waits for.
    pub fn open(&self) -> usize {
        self.watches.open() + self.landings.open()
    }

    /// Sends what there is to tell of events that have completed and of copies that have landed, if there is anything.
    pub fn send_completed(&self) {
        let mut way = self.lock();
        let bytes = self.send_events(&mut way, Some(self.driver));
        drop(way);
        self.count(bytes);
    }

    fn send_events(&self, way: &mut Way, driver: Option<&Driver>) -> usize {
        let times = driver.and_then(|_| self.device_times()?.told());
        let completed = self.watches.completed(driver);
        // Asked for behind the events: what comes before one of those in its stream has landed.
        let landed = driver.map_or_else(Vec::new, |driver| self.landings.landed(driver));
        let mut bytes = self.send_landed(way, landed);
        for told in completed.into_iter().chain(times) {
            // If the client is gone, whoever reads from it ends the session.
            let _ = way.send(told.as_slice());
            bytes += told.len();
        }
        bytes
    }

    /// Answers copies that nobody waits for.
    fn send_landed(&self, way: &mut Way, landed: Vec<(u32, Outcome)>) -> usize {
        if landed.is_empty() {
            return 0;
        }
        let (copies, mut bytes) = (landed.len(), 0);
        for (ticket, outcome) in landed {
            let head = outcome.reply_head(ticket, 0);
            bytes += head.len() + outcome.bytes().map_or(0, <[u8]>::len);
            // If the client is gone, whoever reads from it ends the session.
            let _ = match outcome.payload {
                Some(payload) => way.send_buffer(&head, payload),
                None => way.send(&head),
            };
        }
        self.landings.sent(copies);
        bytes
    }

    /// Waits for copies that nobody waits for: before their context may end. Meanwhile they stay where others find them, who
    /// have something to tell of their streams.
    pub fn drain_landings(&self) {
        while self.landings.open() > 0 {
            self.send_completed();
            if self.landings.open() > 0 {
                thread::sleep(tending::PAUSE);
            }
        }
    }

    /// Sends one frame of whole replies, after all that the device has printed until now, and after what events have
    /// completed.
    pub fn send(&self, frame: &[u8]) -> Result<(), LinkError> {
        self.send_by(frame.len(), Some(self.driver), |way| way.send(frame))
    }

    /// As [`send`](Self::send), from within the driver, which may not be called there.
    pub fn send_from_driver(&self, frame: &[u8]) -> Result<(), LinkError> {
        if self.landings.open() > 0 {
            // Nobody here may ask what of them has landed.
            self.tending.hand_over(frame);
            return Ok(());
        }
        self.send_by(frame.len(), None, |way| way.send(frame))
    }

    /// The same for one reply that ends with all of `buffer`.
    fn send_buffer(&self, head: &[u8], buffer: Buffer) -> Result<(), LinkError> {
        let bytes = head.len() + (*buffer).as_ref().len();
        self.send_by(bytes, Some(self.driver), |way| {
            way.send_buffer(head, buffer)
        })
    }

    /// Answers a call with bytes that stay where they are, as long as [`loan`](Self::loan) lasts.
    ///
    /// # Safety
    /// They stay as they are until the loan has been dropped, which must be.
    pub unsafe fn lend(&self, ticket: u32, bytes: &[u8], loan: &Loan) -> Result<(), LinkError> {
        let head = reply_head(ticket, 0, self.take_deferred(), Some(bytes.len()));
        self.send_by(head.len() + bytes.len(), Some(self.driver), |way| {
            if let Some(recorder) = recorder() {
                recorder.reply(&head, bytes);
            }
            // SAFETY: the caller's promise; the head is too short to be lent.
            unsafe { way.sender.send_lent(&[&head, bytes], loan) }
        })
    }

    /// What bytes may be lent for.
    pub fn loan(&self) -> Loan {
        self.lock().sender.loan()
    }

    /// Answers a call that has waited.
    pub fn conclude(&self, ticket: u32, outcome: Outcome) -> Result<(), LinkError> {
        let head = outcome.reply_head(ticket, self.take_deferred());
        match outcome.payload {
            Some(payload) => self.send_buffer(&head, payload),
            None => self.send(&head),
        }
    }

    fn send_by(
        &self,
        bytes: usize,
        driver: Option<&Driver>,
        send: impl FnOnce(&mut Way) -> std::io::Result<()>,
    ) -> Result<(), LinkError> {
        // Before the lock is taken: it may wait until the thread of `watch_output` has emptied a pipe. Where nothing was
        // printed, this and a look at the pipes cost a call that waits 0.4 us of its 10, which a device that counts saves.
        output::settle();
        let mut way = self.lock();
        let printed = way.send_new_output(self.driver) + self.send_events(&mut way, driver);
        send(&mut way).map_err(|e| e.downcast().unwrap_or(LinkError::Closed))?;
        drop(way);
        self.count(printed + bytes);
        Ok(())
    }

    /// Tells the client why the session ends; without effect if the connection is broken, or busy for long.
    pub fn say_goodbye(&self, reason: &str) {
        let deadline = Instant::now() + GOODBYE;
        // A thread that has just sent a reply may hold it a moment longer than the client waits for that.
        while Instant::now() < deadline {
            if let Ok(mut way) = self.way.try_lock() {
                way.sender.set_send_timeout(GOODBYE);
                if way.sender.bye_because(reason).is_ok() {
                    way.sender.linger(LINGER);
                }
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A call without a reply has failed with `code`. True if it is the first since the client was last told.
    #[cold]
    pub fn defer(&self, code: CUresult) -> bool {
        self.deferred
            .compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// The code that the next reply is to carry; 0 for none.
    #[inline]
    pub fn take_deferred(&self) -> CUresult {
        match self.deferred.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.deferred.swap(0, Ordering::Relaxed),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Way> {
        self.way
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
