//! Writes the smaller trace: what is kept, the memory that the chosen calls find, they themselves, and what
//! they leave.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use harp_trace::block::{Block, Message, Payload, Policy};
use harp_trace::container::{Counts, Finished, Trace, Writer};
use harp_trace::event::{Event, KernelName, Reader, Value};
use harp_wire::calls::{
    encode_cuCtxSynchronize, encode_cuMemcpyDtoH_v2, encode_harp_set_current, encode_harp_twin_read,
};
use harp_wire::push::Push;
use harp_wire::reply::{ReplyHead, REPLY_HEAD_BYTES};
use harp_wire::{twin, CallId, Decoder, Encoder, SYNCHRONOUS};
use serde_json::{json, Value as Json};

use super::super::player::PIECE;
use super::super::Refused;
use super::memory::Memory;
use super::plan::Plan;

/// zstd's level: nobody waits for a trace that is looked at so often.
const LEVEL: i32 = 19;
/// A reply about shared memory tells of so many bytes of lines, or of less than a server would.
const TWIN_READ_BYTES: usize = 1 << 20;

/// Writes the trace to the new folder `out`.
///
/// # Errors
/// For damage, and what the system says.
pub fn write(
    trace: &Trace,
    plan: &Plan,
    memory: Option<&Memory>,
    out: &Path,
) -> Result<Finished, Refused> {
    let mut manifest = trace.manifest().clone();
    manifest.counts = Counts::default();
    manifest.ended = BTreeMap::new();
    let mut writing = Writing {
        trace,
        plan,
        kept: plan.kept(memory.is_none()),
        reader: Reader::new(),
        writer: Writer::create(out, manifest, LEVEL)?,
        current: HashMap::new(),
        told: HashMap::new(),
        tickets: HashSet::new(),
        awaited: HashSet::new(),
        functions: HashSet::new(),
        watches: HashSet::new(),
        began: false,
        time: 0,
    };
    let written = writing.all(memory);
    let finished = written.and_then(|()| {
        let ended = BTreeMap::from([("reason".to_owned(), Json::from("exit"))]);
        Ok(writing.writer.finish(ended)?)
    });
    if finished.is_err() {
        // It has been made here, and holds nothing but what was written here.
        let _ = std::fs::remove_dir_all(out);
    }
    finished
}

struct Writing<'a> {
    trace: &'a Trace,
    plan: &'a Plan,
    /// Calls that are kept beside the chosen ones and their results.
    kept: BTreeSet<u64>,
    reader: Reader,
    writer: Writer,
    /// The current context of each thread, in the recording and as told in what is written.
    current: HashMap<(u32, u32), u64>,
    told: HashMap<(u32, u32), u64>,
    /// All tickets that are used.
    tickets: HashSet<(u32, u32)>,
    /// Those whose replies are kept.
    awaited: HashSet<(u32, u32)>,
    functions: HashSet<(u32, u64)>,
    watches: HashSet<(u32, u64)>,
    /// The memory has been written.
    began: bool,
    time: u64,
}

impl Writing<'_> {
    fn all(&mut self, memory: Option<&Memory>) -> Result<(), Refused> {
        let names = self.names(memory)?;
        let mut blocks = self.trace.blocks()?;
        while let Some(located) = blocks.next()? {
            let block = located.decode()?;
            let event = self
                .reader
                .read(&block)
                .map_err(|error| located.damaged(&error))?;
            match (&block, &event) {
                (Block::Define(json), _) => {
                    let json = definition(json, &names)?;
                    self.writer.write_block(&Block::Define(&json))?;
                    let annotation = self.annotation(memory.is_some());
                    self.writer.write_block(&Block::Annotation(&annotation))?;
                }
                (Block::Process(_) | Block::Session(_), _) => self.writer.write(located.raw)?,
                (Block::Call(message), Event::Call(call)) => {
                    self.time = message.time;
                    let thread = (call.session, call.thread);
                    if &*call.arguments.name == "harp_set_current" {
                        let context = call.arguments.get("context").and_then(Value::handle);
                        self.current.insert(thread, context.unwrap_or(0));
                        continue;
                    }
                    if !self.is_kept(call.number, memory) {
                        continue;
                    }
                    if self.plan.chosen.contains(&call.number)
                        && !std::mem::replace(&mut self.began, true)
                    {
                        self.find(memory)?;
                    }
                    self.make_current(thread)?;
                    if let Some(ticket) = call.ticket {
                        self.tickets.insert((call.session, ticket));
                        self.awaited.insert((call.session, ticket));
                    }
                    for (name, kept) in [
                        ("callback", &mut self.functions),
                        ("number", &mut self.watches),
                    ] {
                        let number = call.arguments.unsigned(name);
                        kept.extend(number.map(|number| (call.session, number)));
                    }
                    self.message(Block::Call(*message), message.payload)?;
                    if &*call.arguments.name == "harp_thread_ended" {
                        // Of the next one of that number nothing has been told.
                        self.told.remove(&thread);
                    }
                }
                (Block::Reply(message), Event::Reply(reply))
                    if self.awaited.remove(&(reply.session, reply.ticket)) =>
                {
                    self.time = message.time;
                    // What went wrong before is not part of this trace.
                    let mut bytes = message.bytes.to_vec();
                    if let Some(deferred) = bytes.get_mut(12..REPLY_HEAD_BYTES) {
                        deferred.fill(0);
                    }
                    let reply = Message {
                        bytes: &bytes,
                        ..*message
                    };
                    self.message(Block::Reply(reply), message.payload)?;
                }
                (Block::Push(message), _) => {
                    let session = message.session;
                    let is_kept = match Push::decode(&mut Decoder::new(message.bytes)) {
                        Ok(Some(Push::Callback { callback, .. })) => {
                            self.functions.contains(&(session, callback))
                        }
                        Ok(Some(Push::Event { number, .. })) => {
                            self.watches.contains(&(session, number))
                        }
                        _ => false,
                    };
                    if is_kept {
                        self.message(block.clone(), None)?;
                    }
                }
                _ => {}
            }
        }
        if let Some(memory) = memory {
            self.leave(memory)?;
        }
        let end = json!({"reason": "exit", "time": self.time}).to_string();
        self.writer.write_block(&Block::End(end.as_bytes()))?;
        Ok(())
    }

    /// Whether a call of the recording is one of the smaller trace. Results are kept where no memory is.
    fn is_kept(&self, call: u64, memory: Option<&Memory>) -> bool {
        self.plan.chosen.contains(&call)
            || self.kept.contains(&call)
            || (memory.is_none() && self.plan.results.contains(&call))
    }

    /// The names of the calls that are kept.
    fn names(&self, memory: Option<&Memory>) -> Result<HashSet<String>, Refused> {
        let added = [
            "harp_set_current",
            "harp_twin_read",
            "cuCtxSynchronize",
            "cuMemcpyDtoH_v2",
        ];
        let mut names: HashSet<String> = added.map(str::to_owned).into();
        let mut reader = Reader::new();
        let mut blocks = self.trace.blocks()?;
        while let Some(located) = blocks.next()? {
            let block = located.decode()?;
            let event = reader
                .read(&block)
                .map_err(|error| located.damaged(&error))?;
            if let Event::Call(call) = event {
                if self.is_kept(call.number, memory) {
                    names.insert(call.arguments.name.to_string());
                }
            }
        }
        Ok(names)
    }

    fn annotation(&self, with_memory: bool) -> Vec<u8> {
        let kernel = self.plan.kernel.as_deref().map(KernelName::symbol);
        let trimmed = json!({
            "from": self.plan.chosen.start(),
            "to": self.plan.chosen.end(),
            "kernel": kernel,
            "calls": self.plan.calls,
            "with_memory": with_memory,
        });
        json!({"trimmed": trimmed}).to_string().into_bytes()
    }

    /// Writes a block, and keeps its content.
    fn message(&mut self, block: Block, payload: Option<Payload>) -> Result<(), Refused> {
        if let Some(payload) = payload.filter(|payload| payload.policy == Policy::Full) {
            self.writer.keep(&self.trace.blob(&payload.hash)?)?;
        }
        Ok(self.writer.write_block(&block)?)
    }

    /// Tells of the thread's current context, if what is written has told of another.
    fn make_current(&mut self, thread: (u32, u32)) -> Result<(), Refused> {
        let context = self.current.get(&thread).copied().unwrap_or(0);
        self.enter(thread, context)
    }

    fn enter(&mut self, thread: (u32, u32), context: u64) -> Result<(), Refused> {
        if self.told.insert(thread, context).unwrap_or(0) == context {
            return Ok(());
        }
        let call = self.number("harp_set_current")?;
        self.call(thread, call, None, |e| encode_harp_set_current(e, context))
    }

    /// The trace's number of a call.
    fn number(&self, name: &str) -> Result<CallId, Refused> {
        let found = self.reader.schema().named(name);
        found
            .map(|(number, _)| CallId(number))
            .ok_or_else(|| Refused(format!("the trace does not know the call {name}")))
    }

    /// Writes a call that the recording does not have.
    fn call(
        &mut self,
        (session, thread): (u32, u32),
        call: CallId,
        ticket: Option<u32>,
        encode: impl FnOnce(&mut Encoder),
    ) -> Result<(), Refused> {
        let mut encoder = Encoder::new();
        let start = encoder.begin_record(call, ticket, thread);
        encode(&mut encoder);
        encoder.end_record(start);
        let message = Message {
            time: self.time,
            session,
            bytes: encoder.as_slice(),
            payload: None,
        };
        Ok(self.writer.write_block(&Block::Call(message))?)
    }

    /// The memory that the chosen calls find.
    fn find(&mut self, memory: Option<&Memory>) -> Result<(), Refused> {
        for range in self.plan.ranges.iter().filter(|range| !range.is_shared()) {
            self.writer.write_block(&Block::Allocation {
                time: self.time,
                session: range.session,
                device: range.device,
                address: range.address,
                bytes: range.bytes,
            })?;
        }
        let Some(memory) = memory else { return Ok(()) };
        for (range, content) in self.plan.ranges.iter().zip(&memory.found) {
            for (index, piece) in content.chunks(PIECE as usize).enumerate() {
                let payload = Payload {
                    policy: Policy::Full,
                    length: piece.len() as u64,
                    hash: self.writer.keep(piece)?,
                };
                self.writer.write_block(&Block::Snapshot {
                    session: range.session,
                    device: range.device,
                    address: range.address.wrapping_add(index as u64 * PIECE),
                    bytes: piece.len() as u64,
                    payload,
                })?;
            }
        }
        Ok(())
    }

    /// Fetches what the chosen calls have left, in calls that the recording does not have.
    fn leave(&mut self, memory: &Memory) -> Result<(), Refused> {
        let (synchronize, copy) = (
            self.number("cuCtxSynchronize")?,
            self.number("cuMemcpyDtoH_v2")?,
        );
        let (session, context, thread) = self.plan.place;
        self.enter((session, thread), context)?;
        let ticket = self.ticket(session);
        self.call((session, thread), synchronize, Some(ticket), |e| {
            encode_cuCtxSynchronize(e);
        })?;
        self.reply(session, ticket, memory.status, None)?;
        // By session: what has changed of the memory that the program shares with kernels.
        let mut changes: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let found = memory.found.iter();
        for ((range, content), found) in self.plan.ranges.iter().zip(&memory.left).zip(found) {
            let session = range.session;
            if range.is_shared() {
                let mut then = match found.len() == content.len() {
                    true => found.clone(),
                    false => vec![0; content.len()],
                };
                let changed = twin::differences(range.address, content, &mut then);
                changes.entry(session).or_default().extend(changed);
                continue;
            }
            let context = memory.contexts.get(&(session, range.device));
            self.enter(
                (session, thread),
                context.copied().unwrap_or(context_of(self.plan)),
            )?;
            for (index, piece) in content.chunks(PIECE as usize).enumerate() {
                let ticket = self.ticket(session);
                let address = range.address.wrapping_add(index as u64 * PIECE);
                let bytes = piece.len() as u64;
                self.call((session, thread), copy, Some(ticket), |e| {
                    encode_cuMemcpyDtoH_v2(e, address, bytes, SYNCHRONOUS);
                })?;
                self.reply(session, ticket, 0, Some((&[], piece)))?;
            }
        }
        for (session, changed) in changes {
            self.shared_changes((session, thread), &changed)?;
        }
        Ok(())
    }

    /// Asks what kernels have changed of the memory that the program shares with them: these lines.
    fn shared_changes(&mut self, at: (u32, u32), changed: &[u8]) -> Result<(), Refused> {
        let read = self.number("harp_twin_read")?;
        let mut ends = vec![0];
        let mut end = 0;
        for line in twin::lines(changed).flatten() {
            end += line.size();
            if end - ends[ends.len() - 1] >= TWIN_READ_BYTES {
                ends.push(end);
            }
        }
        ends.push(end);
        // Each of them goes on where the one before has stopped, for that has been told.
        for piece in ends.windows(2).map(|ends| &changed[ends[0]..ends[1]]) {
            let ticket = self.ticket(at.0);
            self.call(at, read, Some(ticket), |e| encode_harp_twin_read(e, 0))?;
            self.reply(at.0, ticket, 0, Some((&0u64.to_le_bytes(), piece)))?;
        }
        Ok(())
    }

    fn ticket(&mut self, session: u32) -> u32 {
        let free = (1..).find(|ticket| !self.tickets.contains(&(session, *ticket)));
        let ticket = free.unwrap_or(u32::MAX);
        self.tickets.insert((session, ticket));
        ticket
    }

    /// Writes a reply; `outputs` is its data, and the outputs before that.
    fn reply(
        &mut self,
        session: u32,
        ticket: u32,
        status: u32,
        outputs: Option<(&[u8], &[u8])>,
    ) -> Result<(), Refused> {
        let body = outputs.map_or(0, |(before, data)| before.len() + 8 + data.len());
        let mut bytes = ReplyHead::new(ticket, status, 0, body).encode().to_vec();
        let mut payload = None;
        if let Some((before, data)) = outputs {
            bytes.extend(before);
            bytes.extend((data.len() as u64).to_le_bytes());
            payload = Some(Payload {
                policy: Policy::Full,
                length: data.len() as u64,
                hash: self.writer.keep(data)?,
            });
        }
        let message = Message {
            time: self.time,
            session,
            bytes: &bytes,
            payload,
        };
        Ok(self.writer.write_block(&Block::Reply(message))?)
    }
}

fn context_of(plan: &Plan) -> u64 {
    plan.place.1
}

/// The schema of the calls that are kept, without the names of the driver's functions.
fn definition(json: &[u8], names: &HashSet<String>) -> Result<Vec<u8>, Refused> {
    let mut value: Json = serde_json::from_slice(json)
        .map_err(|error| Refused(format!("the trace's call schema is unreadable: {error}")))?;
    if let Some(calls) = value.get_mut("calls").and_then(Json::as_array_mut) {
        calls.retain(|call| {
            let name = call.get("name").and_then(Json::as_str);
            name.is_some_and(|name| names.contains(name))
        });
    }
    if let Some(object) = value.as_object_mut() {
        for unused in ["symbols", "reasons", "reason_texts"] {
            object.remove(unused);
        }
    }
    Ok(value.to_string().into_bytes())
}
