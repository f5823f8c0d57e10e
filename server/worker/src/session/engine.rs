//! The loop that executes a session's calls in order.

use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use harp_transport::{Keeper, LinkError, Loan};
use harp_wire::record::{records, RecordHead, RECORD_HEAD_BYTES};
use harp_wire::{CallId, Decoder, Encoder};

use super::device_times::{stream_of, Begun};
use super::downloads::Downloads;
use super::intake::{Intake, Stopped};
use super::reached::Reached;
use super::recording::{recorder, Recorder};
use super::relay::Relay;
use super::replies::Replies;
use super::waits::{Outcome, Wait};
use super::{Ending, Session};
use crate::calls;
use crate::control::Event;
use crate::generated::dispatch;
use crate::generated::driver::Driver;

/// Replies are sent when no more input is at hand, or when so many bytes have gathered.
const GATHERED: usize = 64 << 10;

/// A payload of at least this many bytes goes out from where it lies rather than through the gathering buffer.
const OWN_FRAME: usize = 16 << 10;

/// So many calls in a row may be made before the device begins with the first: it is woken once for all of them, or not
/// at all where one of them waits.
const CALLS_AT_A_TIME: u32 = 32;

/// So many launches are read before the first of them is made.
const READ_AHEAD: usize = 16;

/// The status of a call whose time on the device is not known.
const UNTIMED: u32 = u32::MAX;

/// What the threads of a session share.
pub struct Shared {
    pub driver: &'static Driver,
    pub replies: Arc<Replies>,
    pub relay: Relay,
    pub ending: Arc<Ending>,
    /// Looks after the connection.
    pub keeper: Keeper,
}

/// The session and its place in the call stream. One thread has it at a time.
pub struct Engine {
    shared: Arc<Shared>,
    session: Session,
    intake: Intake,
    out: Encoder,
    downloads: Downloads,
    runs_on: ThreadId,
    calls: u64,
    waits: u64,
    /// For the memory of copies that have been answered from where it lies, until something else is asked for.
    lent: Option<Loan>,
    /// The client wants to know how long calls take on the device.
    is_timed: bool,
    /// The call that is being made, if it is timed.
    begun: Option<Begun>,
    /// Calls since the device was last told that more follow.
    gathered: u32,
}

/// A call that waits for the device, and the ticket that its reply names.
struct Pending {
    ticket: Option<u32>,
    wait: Wait,
}

/// Runs the session until it ends, or until another thread has taken it over while this one was in a wait; then waits
/// for its turn to take over, and so on.
pub fn lead(mut engine: Box<Engine>) -> ! {
    let shared = engine.shared.clone();
    loop {
        match engine.run() {
            Err(stopped) => end(&shared, &mut engine, stopped),
            Ok(pending) => {
                engine = match wait(&shared, engine, pending) {
                    Some(engine) => engine,
                    None => shared.relay.take_over(),
                }
            }
        }
    }
}

/// Performs a wait with the session laid down for others to take. `None` when another thread leads by now.
fn wait(shared: &Arc<Shared>, mut engine: Box<Engine>, pending: Pending) -> Option<Box<Engine>> {
    let Pending { ticket, wait } = pending;
    // Earlier replies are not to wait for this one.
    if let Err(error) = engine.flush() {
        end(shared, &mut engine, error.into());
    }
    // A program with one thread sends nothing while it waits; nobody needs to be woken for it. What is not at hand
    // the watchdog finds.
    let others_wait = engine.session.has_others() || engine.intake.has_input_at_hand();
    let staging = engine.session.staging.clone();
    // The device has this thread's help in the wait, which ends the gathering for whatever else there is.
    engine.gathered = 0;
    shared.relay.lay_down(engine, others_wait);
    if others_wait {
        Relay::call_follower(shared);
    }
    let outcome = wait.perform(shared.driver, &staging);
    shared.driver.gather(false);
    if let Some(mut engine) = shared.relay.pick_up() {
        if let Err(error) = engine.answer(ticket, outcome) {
            end(shared, &mut engine, error.into());
        }
        return Some(engine);
    }
    if let Some(ticket) = ticket {
        if let Err(error) = shared.replies.conclude(ticket, outcome) {
            shared.ending.end(&error.to_string());
        }
    }
    // Sending may have drained input into memory, where nobody else would notice it.
    shared.relay.offer_if_input(shared);
    None
}

fn end(shared: &Shared, engine: &mut Engine, stopped: Stopped) -> ! {
    // What can still be delivered is.
    let _ = engine.flush();
    engine.publish();
    match stopped {
        Stopped::Bye => shared.ending.end("the client has finished"),
        Stopped::Lost(error) => shared.ending.end(&error.to_string()),
        Stopped::Violation(violation) => {
            let cause = format!("violation: {violation}");
            shared.ending.is_near(&cause);
            shared.replies.say_goodbye(&cause);
            shared.ending.end(&cause)
        }
    }
}

impl Engine {
    pub fn new(shared: Arc<Shared>, session: Session, intake: Intake) -> Self {
        let downloads =
            Downloads::new(shared.driver, shared.replies.clone(), shared.ending.clone());
        let is_timed = shared.replies.device_times().is_some();
        Self {
            shared,
            session,
            intake,
            out: Encoder::with_capacity(2 * GATHERED),
            downloads,
            runs_on: thread::current().id(),
            calls: 0,
            waits: 0,
            lent: None,
            is_timed,
            begun: None,
            gathered: 0,
        }
    }

    /// This thread runs the session from now on. What the driver keeps per thread is another thread's if that ran it
    /// before.
    pub fn taken(&mut self) {
        let this = thread::current().id();
        if self.runs_on != this {
            self.runs_on = this;
            self.session.threads.forget_applied();
        }
    }

    /// Whether there is something to do without waiting for the client.
    pub fn has_input(&mut self) -> bool {
        self.intake.has_input()
    }

    /// Whether more has come with what was last read. The socket is asked only where something is in memory, which may
    /// be no frame of calls.
    fn has_more(&mut self) -> bool {
        self.intake.has_input_at_hand() && self.intake.has_input()
    }

    /// Executes calls until one has to wait for the device.
    fn run(&mut self) -> Result<Pending, Stopped> {
        loop {
            while self.intake.in_frame() {
                if self.execute_launches()? {
                    continue;
                }
                if let Some(pending) = self.execute_record()? {
                    self.publish();
                    return Ok(pending);
                }
            }
            self.let_device_begin();
            self.publish();
            if !self.out.is_empty() && (self.out.len() >= GATHERED || !self.has_more()) {
                self.flush()?;
            }
            self.intake.next_frame()?;
        }
    }

    /// Executes the launches that come next, as far as they are at hand and there is nothing else to be done for them;
    /// whether there were any.
    #[inline]
    fn execute_launches(&mut self) -> Result<bool, Stopped> {
        if self.is_timed || recorder().is_some() {
            return Ok(false);
        }
        let (mut count, mut bytes, mut thread) = (0, 0, None);
        let at_hand = records(self.intake.bytes_at_hand()).map_while(Result::ok);
        for record in at_hand.take(READ_AHEAD) {
            if record.call != CallId::cuLaunchKernel || record.ticket.is_some() {
                break;
            }
            if *thread.get_or_insert(record.thread) != record.thread {
                break;
            }
            if count == 0 {
                self.session.enter(record.thread)?;
            }
            let Session {
                launches, handles, ..
            } = &mut self.session;
            if launches.read(handles, record.arguments).is_none() {
                break;
            }
            count += 1;
            bytes += RECORD_HEAD_BYTES + record.arguments.len();
        }
        if count == 0 {
            return Ok(false);
        }
        self.lent = None;
        self.gather(count);
        self.calls += u64::from(count);
        // SAFETY: what was read is at hand until it is skipped.
        let status = unsafe { self.session.launches.make(self.shared.driver) };
        self.intake.skip(bytes);
        if status != 0 {
            self.defer(CallId::cuLaunchKernel, status);
        }
        Ok(true)
    }

    /// Executes the next record of the frame.
    #[inline]
    fn execute_record(&mut self) -> Result<Option<Pending>, Stopped> {
        if self.intake.at_hand() < RECORD_HEAD_BYTES {
            self.let_device_begin();
        }
        let head = self.intake.record_head()?;
        if self.intake.at_hand() < RECORD_HEAD_BYTES + head.argument_bytes {
            self.let_device_begin();
        } else {
            self.gather(1);
        }
        self.calls += 1;
        if self.lent.is_some() && head.call != CallId::cuMemcpyDtoH_v2 {
            self.lent = None;
        }
        self.session.enter(head.thread)?;
        let recorder = recorder();
        if self.intake.is_large(head.argument_bytes)
            && head.call == CallId::cuMemcpyHtoD_v2
            && !recorder.is_some_and(Recorder::wants_uploads)
        {
            if let Some(recorder) = recorder {
                let front = RECORD_HEAD_BYTES + calls::UPLOAD_HEAD_BYTES;
                let bytes = head.argument_bytes - calls::UPLOAD_HEAD_BYTES;
                recorder.upload_without_bytes(self.intake.peek(front)?, bytes);
            }
            self.intake.skip(RECORD_HEAD_BYTES);
            if self.is_timed {
                let front = self.intake.peek(calls::UPLOAD_HEAD_BYTES)?;
                self.begun = begin_timed(&self.shared, &mut self.session, head.call, front);
            }
            let status =
                calls::upload_in_pieces(&mut self.session, &mut self.intake, head.argument_bytes)?;
            if self.is_timed {
                self.end_timed(status);
            }
            self.conclude(head, self.out.len(), status)?;
            return Ok(None);
        }
        if head.call == CallId::cuLaunchHostFunc {
            // What is told when the stream gets there must not overtake what was copied before.
            self.flush()?;
        }
        let ends_context = ends_context(head.call);
        if ends_context {
            // What was gathered is waited for before.
            self.let_device_begin();
        }
        let record = self.intake.peek(RECORD_HEAD_BYTES + head.argument_bytes)?;
        if let Some(recorder) = recorder {
            recorder.call(&head, record);
        }
        let mut arguments = Decoder::new(&record[RECORD_HEAD_BYTES..]);
        if ends_context {
            // What belongs to a context is used as long as there is one.
            if self.session.staging.is_in_use() {
                // SAFETY: no arguments. What fails there is told by the call itself.
                unsafe { (self.shared.driver.cuCtxSynchronize)() };
            }
            self.downloads.drain();
            self.shared.replies.drain_landings();
            if let Some(mut times) = self.shared.replies.device_times() {
                times.forget_contexts();
            }
            self.shared.replies.watches.may_end();
            self.session.uploads.drain(self.shared.driver);
        }
        if self.is_timed {
            let arguments = &record[RECORD_HEAD_BYTES..];
            self.begun = begin_timed(&self.shared, &mut self.session, head.call, arguments);
        }
        let start = self.out.begin_reply();
        let executed = dispatch::execute(
            head.call.0,
            &mut arguments,
            &mut self.session,
            &mut self.out,
        );
        let status = match executed {
            Ok(status) => status,
            Err(violation) => {
                self.out.truncate(start);
                return Err(violation.into());
            }
        };
        self.intake.skip(RECORD_HEAD_BYTES + head.argument_bytes);
        if changes_current_context(head.call) {
            self.session.threads.forget_applied();
        }
        if ends_context {
            self.session.staging.context_ended();
        }
        if let Some(wait) = self.session.wait.take() {
            self.out.truncate(start);
            if head.ticket.is_some() {
                self.count_wait(head.call);
            }
            let is_queued = self.begin_landing(head, &wait)? || self.begin_download(head, &wait)?;
            if self.is_timed {
                self.end_timed(if is_queued { 0 } else { UNTIMED });
            }
            if is_queued {
                return Ok(None);
            }
            if let (Wait::Free(_), None) = (&wait, head.ticket) {
                // Of a device that has nothing left to do: the next call finds the memory free.
                let outcome = wait.perform(self.shared.driver, &self.session.staging);
                self.conclude(head, start, outcome.status)?;
                return Ok(None);
            }
            return Ok(Some(Pending {
                ticket: head.ticket,
                wait,
            }));
        }
        if self.is_timed {
            self.end_timed(status);
        }
        self.conclude(head, start, status)?;
        Ok(None)
    }

    /// So many calls are about to be made that are at hand. The device may wait for them if nothing else does.
    #[inline]
    fn gather(&mut self, calls: u32) {
        if self.gathered + calls > CALLS_AT_A_TIME {
            self.let_device_begin();
        }
        if self.gathered == 0 {
            self.shared.driver.gather(true);
        }
        self.gathered += calls;
    }

    /// Nothing follows at once.
    #[inline]
    fn let_device_begin(&mut self) {
        if self.gathered > 0 {
            self.gathered = 0;
            self.shared.driver.gather(false);
        }
    }

    /// The call that was begun has been queued, unless its status says otherwise.
    #[cold]
    fn end_timed(&mut self, status: u32) {
        let Some(begun) = self.begun.take() else {
            return;
        };
        let Some(mut times) = self.shared.replies.device_times() else {
            return;
        };
        match status {
            0 => times.after(begun, self.calls - 1),
            _ => times.leave_out(begun),
        }
        if times.is_much() {
            drop(times);
            self.shared.replies.send_completed();
        }
    }

    /// Has a copy that nobody waits for answered when its stream has got there. Where that cannot be, nothing else may
    /// overtake the copy.
    fn begin_landing(&mut self, head: RecordHead, wait: &Wait) -> Result<bool, Stopped> {
        let (
            &Wait::Landing {
                source,
                bytes,
                stream,
            },
            Some(ticket),
        ) = (wait, head.ticket)
        else {
            return Ok(false);
        };
        let Shared {
            driver, replies, ..
        } = &*self.shared;
        let staging = &self.session.staging;
        let buffer = if self.session.callbacks.any() {
            staging.take_behind(driver, bytes)
        } else {
            staging.take(driver, bytes)
        };
        let place = (self.session.threads.context(), stream);
        let begun =
            buffer.and_then(|buffer| replies.begin_landing(ticket, (source, buffer), place));
        let outcome = match begun {
            Some(Ok(())) => return Ok(true),
            Some(Err(code)) => Outcome::without_bytes(code),
            None => wait.perform(driver, staging),
        };
        self.answer(head.ticket, outcome)?;
        // Nor what another thread tells of its stream.
        self.flush()?;
        Ok(true)
    }

    /// Has a copy to the client answered from beside this loop, if it is one that can.
    fn begin_download(&mut self, head: RecordHead, wait: &Wait) -> Result<bool, Stopped> {
        let (
            &Wait::Copy {
                source,
                bytes,
                stream,
            },
            Some(ticket),
        ) = (wait, head.ticket)
        else {
            return Ok(false);
        };
        let stream = stream.unwrap_or(ptr::null_mut());
        if bytes >= OWN_FRAME && !self.is_timed {
            if let Some(there) = Reached::of(self.shared.driver, source, bytes, stream) {
                self.flush()?;
                let replies = &self.shared.replies;
                let loan = self.lent.get_or_insert_with(|| replies.loan());
                // SAFETY: no call but such a copy is made before the loan ends.
                unsafe { replies.lend(ticket, there.bytes(), loan) }?;
                return Ok(true);
            }
        }
        let place = (self.session.threads.context(), stream);
        let staging = &self.session.staging;
        let Some(status) = self
            .downloads
            .begin(staging, ticket, (source, bytes), place)
        else {
            return Ok(false);
        };
        if status == 0 {
            // Earlier replies are not to wait for this one.
            self.flush()?;
        } else {
            self.answer(head.ticket, Outcome::without_bytes(status))?;
        }
        Ok(true)
    }

    /// Finishes the reply that begins at `start` of the gathering buffer, or drops it if nobody waits for it.
    #[inline]
    fn conclude(&mut self, head: RecordHead, start: usize, status: u32) -> Result<(), Stopped> {
        match head.ticket {
            None => {
                self.out.truncate(start);
                if status != 0 {
                    self.defer(head.call, status);
                }
            }
            Some(ticket) => {
                self.count_wait(head.call);
                if self.out.len() == start {
                    self.out.begin_reply();
                }
                let deferred = self.shared.replies.take_deferred();
                self.out.end_reply(start, ticket, status, deferred);
                if self.out.len() >= GATHERED {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn count_wait(&mut self, call: CallId) {
        self.waits += 1;
        self.shared.ending.statistics.count_wait(call);
    }

    #[cold]
    fn defer(&self, call: CallId, code: u32) {
        if self.shared.replies.defer(code) {
            let name = harp_cuda_abi::errors::error_name(code).and_then(|n| n.to_str().ok());
            self.shared.ending.control().report(&Event::DeferredError {
                call: call.name().unwrap_or("?"),
                code,
                name: name.unwrap_or("?"),
            });
        }
    }

    /// Answers a call that has waited.
    fn answer(&mut self, ticket: Option<u32>, outcome: Outcome) -> Result<(), LinkError> {
        let Some(ticket) = ticket else { return Ok(()) };
        let bytes = outcome.bytes();
        if bytes.is_some_and(|bytes| bytes.len() >= OWN_FRAME) {
            self.flush()?;
            return self.shared.replies.conclude(ticket, outcome);
        }
        let deferred = self.shared.replies.take_deferred();
        let start = self.out.begin_reply();
        if let Some(bytes) = bytes {
            self.out.bytes(bytes);
        }
        self.out.end_reply(start, ticket, outcome.status, deferred);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if !self.out.is_empty() {
            // The client may be in no hurry to take them.
            self.let_device_begin();
            self.shared.replies.send(self.out.as_slice())?;
            self.out.clear();
        }
        Ok(())
    }

    /// Makes the counters visible to whoever ends the session.
    fn publish(&self) {
        let statistics = &self.shared.ending.statistics;
        statistics.calls.store(self.calls, Ordering::Relaxed);
        statistics.waits.store(self.waits, Ordering::Relaxed);
        statistics
            .bytes_in
            .store(self.intake.bytes_received(), Ordering::Relaxed);
        statistics
            .bytes_out
            .store(self.shared.replies.bytes_sent(), Ordering::Relaxed);
        statistics
            .bytes_cached
            .store(self.session.cache.spared, Ordering::Relaxed);
    }
}

/// A call of the session's is about to be queued.
#[cold]
fn begin_timed(
    shared: &Shared,
    session: &mut Session,
    call: CallId,
    arguments: &[u8],
) -> Option<Begun> {
    let mut times = shared.replies.device_times()?;
    let stream = stream_of(call, arguments, &mut session.handles)?;
    times.before(session.threads.context(), stream)
}

/// Calls after which this thread has another current context in the driver than `ClientThreads` gave it.
#[inline]
fn changes_current_context(call: CallId) -> bool {
    call == CallId::cuCtxCreate_v2 || ends_context(call)
}

/// Calls that may end a context.
#[inline]
fn ends_context(call: CallId) -> bool {
    matches!(
        call,
        CallId::cuCtxDestroy_v2
            | CallId::cuDevicePrimaryCtxRelease_v2
            | CallId::cuDevicePrimaryCtxReset_v2
    )
}
