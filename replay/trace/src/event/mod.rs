//! Decoded events: what the blocks of a trace say, by the schema that the trace itself holds.
//!
//! A [`Reader`] is given the blocks in order and keeps what they make known: names of kernels, memory,
//! which call a reply belongs to. A record that the schema does not explain is an event all the same,
//! with its bytes and the reason.

mod assemble;
mod json;
mod kernel;
mod line;
mod lines;
mod objects;
mod schema;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use harp_wire::record::{RecordHead, RECORD_HEAD_BYTES};
use harp_wire::reply::{ReplyHead, REPLY_HEAD_BYTES};

use crate::block::{Block, Malformed, Message, Payload};

pub use assemble::assemble;
pub use kernel::KernelName;
pub use lines::Lines;
pub use objects::{Allocation, Called, Objects};
pub use schema::{Call, Field, Schema, Type};
pub use value::{join_handle, split_handle, Value};

/// The arguments or outputs of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values<'a> {
    /// The call's name, or `call 0x1234` where the schema does not have it.
    pub name: Arc<str>,
    /// What the values are called, and their types.
    pub fields: Arc<[Field]>,
    /// As many, in the order of the wire; none where they are undecoded.
    pub values: Vec<Value<'a>>,
    /// Why there are none, where the bytes are not what the schema says.
    pub undecoded: Option<Malformed>,
    /// The bytes of the wire: head and all, without the payload.
    pub bytes: &'a [u8],
    pub payload: Option<Payload>,
}

impl<'a> Values<'a> {
    /// The values, each with what the schema says of it.
    pub fn named(&self) -> impl Iterator<Item = (&Field, &Value<'a>)> {
        self.fields.iter().zip(&self.values)
    }

    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.named().find(|(field, _)| &*field.name == name);
        found.map(|(_, value)| value)
    }

    /// The unsigned number called `name`.
    pub fn unsigned(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(Value::unsigned)
    }

    /// The capture ids of the handles among them.
    pub fn handles(&self) -> impl Iterator<Item = u64> + '_ {
        self.values.iter().filter_map(Value::handle)
    }

    /// The addresses of the device pointers among them.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.values.iter().filter_map(Value::address)
    }
}

/// A call of the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct CallEvent<'a> {
    /// Which `Call` block of the trace it is, from 0.
    pub number: u64,
    pub time: u64,
    pub session: u32,
    pub thread: u32,
    pub ticket: Option<u32>,
    /// Its number on the wire; 0 where the head is none.
    pub call: u16,
    /// The driver API call during which it was made, by the ordinal of its `Enter` block.
    pub enter: Option<u64>,
    /// The kernel that it starts.
    pub kernel: Option<Arc<KernelName>>,
    pub arguments: Values<'a>,
}

/// The reply to a call.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyEvent<'a> {
    /// The call that it answers, if the trace has it.
    pub call: Option<Called>,
    pub time: u64,
    pub session: u32,
    pub ticket: u32,
    pub status: u32,
    pub deferred: u32,
    pub outputs: Values<'a>,
}

/// What a block says. What needs nothing but the block itself is left in it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    Enter {
        number: u64,
        time: u64,
        thread: u32,
        symbol: u16,
        name: Arc<str>,
    },
    Leave {
        enter: Option<u64>,
        time: u64,
        thread: u32,
        result: u32,
    },
    Call(Box<CallEvent<'a>>),
    Reply(Box<ReplyEvent<'a>>),
    Wait {
        call: Option<Called>,
        because: Arc<str>,
    },
    Allocation(Allocation),
    Free(Option<Allocation>),
    /// Everything else.
    Block,
}

/// Makes events of blocks.
#[derive(Debug, Default)]
pub struct Reader {
    schema: Schema,
    objects: Objects,
    calls: u64,
    enters: u64,
    /// The driver API calls that each thread is in.
    entered: BTreeMap<u32, Vec<u64>>,
}

/// A thread of a trace is in this many driver API calls at most.
const NESTED_MAX: usize = 64;

impl Reader {
    pub fn new() -> Reader {
        Reader::default()
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The `Call` blocks read so far.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// What the next block says.
    ///
    /// # Errors
    /// For a schema that is none.
    pub fn read<'a>(&mut self, block: &Block<'a>) -> Result<Event<'a>, String> {
        Ok(match *block {
            Block::Define(json) => {
                self.schema = Schema::parse(json)
                    .map_err(|error| format!("it is no call schema: {error}"))?;
                Event::Block
            }
            Block::Enter {
                time,
                thread,
                symbol,
            } => {
                let number = self.enters;
                self.enters += 1;
                let entered = self.entered.entry(thread).or_default();
                if entered.len() == NESTED_MAX {
                    // What has begun so long ago has ended, and its end was lost.
                    entered.remove(0);
                }
                entered.push(number);
                let name = self.schema.symbol(symbol).cloned();
                Event::Enter {
                    number,
                    time,
                    thread,
                    symbol,
                    name: name.unwrap_or_else(|| format!("symbol {symbol}").into()),
                }
            }
            Block::Leave {
                time,
                thread,
                result,
            } => Event::Leave {
                enter: self.entered.get_mut(&thread).and_then(Vec::pop),
                time,
                thread,
                result,
            },
            Block::Call(message) => Event::Call(Box::new(self.call(message))),
            Block::Reply(message) => Event::Reply(Box::new(self.reply(message))),
            Block::Wait {
                session,
                ticket,
                reason,
                ..
            } => {
                let because = self.schema.reason(reason).cloned();
                Event::Wait {
                    call: self.objects.with_ticket(session, ticket),
                    because: because.unwrap_or_else(|| format!("reason {reason}").into()),
                }
            }
            Block::Allocation {
                session,
                device,
                address,
                bytes,
                ..
            } => Event::Allocation(self.objects.allocated(session, device, address, bytes)),
            Block::Free {
                session, address, ..
            } => Event::Free(self.objects.freed(session, address)),
            _ => Event::Block,
        })
    }

    fn call<'a>(&mut self, message: Message<'a>) -> CallEvent<'a> {
        let number = self.calls;
        self.calls += 1;
        let mut event = CallEvent {
            number,
            time: message.time,
            session: message.session,
            thread: 0,
            ticket: None,
            call: 0,
            enter: None,
            kernel: None,
            arguments: Values::default(),
        };
        let Some((head, bytes)) = call_head(&message) else {
            event.arguments = headless("call", &message);
            return event;
        };
        event.thread = head.thread;
        event.ticket = head.ticket;
        event.call = head.call.0;
        event.enter = self
            .entered
            .get(&head.thread)
            .and_then(|entered| entered.last().copied());
        let known = self.schema.call(head.call.0);
        let fields = known.map(|call| (&call.name, &call.inputs));
        event.arguments = values(head.call.0, fields, bytes, &message);
        let values = &event.arguments.values[..];
        let function = values.first().and_then(Value::handle);
        if let (Some(call), Some(function)) = (known, function) {
            if call.launches {
                event.kernel = self.objects.kernel(message.session, function).cloned();
            }
        }
        let called = Called {
            number,
            call: head.call.0,
        };
        let made = known.map(|call| (call, values));
        self.objects
            .called(message.session, head.ticket, called, made);
        event
    }

    fn reply<'a>(&mut self, message: Message<'a>) -> ReplyEvent<'a> {
        let mut event = ReplyEvent {
            call: None,
            time: message.time,
            session: message.session,
            ticket: 0,
            status: 0,
            deferred: 0,
            outputs: Values::default(),
        };
        let Some((head, bytes)) = reply_head(&message) else {
            event.outputs = headless("reply", &message);
            return event;
        };
        event.ticket = head.ticket;
        event.status = head.status;
        event.deferred = head.deferred;
        event.call = self.objects.answered(message.session, head.ticket);
        let number = event.call.map_or(0, |called| called.call);
        // A call that failed has no outputs.
        let none = head.body_bytes() == Some(0) && head.status != 0;
        let no_fields = Arc::default();
        let fields = self.schema.call(number).map(|call| {
            let outputs = if none { &no_fields } else { &call.outputs };
            (&call.name, outputs)
        });
        event.outputs = values(number, fields, bytes, &message);
        event
    }
}

/// The head of a call, and its arguments but for the payload; `None` where the head is malformed.
fn call_head<'a>(message: &Message<'a>) -> Option<(RecordHead, &'a [u8])> {
    let (head, arguments) = message.bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
    let head = RecordHead::decode(head).ok()?;
    (head.argument_bytes as u64 == with_payload(arguments, message)).then_some((head, arguments))
}

/// The head of a reply, and its outputs but for the payload; `None` where the head is malformed.
fn reply_head<'a>(message: &Message<'a>) -> Option<(ReplyHead, &'a [u8])> {
    let (head, outputs) = message.bytes.split_first_chunk::<REPLY_HEAD_BYTES>()?;
    let head = ReplyHead::decode(head);
    (head.body_bytes()? as u64 == with_payload(outputs, message)).then_some((head, outputs))
}

/// How many bytes these were before the payload was cut out.
fn with_payload(bytes: &[u8], message: &Message) -> u64 {
    let cut = message.payload.map_or(0, |payload| payload.length);
    (bytes.len() as u64).saturating_add(cut)
}

/// What is left of a message whose head is malformed.
fn headless<'a>(name: &str, message: &Message<'a>) -> Values<'a> {
    Values {
        name: name.into(),
        undecoded: Some(Malformed("its head is malformed")),
        bytes: message.bytes,
        payload: message.payload,
        ..Values::default()
    }
}

fn values<'a>(
    number: u16,
    known: Option<(&Arc<str>, &Arc<[Field]>)>,
    bytes: &'a [u8],
    message: &Message<'a>,
) -> Values<'a> {
    let (name, fields, read) = match known {
        Some((name, fields)) => {
            let read = schema::read(fields, bytes, message.payload.as_ref());
            (name.clone(), fields.clone(), read)
        }
        None => (
            format!("call {number:#06x}").into(),
            Arc::default(),
            Err(Malformed("the trace's schema does not have this call")),
        ),
    };
    let (values, undecoded) = match read {
        Ok(values) => (values, None),
        Err(malformed) => (Vec::new(), Some(malformed)),
    };
    Values {
        name,
        fields,
        values,
        undecoded,
        bytes: message.bytes,
        payload: message.payload,
    }
}
