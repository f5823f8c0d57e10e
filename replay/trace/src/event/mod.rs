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

use std::collections::HashMap;
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

/// A value with the name that it has in its call.
pub type Named<'a> = (Arc<str>, Value<'a>);

/// The arguments or outputs of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Values<'a> {
    /// The call's name, or `call 0x1234` where the schema does not have it.
    pub name: Arc<str>,
    /// Names and values, in the order of the wire.
    pub values: Vec<Named<'a>>,
    /// Why there are none, where the bytes are not what the schema says.
    pub undecoded: Option<Malformed>,
    /// The bytes of the wire: head and all, without the payload.
    pub bytes: &'a [u8],
    pub payload: Option<Payload>,
}

impl<'a> Values<'a> {
    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        let found = self.values.iter().find(|(known, _)| &**known == name);
        found.map(|(_, value)| value)
    }

    /// The unsigned number called `name`.
    pub fn unsigned(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(Value::unsigned)
    }

    /// The capture ids of the handles among them.
    pub fn handles(&self) -> impl Iterator<Item = u64> + '_ {
        self.values.iter().filter_map(|(_, value)| value.handle())
    }

    /// The addresses of the device pointers among them.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.values.iter().filter_map(|(_, value)| value.address())
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
    entered: HashMap<u32, Vec<u64>>,
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
        let Message {
            time,
            session,
            bytes,
            payload,
        } = message;
        let mut event = CallEvent {
            number,
            time,
            session,
            thread: 0,
            ticket: None,
            call: 0,
            enter: None,
            kernel: None,
            arguments: Values {
                name: "call".into(),
                values: Vec::new(),
                undecoded: Some(Malformed("its head is malformed")),
                bytes,
                payload,
            },
        };
        let Some((head, arguments)) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>() else {
            return event;
        };
        let Ok(head) = RecordHead::decode(head) else {
            return event;
        };
        let cut = payload.map_or(0, |payload| payload.length);
        if head.argument_bytes as u64 != (arguments.len() as u64).saturating_add(cut) {
            return event;
        }
        event.thread = head.thread;
        event.ticket = head.ticket;
        event.call = head.call.0;
        event.enter = self
            .entered
            .get(&head.thread)
            .and_then(|entered| entered.last().copied());
        let known = self.schema.call(head.call.0);
        let fields = known.map(|call| (&call.name, &call.inputs[..]));
        event.arguments = values(head.call.0, fields, arguments, message);
        let values = &event.arguments.values[..];
        let function = values.first().and_then(|(_, value)| value.handle());
        if let (Some(call), Some(function)) = (known, function) {
            if call.launches() {
                event.kernel = self.objects.kernel(session, function).cloned();
            }
        }
        let called = Called {
            number,
            call: head.call.0,
        };
        let made = known.map(|call| (call, values));
        self.objects.called(session, head.ticket, called, made);
        event
    }

    fn reply<'a>(&mut self, message: Message<'a>) -> ReplyEvent<'a> {
        let Message {
            time,
            session,
            bytes,
            payload,
        } = message;
        let mut event = ReplyEvent {
            call: None,
            time,
            session,
            ticket: 0,
            status: 0,
            deferred: 0,
            outputs: Values {
                name: "reply".into(),
                values: Vec::new(),
                undecoded: Some(Malformed("its head is malformed")),
                bytes,
                payload,
            },
        };
        let Some((head, outputs)) = bytes.split_first_chunk::<REPLY_HEAD_BYTES>() else {
            return event;
        };
        let head = ReplyHead::decode(head);
        let cut = payload.map_or(0, |payload| payload.length);
        let whole = (outputs.len() as u64).saturating_add(cut);
        if head.body_bytes().map(|bytes| bytes as u64) != Some(whole) {
            return event;
        }
        event.ticket = head.ticket;
        event.status = head.status;
        event.deferred = head.deferred;
        event.call = self.objects.answered(session, head.ticket);
        let number = event.call.map_or(0, |called| called.call);
        let fields = self.schema.call(number).map(|call| {
            // A call that failed has no outputs.
            let none = whole == 0 && head.status != 0;
            let outputs = if none { &[] } else { &call.outputs[..] };
            (&call.name, outputs)
        });
        event.outputs = values(number, fields, outputs, message);
        event
    }
}

fn values<'a>(
    number: u16,
    known: Option<(&Arc<str>, &[Field])>,
    bytes: &'a [u8],
    message: Message<'a>,
) -> Values<'a> {
    let (name, read) = match known {
        Some((name, fields)) => {
            let read = schema::read(fields, bytes, message.payload.as_ref());
            let named = read.map(|values| {
                let names = fields.iter().map(|field| field.name.clone());
                names.zip(values).collect()
            });
            (name.clone(), named)
        }
        None => (
            format!("call {number:#06x}").into(),
            Err(Malformed("the trace's schema does not have this call")),
        ),
    };
    let (values, undecoded) = match read {
        Ok(values) => (values, None),
        Err(malformed) => (Vec::new(), Some(malformed)),
    };
    Values {
        name,
        values,
        undecoded,
        bytes: message.bytes,
        payload: message.payload,
    }
}
