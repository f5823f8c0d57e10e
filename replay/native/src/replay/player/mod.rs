//! One replay: the blocks of a trace in their order, each call sent once what had come before it in the
//! recording has come again.

mod checking;
mod learning;
mod memory;
mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::thread::sleep;
use std::time::{Duration, Instant};

use harp_trace::block::{Block, Message, Payload, Policy};
use harp_trace::container::Trace;
use harp_trace::event::{CallEvent, Event, Reader, ReplyEvent, Value};
use harp_trace::payloads::{sent_by, Class};
use harp_wire::push::Push;
use harp_wire::record::RECORD_HEAD_BYTES;
use harp_wire::{CallId, Decoder, SYNCHRONOUS};

use super::calls::{asks_for_progress, launches, varies, Calls};
use super::doubts::Doubts;
use super::kernels::{Kernels, Launch, Place};
use super::layouts::Layouts;
use super::options::Options;
use super::relocation::{Addresses, Relocated};
use super::report::Outcome;
use super::scout::Scout;
use super::session::{Arrived, Body, Lost, Printed, Session};
use super::survey::{ends_there, Survey};
use super::twins::{Side, Twins};
use super::{Ended, Refused};
use learning::{allocated_bytes, learn_memory, place_of};
pub use memory::PIECE;
use waiting::Behind;

/// Progress is told this often.
const TELL_INTERVAL: Duration = Duration::from_millis(250);

/// A call that has been sent and awaits its reply.
struct Sent {
    number: u64,
    call: CallId,
    name: String,
    /// Of one that allocates: what its size is made of.
    bytes: u64,
    /// The first handle that it is about.
    handle: u64,
    maker: Option<Launch>,
    /// What it brings depends on data that was lost.
    doubtful: bool,
    /// Of one that asks how far the device is, to be asked again.
    record: Vec<u8>,
}

/// A recorded session and the one that stands for it.
struct Line {
    session: Session,
    addresses: Addresses,
    sent: HashMap<u32, Sent>,
    /// Host functions of the program that are in streams.
    queued: HashSet<u64>,
    /// The contexts of devices.
    contexts: HashMap<i64, u64>,
    /// Blocks of memory that the recorded session had from the beginning and this one has not, by device.
    lacking: HashMap<i64, (u64, u64)>,
    twins: Twins,
    /// What the recording printed.
    printed: Printed,
    /// Errors of earlier calls that replies have told of, with the reply's call.
    told: [VecDeque<(u64, u32)>; 2],
}

/// A replay.
pub struct Player<'a> {
    trace: &'a Trace,
    survey: &'a Survey,
    options: &'a Options,
    reader: Reader,
    calls: Calls,
    kernels: Kernels,
    layouts: Layouts,
    doubts: Doubts,
    lines: BTreeMap<u32, Line>,
    outcome: Outcome,
    /// When the last call was sent, in the recording's time and in ours.
    last_sent: Option<(u64, Instant)>,
    /// Looks ahead, once that is needed.
    scout: Option<Scout>,
    /// Calls that have been sent ahead of their turn.
    ahead: HashSet<u64>,
    /// How many calls there are in the trace up to here.
    number: u64,
}

/// When a replay can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the call of that number is sent.
    Before(u64),
    /// When all has been sent.
    End,
}

/// Looks at a replay.
pub type Look<'l> = dyn FnMut(&mut Player, Moment) -> Result<(), Ended> + 'l;

impl<'a> Player<'a> {
    pub fn new(
        trace: &'a Trace,
        survey: &'a Survey,
        options: &'a Options,
    ) -> Result<Player<'a>, Refused> {
        Ok(Player {
            trace,
            survey,
            options,
            reader: Reader::new(),
            calls: Calls::new()?,
            kernels: Kernels::default(),
            layouts: Layouts::default(),
            doubts: Doubts::default(),
            lines: BTreeMap::new(),
            outcome: Outcome::default(),
            last_sent: None,
            scout: None,
            ahead: HashSet::new(),
            number: 0,
        })
    }

    /// Replays the trace; `tell` hears how many calls have been sent.
    ///
    /// # Errors
    /// Where it cannot be replayed, or a session is lost.
    pub fn play(self, tell: impl FnMut(u64)) -> Result<(Outcome, Relocated), Ended> {
        self.play_with(tell, &mut |_, _| Ok(()))
    }

    /// As [`play`](Player::play), with a look at what there is at each moment.
    ///
    /// # Errors
    /// As [`play`](Player::play).
    pub fn play_with(
        mut self,
        mut tell: impl FnMut(u64),
        look: &mut Look,
    ) -> Result<(Outcome, Relocated), Ended> {
        let began = Instant::now();
        let mut told = began;
        let mut blocks = self.trace.blocks().map_err(Refused::from)?;
        while let Some(located) = blocks.next().map_err(Refused::from)? {
            let block = located.decode().map_err(Refused::from)?;
            // The reader owns what it has learned; events borrow from the block alone.
            let event = self
                .reader
                .read(&block)
                .map_err(|error| Refused::from(located.damaged(&error)))?;
            if matches!(&block, Block::Loss { lost, .. } if ends_there(lost)) {
                break;
            }
            if let Event::Call(call) = &event {
                if told.elapsed() >= TELL_INTERVAL {
                    told = Instant::now();
                    tell(self.outcome.sent);
                }
                look(&mut self, Moment::Before(call.number))?;
            }
            self.take(&block, &event).map_err(|ended| match ended {
                Ended::Lost(Lost(why)) => {
                    Ended::Lost(Lost(format!("around call {}: {why}", self.number)))
                }
                refused => refused,
            })?;
        }
        look(&mut self, Moment::End)?;
        for line in self.lines.values_mut() {
            line.session.flush()?;
        }
        self.outcome.seconds = began.elapsed().as_secs_f64();
        self.compare_twins();
        self.compare_printed();
        self.compare_told();
        let mut relocated = Relocated::default();
        for (_, line) in std::mem::take(&mut self.lines) {
            relocated.add(&line.addresses.relocated);
            line.session.end();
        }
        Ok((self.outcome, relocated))
    }

    fn take(&mut self, block: &Block, event: &Event) -> Result<(), Ended> {
        match (block, event) {
            (Block::Call(message), Event::Call(call)) => {
                self.number = call.number;
                match self.is_wanted(call.number) || self.is_awaited(call) {
                    true => self.call(message, call),
                    false => Ok(()),
                }
            }
            (Block::Reply(message), Event::Reply(reply)) => self.reply(message, reply),
            (Block::Push(message), _) => self.push(message),
            (Block::Session(json), _) => self.begin(json),
            (_, Event::Free(Some(allocation))) => {
                self.kernels.freed(Place::Allocation(allocation.number));
                Ok(())
            }
            (
                Block::Snapshot {
                    session,
                    device,
                    address,
                    bytes,
                    payload,
                },
                _,
            ) => {
                let content = self.trace.blob(&payload.hash).map_err(Refused::from)?;
                if content.len() as u64 != *bytes {
                    return Err(Refused("a snapshot has another length than it says".into()).into());
                }
                self.restore(*session, *device, *address, content)
            }
            _ => Ok(()),
        }
    }

    /// Whether a stream waits to hear that a host function has returned: it goes on even after the last call.
    fn is_awaited(&self, call: &CallEvent) -> bool {
        let line = self.lines.get(&call.session);
        match call.arguments.unsigned("callback") {
            Some(callback) if &*call.arguments.name == "harp_callback_done" => {
                line.is_some_and(|line| line.queued.contains(&callback))
            }
            _ => false,
        }
    }

    fn is_wanted(&self, number: u64) -> bool {
        self.options.to.is_none_or(|to| number <= to)
    }

    fn call(&mut self, message: &Message, event: &CallEvent) -> Result<(), Ended> {
        let schema = self.reader.schema();
        let call = self.calls.today(schema, event.call).map_err(Refused)?;
        let line = line_of(&mut self.lines, event.session)?;
        let mut record = message.bytes.to_vec();
        record[4..6].copy_from_slice(&call.0.to_le_bytes());
        let known = schema.call(event.call);
        let fields = known.map_or(&[][..], |known| &known.inputs[..]);
        if line.addresses.have_moved() {
            let arguments = &mut record[RECORD_HEAD_BYTES..];
            let function = event.arguments.handles().next();
            let layout = function.and_then(|function| self.layouts.get(event.session, function));
            line.addresses.rewrite(
                fields,
                arguments,
                launches(call),
                layout.map(|layout| &layout[..]),
            );
        }
        let mut payload = content(self.trace, event.number, message.payload)?;
        // Changes of shared memory are told by the byte, and have no words.
        let has_words = sent_by(call) == Some(Class::Uploads) && call != CallId::harp_twin_write;
        if line.addresses.have_moved() && has_words {
            let data = match event.arguments.values.last() {
                Some(Value::Bytes(bytes)) => {
                    let start = record.len().saturating_sub(bytes.len());
                    &mut record[start..]
                }
                _ => &mut payload,
            };
            line.addresses.upload(data, self.options.relocate_uploads);
        }
        if self.options.as_recorded {
            keep_time(&mut self.last_sent, event.time, line)?;
        }
        if let Some(ticket) = event.ticket {
            let sent = Sent {
                number: event.number,
                call,
                name: event.arguments.name.to_string(),
                bytes: allocated_bytes(call, event),
                handle: event.arguments.handles().next().unwrap_or(0),
                maker: None,
                doubtful: false,
                record: match asks_for_progress(call) {
                    true => record.clone(),
                    false => Vec::new(),
                },
            };
            line.sent.insert(ticket, sent);
        }
        let lost = message.payload.filter(|payload| {
            sent_by(call).is_some_and(|class| self.survey.has_lost(*payload, class))
        });
        if lost.is_some() {
            let address = event.arguments.addresses().next();
            let objects = self.reader.objects();
            let place =
                address.and_then(|address| place_of(objects, &line.twins, event.session, address));
            self.doubts.begin(event.session, place);
        }
        // Changes without their bytes are none; elsewhere zeros are sent.
        let is_left_out = lost.is_some() && call == CallId::harp_twin_write;
        if !self.ahead.remove(&event.number) && !is_left_out {
            line.session.send(&record, &payload, event.ticket)?;
        }
        self.outcome.sent += 1;
        match call {
            CallId::harp_twin_write if !is_left_out => {
                let here = match event.arguments.get("lines") {
                    Some(Value::Bytes(bytes)) => &bytes[..],
                    _ => &payload,
                };
                // The server judges what is none.
                line.twins
                    .change(&[Side::Recorded, Side::Replayed], here, None);
            }
            CallId::harp_twin_destroy => {
                if let Some(base) = event.arguments.unsigned("base") {
                    self.kernels.freed(Place::Twin(event.session, base));
                    let tolerance = self.options.tolerance.as_ref();
                    if let Some(unlike) = line.twins.destroy(base, tolerance) {
                        self.twins_differ(event.session, unlike);
                    }
                }
            }
            _ => {}
        }
        self.learn_call(call, event)
    }

    fn reply(&mut self, message: &Message, event: &ReplyEvent) -> Result<(), Ended> {
        let Some(sent) = line_of(&mut self.lines, event.session)?
            .sent
            .remove(&event.ticket)
        else {
            return match self.options.to.is_some() {
                true => Ok(()),
                false => Err(Refused(format!(
                    "after call {}: a reply to a call that the trace does not have (ticket {})",
                    self.number, event.ticket
                ))
                .into()),
            };
        };
        let arrived = self.answer(&sent, event)?;
        let line = line_of(&mut self.lines, event.session)?;
        self.layouts.answered(sent.handle, event);
        if event.status == 0 && arrived.status == 0 {
            learn_memory(&mut line.addresses, &sent, message.bytes, &arrived);
        }
        for (told, code) in line.told.iter_mut().zip([event.deferred, arrived.deferred]) {
            if code != 0 {
                told.push_back((sent.number, code));
            }
        }
        if self.options.repeat > 1 && !varies(sent.call) {
            self.outcome.marks.push(mark(&arrived, &line.addresses));
        }
        if sent.call == CallId::harp_twin_read && event.status == 0 && arrived.status == 0 {
            self.twins_told(message, event.session, sent.number, &arrived)?;
        }
        if sent.number >= self.options.from && self.is_wanted(sent.number) {
            self.compare(message, event, sent, &arrived)?;
        }
        Ok(())
    }

    fn push(&mut self, message: &Message) -> Result<(), Ended> {
        let is_over = !self.is_wanted(self.number.saturating_add(1));
        let session = message.session;
        let push = Push::decode(&mut Decoder::new(message.bytes))
            .map_err(|_| Refused(format!("after call {}: a malformed push", self.number)))?;
        match push {
            Some(Push::Output { stream, text }) => {
                line_of(&mut self.lines, session)?
                    .printed
                    .add(stream, &text);
            }
            // What comes after the last call may be due to those after it.
            Some(_) if is_over => {}
            Some(Push::Callback { callback, .. }) => {
                let reached = |session: &mut Session| session.take_reached(callback).then_some(());
                let what = || format!("the host function {callback} to be reached");
                self.wait(session, Behind::Functions, what, reached)?;
            }
            Some(Push::Event { number, .. }) => {
                let over = |session: &mut Session| session.take_over(number).then_some(());
                let what = || format!("the event that is watched as {number} to be over");
                self.wait(session, Behind::Work, what, over)?;
            }
            // Of a replay nobody asks for times.
            Some(Push::Times { .. }) | None => {}
        }
        Ok(())
    }
}

fn line_of(lines: &mut BTreeMap<u32, Line>, session: u32) -> Result<&mut Line, Ended> {
    lines
        .get_mut(&session)
        .ok_or_else(|| Refused(format!("session {session} has no beginning in the trace")).into())
}

/// The bytes that a call ends with.
fn content(trace: &Trace, call: u64, payload: Option<Payload>) -> Result<Vec<u8>, Refused> {
    match payload {
        None => Ok(Vec::new()),
        Some(payload) if payload.policy == Policy::Full => {
            let content = trace.blob(&payload.hash)?;
            match content.len() as u64 == payload.length {
                true => Ok(content),
                false => Err(Refused(format!(
                    "call {call}: its content has another length than it says; record it again"
                ))),
            }
        }
        // The record's own length, which has been checked, holds it.
        Some(payload) => Ok(vec![0; payload.length as usize]),
    }
}

/// Waits until as much time has passed since the last call as in the recording.
fn keep_time(last: &mut Option<(u64, Instant)>, time: u64, line: &mut Line) -> Result<(), Lost> {
    if let Some((then, sent)) = *last {
        let due = sent + Duration::from_nanos(time.saturating_sub(then));
        let left = due.saturating_duration_since(Instant::now());
        if left > Duration::from_micros(50) {
            line.session.flush()?;
            sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    *last = Some((time, Instant::now()));
    Ok(())
}

/// What two replays must have in common of a reply: all but where memory lies, which a server may choose
/// otherwise each time.
fn mark(arrived: &Arrived, addresses: &Addresses) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&arrived.status.to_le_bytes());
    match &arrived.body {
        Body::Here(bytes) if addresses.have_moved() => {
            let mut bytes = bytes.clone();
            addresses.put_back(&mut bytes);
            hasher.update(&bytes)
        }
        Body::Here(bytes) => hasher.update(bytes),
        Body::Gone { bytes, .. } => hasher.update(&bytes.to_le_bytes()),
    };
    let hash = *hasher.finalize().as_bytes();
    hash.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_are_told_apart_by_data_and_not_by_where_it_lies() {
        let marked = |address: u64, data: u64| {
            let mut addresses = Addresses::default();
            addresses.learn(0x1000, 0x100, address);
            let words = [address + 8, data].map(u64::to_le_bytes);
            let arrived = Arrived {
                status: 0,
                deferred: 0,
                body: Body::Here(words.concat()),
            };
            mark(&arrived, &addresses)
        };
        assert_eq!(marked(0x1000, 7), marked(0x9000, 7));
        assert_ne!(marked(0x1000, 7), marked(0x9000, 8));
    }
}
