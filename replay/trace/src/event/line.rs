//! One event as a line of JSON.

use std::collections::HashSet;

use harp_wire::push::{OutputStream, Push};
use harp_wire::Decoder;

use super::json::Json;
use super::value::{split_handle, write};
use super::{CallEvent, Event, Reader, ReplyEvent, Value, Values};
use crate::block::{Block, Hash, Kinds, Message, Payload, Policy, HEAD_BYTES};
use crate::container::{reason_names, Located, Trace, TraceError};

/// Longer runs of bytes are shown by their number only, unless everything is wanted.
const HEX_MAX: usize = 4 << 10;

/// Whether the fields of a block say all that its bytes do.
fn is_exact(block: &Block, located: &Located) -> bool {
    let mut bytes = Vec::new();
    block.encode(&mut bytes);
    bytes[..HEAD_BYTES] == located.raw.head() && bytes[HEAD_BYTES..] == *located.raw.body
}

/// The object of JSON that a block is: its own fields beside the type. `None` where that would not do.
fn object(json: &[u8]) -> Option<serde_json::Map<String, serde_json::Value>> {
    let object: serde_json::Map<_, _> = serde_json::from_slice(json).ok()?;
    let taken = object.contains_key("type") || object.contains_key("raw");
    (!taken).then_some(object)
}

/// One event, as far as it has been written.
pub struct Line<'r> {
    json: Json,
    reader: &'r Reader,
    full: bool,
    /// Whether the line says all that the block does, so far.
    exact: bool,
}

impl<'r> Line<'r> {
    /// The line of `block`; with `full` it says everything.
    pub fn begin(reader: &'r Reader, full: bool, block: &Block, located: &Located) -> Line<'r> {
        let mut json = Json::default();
        json.begin();
        Line {
            json,
            reader,
            full,
            exact: is_exact(block, located),
        }
    }

    /// The fields of `event`, which `block` is.
    pub fn event(&mut self, block: &Block, event: &Event) {
        match (block, event) {
            (_, Event::Call(call)) => self.call(call),
            (_, Event::Reply(reply)) => self.reply(reply),
            (
                _,
                Event::Enter {
                    number,
                    time,
                    thread,
                    symbol,
                    name,
                },
            ) => {
                self.json.text("type", "enter");
                self.json.number("number", *number);
                self.json.number("time", *time);
                self.json.number("thread", *thread);
                self.json.text("name", name);
                self.json.number("symbol", *symbol);
            }
            (
                _,
                Event::Leave {
                    enter,
                    time,
                    thread,
                    result,
                },
            ) => {
                self.json.text("type", "leave");
                self.json.maybe("enter", *enter);
                self.json.number("time", *time);
                self.json.number("thread", *thread);
                self.json.number("result", *result);
            }
            (
                Block::Wait {
                    began,
                    ended,
                    thread,
                    session,
                    ticket,
                    reason,
                    call,
                },
                Event::Wait {
                    call: called,
                    because,
                },
            ) => {
                self.json.text("type", "wait");
                self.json.maybe("call", called.map(|called| called.number));
                if let Some(known) = self.reader.schema().call(*call) {
                    self.json.text("name", &known.name);
                }
                self.json.number("thread", *thread);
                self.json.number("began", *began);
                self.json.number("ended", *ended);
                self.json.text("because", because);
                self.json.number("session", *session);
                self.json.number("ticket", *ticket);
                self.json.number("reason", *reason);
                self.json.number("id", *call);
            }
            (Block::Allocation { time, .. }, Event::Allocation(allocation)) => {
                self.json.text("type", "allocation");
                self.json.number("number", allocation.number);
                self.json.number("time", *time);
                self.json.number("session", allocation.session);
                self.json.number("device", allocation.device);
                self.json.number("address", allocation.address);
                self.json.number("bytes", allocation.bytes);
            }
            (
                Block::Free {
                    time,
                    session,
                    address,
                },
                Event::Free(allocation),
            ) => {
                self.json.text("type", "free");
                let number = allocation.map(|allocation| allocation.number);
                self.json.maybe("allocation", number);
                self.json.number("time", *time);
                self.json.number("session", *session);
                self.json.number("address", *address);
            }
            (block, _) => self.block(block),
        }
    }

    fn block(&mut self, block: &Block) {
        match block {
            Block::Define(json) => self.object("define", json),
            Block::Process(json) => self.object("process", json),
            Block::Session(json) => self.object("session", json),
            Block::Annotation(json) => self.object("annotation", json),
            Block::End(json) => self.object("end", json),
            Block::Thread { thread, tid, name } => {
                self.json.text("type", "thread");
                self.json.number("thread", *thread);
                self.json.number("tid", *tid);
                self.lossy("name", name);
            }
            Block::Push(message) => self.push(message),
            Block::Loss { time, lost } => {
                self.json.text("type", "loss");
                self.json.number("time", *time);
                self.json.begin_list("reasons");
                for name in reason_names(lost.reasons) {
                    self.json.text_item(&name);
                }
                self.json.end_list();
                self.json.number("bits", lost.reasons);
                self.json.number("blocks", lost.blocks);
                self.json.number("bytes", lost.bytes);
                if lost.kinds != Kinds::UNKNOWN {
                    self.json.number("type_bits", lost.kinds.0);
                    self.json.begin_list("types");
                    for name in lost.kinds.names() {
                        self.json.text_item(name);
                    }
                    self.json.end_list();
                }
            }
            Block::Snapshot {
                session,
                device,
                address,
                bytes,
                ..
            } => {
                self.json.text("type", "snapshot");
                self.json.number("session", *session);
                self.json.number("device", *device);
                self.json.number("address", *address);
                self.place(*session, *address);
                self.json.number("bytes", *bytes);
            }
            Block::DeviceTime {
                session,
                call,
                began,
                ended,
            } => {
                self.json.text("type", "device_time");
                self.json.number("session", *session);
                self.json.number("call", *call);
                self.json.number("began", *began);
                self.json.number("ended", *ended);
            }
            // A type of a later version, or an experiment.
            other => {
                self.json.text("type", "block");
                self.exact = false;
                if let Block::Other(raw) = other {
                    self.json.number("number", raw.number);
                }
            }
        }
    }

    fn call(&mut self, call: &CallEvent) {
        self.json.text("type", "call");
        self.json.number("number", call.number);
        self.json.maybe("enter", call.enter);
        self.json.number("time", call.time);
        self.json.number("session", call.session);
        self.json.number("thread", call.thread);
        self.json.text("name", &call.arguments.name);
        self.json.number("id", call.call);
        self.json.maybe("ticket", call.ticket);
        if let Some(kernel) = &call.kernel {
            self.json.text("kernel", kernel.symbol());
            if let Some(demangled) = kernel.demangled() {
                self.json.text("demangled", demangled);
            }
        }
        self.size(&call.arguments);
        self.values("args", call.session, &call.arguments);
    }

    fn reply(&mut self, reply: &ReplyEvent) {
        self.json.text("type", "reply");
        self.json.maybe("call", reply.call.map(|call| call.number));
        self.json.number("time", reply.time);
        self.json.number("session", reply.session);
        self.json.text("name", &reply.outputs.name);
        self.json.number("ticket", reply.ticket);
        self.json.number("status", reply.status);
        self.json.number("deferred", reply.deferred);
        self.size(&reply.outputs);
        self.values("outs", reply.session, &reply.outputs);
    }

    /// What it has on the wire, in bytes, payload and all.
    fn size(&mut self, values: &Values) {
        let payload = values.payload.map_or(0, |payload| payload.length);
        let size = payload.saturating_add(values.bytes.len() as u64);
        self.json.number("size", size);
    }

    fn values(&mut self, key: &str, session: u32, values: &Values) {
        self.json.begin_object(key);
        for (field, value) in values.named() {
            self.json.key(&field.name);
            self.value(session, value);
        }
        self.json.end_object();
        if let Some(malformed) = values.undecoded {
            self.exact = false;
            self.json.text("undecoded", malformed.0);
            if !self.full {
                self.bytes("wire", values.bytes);
            }
            return;
        }
        // Heads say no more than the event does; both have sixteen bytes.
        let mut again = Vec::new();
        let written =
            (values.named()).try_for_each(|(field, value)| write(&field.kind, value, &mut again));
        self.exact &= written.is_some() && values.bytes.get(16..) == Some(&again[..]);
    }

    fn value(&mut self, session: u32, value: &Value) {
        match value {
            Value::Unsigned(number) => self.json.item(number),
            Value::Signed(number) => self.json.item(number),
            Value::Float(number) if number.is_finite() => {
                self.json.item(format_args!("{number:?}"))
            }
            Value::Float(number) => {
                self.exact = false;
                self.json.text_item(&number.to_string());
            }
            Value::None => self.json.item("null"),
            Value::Handle(id) => {
                let (tag, serial) = split_handle(*id);
                self.json.begin();
                match self.reader.schema().kind(tag) {
                    Some(kind) => self.json.text("kind", kind),
                    None => self.json.number("kind", tag),
                }
                self.json.number("id", serial);
                self.json.end();
            }
            Value::DevicePointer(address) => {
                self.json.begin();
                self.json.number("address", *address);
                self.place(session, *address);
                self.json.end();
            }
            Value::Payload(bytes) => {
                self.json.begin();
                self.json.number("bytes", *bytes);
                self.json.end();
            }
            Value::Bytes(bytes) => {
                self.json.begin();
                self.hex(bytes);
                self.json.end();
            }
            Value::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => self.json.text_item(text),
                Err(_) => {
                    self.exact = false;
                    self.json.text_item(&String::from_utf8_lossy(text));
                }
            },
            Value::List(items) => {
                self.json.open('[');
                for item in items {
                    self.value(session, item);
                }
                self.json.close(']');
            }
            Value::FunctionInfo { params, attributes } => {
                self.json.begin();
                self.json.begin_list("params");
                for (offset, size) in params {
                    self.json.begin();
                    self.json.number("offset", *offset);
                    self.json.number("size", *size);
                    self.json.end();
                }
                self.json.end_list();
                self.json.begin_list("attributes");
                for attribute in attributes.iter() {
                    self.json.item(attribute);
                }
                self.json.end_list();
                self.json.end();
            }
        }
    }

    /// The allocation that an address lies in, and where.
    fn place(&mut self, session: u32, address: u64) {
        let allocation = self.reader.objects().allocation(session, address);
        self.json
            .maybe("allocation", allocation.map(|found| found.number));
        let offset = allocation.map(|found| address - found.address);
        self.json.maybe("offset", offset);
    }

    fn push(&mut self, message: &Message) {
        self.json.text("type", "push");
        self.json.number("time", message.time);
        self.json.number("session", message.session);
        match Push::decode(&mut Decoder::new(message.bytes)) {
            Ok(Some(Push::Callback { callback, status })) => {
                self.json.text("kind", "callback");
                self.json.number("callback", callback);
                self.json.number("status", status);
            }
            Ok(Some(Push::Output { stream, text })) => {
                self.json.text("kind", "output");
                let name = match stream {
                    OutputStream::Stdout => "stdout",
                    OutputStream::Stderr => "stderr",
                };
                self.json.text("stream", name);
                self.lossy("text", &text);
            }
            Ok(Some(Push::Event { number, over })) => {
                self.json.text("kind", "event");
                self.json.number("event", number);
                self.json.flag("over", over);
            }
            Ok(Some(Push::Times { spans, .. })) => {
                self.json.text("kind", "times");
                self.json.number("calls", spans.len() as u64);
            }
            Ok(None) => self.json.text("kind", "unknown"),
            Err(error) => self.json.text("undecoded", &error.to_string()),
        }
        self.json.key("wire");
        self.json.begin();
        self.hex(message.bytes);
        self.json.end();
    }

    fn object(&mut self, kind: &str, json: &[u8]) {
        self.json.text("type", kind);
        let Some(object) = object(json) else {
            self.exact = false;
            return self.bytes("json", json);
        };
        let again = serde_json::to_vec(&object).unwrap_or_default();
        self.exact &= again == json;
        for (key, value) in &object {
            self.json.verbatim(key, &value.to_string());
        }
    }

    fn lossy(&mut self, key: &str, text: &[u8]) {
        self.exact &= std::str::from_utf8(text).is_ok();
        self.json.text(key, &String::from_utf8_lossy(text));
    }

    fn bytes(&mut self, key: &str, bytes: &[u8]) {
        self.json.key(key);
        self.json.begin();
        self.hex(bytes);
        self.json.end();
    }

    /// The number of some bytes, and the bytes themselves if they are few or all are wanted.
    fn hex(&mut self, bytes: &[u8]) {
        self.json.number("bytes", bytes.len() as u64);
        if self.full || bytes.len() <= HEX_MAX {
            self.json.hex("hex", bytes);
        }
    }

    /// The payload of the block; its content where that is not among those `shown` already.
    ///
    /// # Errors
    /// For a content that is missing or damaged.
    pub fn payload(
        &mut self,
        payload: &Payload,
        trace: &Trace,
        shown: &mut HashSet<Hash>,
    ) -> Result<(), TraceError> {
        self.json.begin_object("payload");
        self.json.text("policy", payload.policy.name());
        self.json.number("bytes", payload.length);
        if payload.policy.has_hash() {
            self.json.hex("hash", &payload.hash);
        }
        let kept = self.full && payload.policy == Policy::Full;
        if kept && shown.insert(payload.hash) {
            self.json.hex("hex", &trace.blob(&payload.hash)?);
        }
        self.json.end_object();
        self.exact &= payload.policy.has_hash() || payload.hash == [0; 32];
        Ok(())
    }

    /// The text of the whole line.
    pub fn end(mut self, located: &Located) -> String {
        if self.full && !self.exact {
            self.json.begin_object("raw");
            self.json.number("number", located.raw.number);
            self.json.number("flags", located.raw.flags);
            self.json.hex("hex", located.raw.body);
            self.json.end_object();
        }
        self.json.end();
        self.json.text
    }
}
