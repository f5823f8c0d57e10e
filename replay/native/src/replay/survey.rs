//! What a trace holds, found out before anything is sent: whether it can be replayed at all, and what the
//! replay has to know ahead.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use harp_trace::block::{Block, Hash, Kind, Lost, Payload, Policy};
use harp_trace::container::Trace;
use harp_trace::event::{CallEvent, Event, Reader, ReplyEvent, Value};
use harp_trace::payloads::{sent_by, Class, Policies};
use harp_wire::push::Push;
use harp_wire::record::RECORD_HEAD_BYTES;
use harp_wire::{CallId, Decoder};

use super::calls::{creates, downloads, is_cached, Calls};
use super::images::{obstacle, Target};
use super::pushes::Pushes;
use super::snapshot::{Recorded, Snapshot};
use super::Refused;

/// Sessions that a program may have had: see the interposer's handles.
const MOST_SESSIONS: usize = 64;
/// Handles that a trace may make, ranges that it may copy, pieces that its images may have.
const MOST_KNOWN: usize = 1 << 24;
/// Bytes of one image, as a server takes it.
const IMAGE_MAX: u64 = 512 << 20;

/// A part of an image.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Piece {
    Here(Box<[u8]>),
    Blob(Hash, u64),
}

/// An image that a call has loaded without an error.
pub struct Load {
    pub session: u32,
    call: u64,
    name: Arc<str>,
    pieces: Rc<Vec<Piece>>,
}

/// What is to be known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Which copies to the program are the last ones of their ranges.
    pub finals: bool,
    /// Bytes that are not there may be made up.
    pub synthesize: bool,
    /// Calls after this one do not matter.
    pub to: Option<u64>,
    /// Nothing may be lost but times: which memory there is, and all that was sent there, is to be known.
    pub whole: bool,
}

/// What a trace holds.
#[derive(Default)]
pub struct Survey {
    pub calls: u64,
    pub sessions: BTreeMap<u32, Recorded>,
    /// From the first call to the last, in nanoseconds.
    pub recorded_ns: u64,
    /// The calls that copy a range to the program for the last time.
    pub finals: HashSet<u64>,
    pub loads: Vec<Load>,
    /// Whether the recorder has finished it.
    pub complete: bool,
    /// It is a part of another trace: text that kernels print is not in it.
    pub trimmed: bool,
    /// Uploads that it does not hold.
    pub made_up: u64,
    /// What the recording has lost, and that does not matter.
    pub lost: Lost,
    /// Uploads of which it has lost the bytes.
    pub lost_uploads: u64,
    /// How much of data was to be kept.
    policies: Policies,
}

impl Survey {
    /// Looks through a trace.
    ///
    /// # Errors
    /// Why it cannot be replayed.
    pub fn take(trace: &Trace, wanted: Wanted) -> Result<Survey, Refused> {
        let mut looking = Looking {
            wanted,
            reader: Reader::new(),
            calls: Calls::new()?,
            known: HashSet::new(),
            images: HashMap::new(),
            loading: HashMap::new(),
            seen: HashSet::new(),
            unanswered: HashSet::new(),
            pushes: Pushes::default(),
            is_over: false,
            last_of: HashMap::new(),
            missing: BTreeMap::new(),
            first_time: None,
            found: Survey {
                policies: Policies::parse(&trace.manifest().payload).unwrap_or_default(),
                ..Survey::default()
            },
        };
        let mut blocks = trace.blocks()?;
        while let Some(located) = blocks.next()? {
            let block = located.decode()?;
            let event = looking
                .reader
                .read(&block)
                .map_err(|error| located.damaged(&error))?;
            looking.take(&block, &event)?;
            if looking.is_over {
                break;
            }
        }
        looking.found.complete = trace.complete() && !blocks.cut();
        looking.end()
    }

    /// Whether what was sent with `payload` should be in the trace, and is not.
    pub fn has_lost(&self, payload: Payload, class: Class) -> bool {
        let is_kept = payload.policy == Policy::Full;
        let was_wanted = self.policies.of(class) == Policy::Full;
        payload.policy == Policy::Lost || (was_wanted && !is_kept)
    }

    /// Whether `target` can run what the session of that number loads.
    ///
    /// # Errors
    /// The first image that it cannot run, and why.
    pub fn check_images(&self, trace: &Trace, session: u32, target: Target) -> Result<(), Refused> {
        for load in self.loads.iter().filter(|load| load.session == session) {
            let mut image = Vec::new();
            for piece in &*load.pieces {
                match piece {
                    Piece::Here(bytes) => image.extend_from_slice(bytes),
                    Piece::Blob(hash, _) => image.extend_from_slice(&trace.blob(hash)?),
                }
            }
            if let Some(why) = obstacle(&image, target) {
                return Err(Refused(format!(
                    "this device cannot run what call {} ({}) loads: {why}; replay on another device, or \
                     record the program with code for this one",
                    load.call, load.name
                )));
            }
        }
        Ok(())
    }
}

/// An image that has not been loaded yet.
#[derive(Default)]
struct Unfinished {
    pieces: Vec<Piece>,
    bytes: u64,
}

struct Looking {
    wanted: Wanted,
    reader: Reader,
    calls: Calls,
    /// Handles that calls have made, by session.
    known: HashSet<(u32, u64)>,
    images: HashMap<(u32, u64), Unfinished>,
    /// Calls that load an image, by session and ticket.
    loading: HashMap<(u32, u32), Load>,
    seen: HashSet<(u32, Rc<Vec<Piece>>)>,
    /// Tickets of calls that have not been answered, by session.
    unanswered: HashSet<(u32, u32)>,
    pushes: Pushes,
    /// The rest of the trace is of no use.
    is_over: bool,
    /// The last call that copies a range, by session and arguments.
    last_of: HashMap<(u32, Box<[u8]>), u64>,
    /// Data that the trace does not hold, by what it is: how much of it.
    missing: BTreeMap<&'static str, u64>,
    first_time: Option<u64>,
    found: Survey,
}

/// What a block of JSON says of `name`.
fn said(json: &[u8], name: &str) -> Option<serde_json::Value> {
    let mut told: serde_json::Value = serde_json::from_slice(json).ok()?;
    told.get_mut(name).map(serde_json::Value::take)
}

impl Looking {
    fn take(&mut self, block: &Block, event: &Event) -> Result<(), Refused> {
        match (block, event) {
            (Block::Session(json), _) => {
                let (number, recorded) = Snapshot::recorded(json)?;
                if self.found.sessions.len() == MOST_SESSIONS
                    || self.found.sessions.insert(number, recorded).is_some()
                {
                    return Err(Refused(format!(
                        "session {number} begins twice, or there are more than {MOST_SESSIONS}"
                    )));
                }
            }
            (Block::Loss { lost, .. }, _) => self.loss(lost)?,
            (_, Event::Call(call)) if self.is_wanted(call.number) => {
                self.call(call)
                    .map_err(|Refused(why)| Refused(format!("call {}: {why}", call.number)))?;
            }
            // Host functions return even after the last call.
            (_, Event::Call(call)) => self.pushes.returned(call),
            (_, Event::Reply(reply)) => self.reply(reply)?,
            (Block::Push(message), _) if self.is_wanted(self.reader.calls()) => {
                let push = Push::decode(&mut Decoder::new(message.bytes));
                let told = match push {
                    Ok(Some(push)) => self.pushes.pushed(message.session, &push),
                    Ok(None) => Ok(()),
                    Err(_) => Err("a malformed push".to_owned()),
                };
                let last = self.reader.calls().saturating_sub(1);
                told.map_err(|why| Refused(format!("after call {last}: {why}")))?;
            }
            (Block::Process(json), _) if said(json, "from_start") == Some(false.into()) => {
                return Err(Refused(
                    "the trace lacks the beginning of its session; record all of it, with harp-run --trace or by a \
                     server's --record"
                        .to_owned(),
                ));
            }
            (Block::Annotation(json), _) => {
                self.found.trimmed |= said(json, "trimmed").is_some();
            }
            (Block::Snapshot { payload, .. }, _) if payload.policy != Policy::Full => {
                *self.missing.entry("snapshots").or_default() += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Blocks are missing here.
    fn loss(&mut self, lost: &Lost) -> Result<(), Refused> {
        if is_harmless(lost) || (is_of_memory(lost) && !self.wanted.whole) {
            self.found.lost.add(*lost);
            return Ok(());
        }
        let next = self.reader.calls();
        if !self.is_wanted(next) {
            self.is_over = true;
            return Ok(());
        }
        let up_to_there = match next.checked_sub(1) {
            Some(last) if !self.wanted.whole => {
                format!("; replay up to there with --to {last}, or record it again")
            }
            _ => "; record it again".to_owned(),
        };
        let names = lost.kinds.names();
        let of = match names.is_empty() {
            true => "blocks of any kind".to_owned(),
            false => format!("blocks ({})", names.join(", ")),
        };
        Err(Refused(format!(
            "the trace has lost {} {of} before call {next}, and may lack calls{up_to_there}, to a faster disk, \
             with less of the data kept (--trace-payload) or with more room (--trace-max)",
            lost.blocks
        )))
    }

    fn is_wanted(&self, call: u64) -> bool {
        self.wanted.to.is_none_or(|to| call <= to)
    }

    fn call(&mut self, call: &CallEvent) -> Result<(), Refused> {
        self.found.calls += 1;
        let first = *self.first_time.get_or_insert(call.time);
        self.found.recorded_ns = call.time.saturating_sub(first);
        let session = call.session;
        if !self.found.sessions.contains_key(&session) {
            return Err(Refused(format!(
                "it is of session {session}, of which the trace does not say that it began"
            )));
        }
        let today = self.calls.today(self.reader.schema(), call.call)?;
        let name = &call.arguments.name;
        if let Some(malformed) = call.arguments.undecoded {
            return Err(Refused(format!("{name} cannot be read: {}", malformed.0)));
        }
        if is_cached(today) {
            return Err(Refused(format!(
                "{name} is about bytes that only the recorded server has; record it with `harp-run --trace`"
            )));
        }
        if let Some(ticket) = call.ticket {
            bounded(self.unanswered.len())?;
            if !self.unanswered.insert((session, ticket)) {
                return Err(Refused(format!(
                    "the ticket {ticket} is used again before it is answered; record the trace again"
                )));
            }
        }
        self.handles(today, call)?;
        self.pushes.called(today, call)?;
        let payload = call.arguments.payload;
        let lacking = payload.filter(|payload| payload.policy != Policy::Full);
        if let (Some(Class::Uploads), Some(payload)) = (sent_by(today), lacking) {
            match self.found.has_lost(payload, Class::Uploads) && !self.wanted.whole {
                true => self.found.lost_uploads += 1,
                false => *self.missing.entry("uploads").or_default() += 1,
            }
        }
        match today {
            CallId::harp_blob_append => return self.piece(call),
            CallId::cuModuleLoadData | CallId::cuLibraryLoadData | CallId::cuLinkAddData_v2 => {
                self.load(today, call);
            }
            _ => {}
        }
        if let (
            CallId::cuDevicePrimaryCtxRetain | CallId::cuCtxCreate_v2,
            Some(Value::Signed(device)),
        ) = (today, call.arguments.get("dev"))
        {
            if let Some(recorded) = self.found.sessions.get_mut(&session) {
                recorded.devices_used = recorded.devices_used.max(*device + 1);
            }
        }
        if !downloads(today) {
            return Ok(());
        }
        if call.ticket.is_none() {
            return Err(Refused(format!("{name} asks for no reply")));
        }
        if self.wanted.finals {
            // All but the stream, which comes last, is the range.
            let arguments = &call.arguments.bytes[RECORD_HEAD_BYTES..];
            let range = &arguments[..arguments.len().saturating_sub(8)];
            bounded(self.last_of.len())?;
            self.last_of.insert((session, range.into()), call.number);
        }
        Ok(())
    }

    /// Handles are used only after a call has made them.
    fn handles(&mut self, today: CallId, call: &CallEvent) -> Result<(), Refused> {
        for (index, handle) in call.arguments.handles().enumerate() {
            let of = (call.session, handle);
            if index == 0 && creates(today) {
                bounded(self.known.len())?;
                self.known.insert(of);
            } else if !self.known.contains(&of) {
                let (tag, serial) = harp_trace::event::split_handle(handle);
                let kind = self.reader.schema().kind(tag);
                return Err(Refused(format!(
                    "{} uses the {} {serial:#x}, which no call of the trace has made",
                    call.arguments.name,
                    kind.map_or("handle", |kind| kind),
                )));
            }
        }
        Ok(())
    }

    fn piece(&mut self, call: &CallEvent) -> Result<(), Refused> {
        let Some(blob) = call.arguments.unsigned("blob") else {
            return Ok(());
        };
        let piece = match (call.arguments.payload, call.arguments.get("piece")) {
            (
                Some(Payload {
                    policy: Policy::Full,
                    hash,
                    length,
                }),
                _,
            ) => Piece::Blob(hash, length),
            (None, Some(Value::Bytes(bytes))) => Piece::Here(bytes[..].into()),
            _ => {
                *self.missing.entry("images").or_default() += 1;
                return Ok(());
            }
        };
        let images = self.images.len();
        let image = match self.images.entry((call.session, blob)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                bounded(images)?;
                entry.insert(Unfinished::default())
            }
        };
        bounded(image.pieces.len())?;
        image.bytes = image.bytes.saturating_add(match &piece {
            Piece::Here(bytes) => bytes.len() as u64,
            Piece::Blob(_, bytes) => *bytes,
        });
        image.pieces.push(piece);
        if image.bytes > IMAGE_MAX {
            return Err(Refused(format!("an image of more than {IMAGE_MAX} bytes")));
        }
        Ok(())
    }

    fn load(&mut self, today: CallId, call: &CallEvent) {
        /// `CUjitInputType`: what holds code in a way that this cannot look into.
        const OBJECT: u64 = 3;
        let Some(blob) = call.arguments.unsigned("blob") else {
            return;
        };
        let Some(image) = self.images.remove(&(call.session, blob)) else {
            return;
        };
        let kind = call.arguments.unsigned("type");
        if today == CallId::cuLinkAddData_v2 && kind.is_none_or(|kind| kind >= OBJECT) {
            return;
        }
        let load = Load {
            session: call.session,
            call: call.number,
            name: call.arguments.name.clone(),
            pieces: Rc::new(image.pieces),
        };
        match call.ticket {
            Some(ticket) => {
                self.loading.insert((call.session, ticket), load);
            }
            None => self.loaded(load),
        }
    }

    fn loaded(&mut self, load: Load) {
        if self.seen.insert((load.session, load.pieces.clone())) {
            self.found.loads.push(load);
        }
    }

    fn reply(&mut self, reply: &ReplyEvent) -> Result<(), Refused> {
        self.unanswered.remove(&(reply.session, reply.ticket));
        if let Some(load) = self.loading.remove(&(reply.session, reply.ticket)) {
            if reply.status == 0 {
                self.loaded(load);
            }
        }
        self.pushes.answered(reply)
    }

    fn end(mut self) -> Result<Survey, Refused> {
        self.found.made_up = self.missing.get("uploads").copied().unwrap_or(0);
        if self.wanted.synthesize {
            self.missing.remove("uploads");
        }
        if !self.missing.is_empty() {
            let what: Vec<_> = self
                .missing
                .iter()
                .map(|(what, count)| format!("{count} {what}"))
                .collect();
            let else_zeros = match self.missing.keys().eq(&["uploads"]) {
                true => ", or replay with --synthesize, which sends zeros instead",
                false => "",
            };
            return Err(Refused(format!(
                "the trace does not hold the bytes of {}; record it with --trace-payload full{else_zeros}",
                what.join(" and ")
            )));
        }
        self.found.finals = self.last_of.into_values().collect();
        Ok(self.found)
    }
}

/// Whether what is lost says nothing of what was done, but when.
fn is_harmless(lost: &Lost) -> bool {
    lost.blocks == 0
        || lost.kinds.are_among(&[
            Kind::Thread,
            Kind::Enter,
            Kind::Leave,
            Kind::Wait,
            Kind::Annotation,
            Kind::End,
            Kind::DeviceTime,
        ])
}

/// Whether it tells of memory at most, of which replies tell too.
fn is_of_memory(lost: &Lost) -> bool {
    let mut rest = *lost;
    rest.kinds.remove(&[Kind::Allocation, Kind::Free]);
    is_harmless(&rest)
}

/// Whether a replay cannot go on beyond this, for calls may be missing.
pub fn ends_there(lost: &Lost) -> bool {
    !is_of_memory(lost)
}

/// Whether another can be kept of what there are `count` already.
///
/// # Errors
/// For more than a trace may have.
pub fn bounded(count: usize) -> Result<(), Refused> {
    match count < MOST_KNOWN {
        true => Ok(()),
        false => Err(Refused(format!("it has more than {MOST_KNOWN} of a kind"))),
    }
}
