//! Makes a trace of lines again: what `harp-trace events --full` has written, changed or not.

use std::collections::HashSet;
use std::io::BufRead;

use harp_wire::reply::ReplyHead;
use harp_wire::{CallId, Encoder, FUNCTION_ATTRIBUTE_COUNT, RECORD_MAX};
use serde_json::{Map, Value as Json};

use super::schema::{Field, Schema, Type};
use super::value::{join_handle, write};
use super::Value;
use crate::block::{Block, Hash, Kind, Kinds, Lost, Message, Payload, Policy, RawBlock};
use crate::container::{hash_of, Manifest, Writer};

/// What is wrong with a line.
type Wrong = String;

/// Writes the trace that `lines` describe to `writer`, and finishes it if they say that it is complete.
///
/// # Errors
/// The number of the line that says no block, and what is wrong with it; what the system says.
pub fn assemble(lines: impl BufRead, mut writer: Writer) -> Result<(), String> {
    let mut assembler = Assembler {
        schema: Schema::default(),
        kept: HashSet::new(),
    };
    let mut complete = None;
    for (index, line) in lines.lines().enumerate() {
        let told = |wrong: Wrong| format!("line {}: {wrong}", index + 1);
        let line = line.map_err(|error| told(error.to_string()))?;
        let event: Map<String, Json> =
            serde_json::from_str(&line).map_err(|error| told(error.to_string()))?;
        if event.get("type").and_then(Json::as_str) == Some("trace") {
            complete = Some(last(&event, &mut writer).map_err(told)?);
            continue;
        }
        assembler.block(event, &mut writer).map_err(told)?;
    }
    match complete {
        None => Err("the lines are cut: the last one is not of type trace".to_owned()),
        Some(false) => writer.flush().map_err(|error| error.to_string()),
        Some(true) => {
            let ended = writer.manifest().ended.clone();
            let finished = writer.finish(ended);
            finished.map(|_| ()).map_err(|error| error.to_string())
        }
    }
}

/// The line that says of the whole; whether it is complete.
fn last(event: &Map<String, Json>, writer: &mut Writer) -> Result<bool, Wrong> {
    if let Some(manifest) = event.get("manifest") {
        let json = manifest.to_string();
        let given = Manifest::decode("manifest", json.as_bytes()).map_err(|e| e.to_string())?;
        // What is counted is what has been written.
        let counts = writer.manifest().counts.clone();
        *writer.manifest_mut() = Manifest { counts, ..given };
    }
    Ok(event.get("complete") == Some(&Json::Bool(true)))
}

struct Assembler {
    schema: Schema,
    kept: HashSet<Hash>,
}

/// The fields of an object.
struct Fields<'a>(&'a Map<String, Json>);

impl<'a> Fields<'a> {
    fn of(value: &'a Json) -> Result<Fields<'a>, Wrong> {
        let object = value.as_object();
        object.map(Fields).ok_or("it is no object".to_owned())
    }

    fn get(&self, key: &str) -> Result<&'a Json, Wrong> {
        self.0.get(key).ok_or_else(|| format!("{key} is missing"))
    }

    fn number<T: TryFrom<u64>>(&self, key: &str) -> Result<T, Wrong> {
        let number = self.get(key)?.as_u64();
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("{key} is no such number"))
    }

    fn text(&self, key: &str) -> Result<&'a str, Wrong> {
        let text = self.get(key)?.as_str();
        text.ok_or_else(|| format!("{key} is no text"))
    }

    fn hex(&self, key: &str) -> Result<Vec<u8>, Wrong> {
        let text = self
            .0
            .get(key)
            .and_then(Json::as_str)
            .ok_or_else(|| format!("{key} is missing: write the lines with --full"))?;
        unhex(text).ok_or_else(|| format!("{key} is not of hexadecimal digits"))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// Whether blocks of that type are an object of JSON, whose fields are those of the line.
fn is_object(kind: &str) -> bool {
    matches!(
        kind,
        "define" | "process" | "session" | "annotation" | "end"
    )
}

impl Assembler {
    fn block(&mut self, event: Map<String, Json>, writer: &mut Writer) -> Result<(), Wrong> {
        let fields = Fields(&event);
        let kind = fields.text("type")?;
        let payload = match event.get("payload") {
            Some(payload) if !is_object(kind) => Some(self.payload(&Fields::of(payload)?, writer)?),
            _ => None,
        };
        if let Some(raw) = event.get("raw") {
            let raw = Fields::of(raw)?;
            let body = raw.hex("hex")?;
            let raw = RawBlock {
                number: raw.number("number")?,
                flags: raw.number("flags")?,
                body: &body,
            };
            if raw.number == Kind::Alike as u16 {
                return Err("blocks of this type tell of others: its lines are theirs".to_owned());
            }
            if let Ok(Block::Define(json)) = Block::decode(raw) {
                self.schema = Schema::parse(json)?;
            }
            return writer.write(raw).map_err(|error| error.to_string());
        }
        let json;
        let bytes;
        let message = |bytes| -> Result<Message, Wrong> {
            Ok(Message {
                time: fields.number("time")?,
                session: fields.number("session")?,
                bytes,
                payload,
            })
        };
        let block = match kind {
            kind if is_object(kind) => {
                let mut object = event.clone();
                object.remove("type");
                json = serde_json::to_vec(&object).map_err(|error| error.to_string())?;
                match kind {
                    "define" => {
                        self.schema = Schema::parse(&json)?;
                        Block::Define(&json)
                    }
                    "process" => Block::Process(&json),
                    "session" => Block::Session(&json),
                    "annotation" => Block::Annotation(&json),
                    _ => Block::End(&json),
                }
            }
            "thread" => Block::Thread {
                thread: fields.number("thread")?,
                tid: fields.number("tid")?,
                name: fields.text("name")?.as_bytes(),
            },
            "enter" => Block::Enter {
                time: fields.number("time")?,
                thread: fields.number("thread")?,
                symbol: fields.number("symbol")?,
            },
            "leave" => Block::Leave {
                time: fields.number("time")?,
                thread: fields.number("thread")?,
                result: fields.number("result")?,
            },
            "call" => {
                bytes = self.call(&fields, payload.as_ref())?;
                Block::Call(message(&bytes)?)
            }
            "reply" => {
                bytes = self.reply(&fields, payload.as_ref())?;
                Block::Reply(message(&bytes)?)
            }
            "push" => {
                bytes = Fields::of(fields.get("wire")?)?.hex("hex")?;
                Block::Push(message(&bytes)?)
            }
            "wait" => Block::Wait {
                began: fields.number("began")?,
                ended: fields.number("ended")?,
                thread: fields.number("thread")?,
                session: fields.number("session")?,
                ticket: fields.number("ticket")?,
                reason: fields.number("reason")?,
                call: fields.number("id")?,
            },
            "allocation" => Block::Allocation {
                time: fields.number("time")?,
                session: fields.number("session")?,
                device: fields.number("device")?,
                address: fields.number("address")?,
                bytes: fields.number("bytes")?,
            },
            "free" => Block::Free {
                time: fields.number("time")?,
                session: fields.number("session")?,
                address: fields.number("address")?,
            },
            "loss" => Block::Loss {
                time: fields.number("time")?,
                lost: Lost {
                    reasons: fields.number("bits")?,
                    blocks: fields.number("blocks")?,
                    bytes: fields.number("bytes")?,
                    kinds: match fields.0.contains_key("type_bits") {
                        true => Kinds(fields.number("type_bits")?),
                        false => Kinds::UNKNOWN,
                    },
                },
            },
            "snapshot" => Block::Snapshot {
                session: fields.number("session")?,
                device: fields.number("device")?,
                address: fields.number("address")?,
                bytes: fields.number("bytes")?,
                payload: payload.ok_or("payload is missing")?,
            },
            "device_time" => Block::DeviceTime {
                session: fields.number("session")?,
                call: fields.number("call")?,
                began: fields.number("began")?,
                ended: fields.number("ended")?,
            },
            other => return Err(format!("there is no event of type {other:?}")),
        };
        writer
            .write_block(&block)
            .map_err(|error| error.to_string())
    }

    fn payload(&mut self, fields: &Fields, writer: &mut Writer) -> Result<Payload, Wrong> {
        let policy = Policy::from_name(fields.text("policy")?);
        let policy = policy.ok_or("there is no such payload policy")?;
        let hash = match policy.has_hash() {
            true => hash_of(fields.text("hash")?).ok_or("hash is none")?,
            false => [0; 32],
        };
        if policy == Policy::Full && !self.kept.contains(&hash) {
            let content = fields.hex("hex")?;
            let kept = writer.keep(&content).map_err(|error| error.to_string())?;
            if kept != hash {
                return Err("the payload's content has another hash than it says".to_owned());
            }
            self.kept.insert(hash);
        }
        Ok(Payload {
            policy,
            length: fields.number("bytes")?,
            hash,
        })
    }

    fn call(&self, fields: &Fields, payload: Option<&Payload>) -> Result<Vec<u8>, Wrong> {
        let name = fields.text("name")?;
        let (number, call) = self
            .schema
            .named(name)
            .ok_or_else(|| format!("the schema has no call {name}"))?;
        let arguments = self.values(&call.inputs, fields.get("args")?, payload)?;
        let ticket = match fields.get("ticket")? {
            Json::Null => None,
            _ => Some(fields.number("ticket")?),
        };
        if ticket == Some(0) {
            return Err("ticket is 0, which none is".to_owned());
        }
        let cut = cut_bytes(payload)?;
        let mut encoder = Encoder::new();
        let start = encoder.begin_record(CallId(number), ticket, fields.number("thread")?);
        let most = RECORD_MAX - encoder.len();
        if arguments.len() + cut > most {
            return Err("the call is longer than any may be".to_owned());
        }
        encoder.end_record_with(start, arguments.len() + cut);
        let mut record = encoder.into_bytes();
        record.extend_from_slice(&arguments);
        Ok(record)
    }

    fn reply(&self, fields: &Fields, payload: Option<&Payload>) -> Result<Vec<u8>, Wrong> {
        let name = fields.text("name")?;
        let (_, call) = self
            .schema
            .named(name)
            .ok_or_else(|| format!("the schema has no call {name}"))?;
        let outs = fields.get("outs")?;
        // A call that failed has none.
        let none = outs.as_object().is_some_and(Map::is_empty);
        let outputs = if none { &[] } else { &call.outputs[..] };
        let outputs = self.values(outputs, outs, payload)?;
        let body_bytes = outputs.len() + cut_bytes(payload)?;
        if body_bytes > RECORD_MAX - 12 {
            return Err("the reply is longer than any may be".to_owned());
        }
        let (ticket, status) = (fields.number("ticket")?, fields.number("status")?);
        let head = ReplyHead::new(ticket, status, fields.number("deferred")?, body_bytes);
        let mut reply = head.encode().to_vec();
        reply.extend_from_slice(&outputs);
        Ok(reply)
    }

    fn values(
        &self,
        fields: &[Field],
        given: &Json,
        payload: Option<&Payload>,
    ) -> Result<Vec<u8>, Wrong> {
        let given = Fields::of(given)?;
        let last = fields.iter().rposition(|field| field.kind == Type::Bytes);
        let cut = last.filter(|_| payload.is_some());
        let mut bytes = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            let value = match payload.filter(|_| cut == Some(index)) {
                Some(payload) => Some(Value::Payload(payload.length)),
                None => self.value(&field.kind, given.get(&field.name)?),
            };
            value
                .and_then(|value| write(&field.kind, &value, &mut bytes))
                .ok_or_else(|| format!("{} is no value of its type", field.name))?;
        }
        Ok(bytes)
    }

    fn value(&self, kind: &Type, given: &Json) -> Option<Value<'static>> {
        Some(match kind {
            Type::Unsigned(size) => {
                let number = given.as_u64()?;
                let bits = 8 * *size as u32;
                (bits == 64 || number >> bits == 0).then_some(Value::Unsigned(number))?
            }
            Type::Signed(size) => {
                let number = given.as_i64()?;
                let limit = 1i128 << (8 * size - 1);
                (-limit..limit)
                    .contains(&i128::from(number))
                    .then_some(Value::Signed(number))?
            }
            Type::Float => Value::Float(given.as_f64()? as f32),
            Type::DevicePointer => Value::DevicePointer(given.get("address")?.as_u64()?),
            Type::Bytes => Value::Bytes(unhex(given.get("hex")?.as_str()?)?.into()),
            Type::Text => Value::Text(given.as_str()?.as_bytes().to_vec().into()),
            Type::Stream { .. } | Type::Handle { .. } => match given {
                Json::Null => Value::None,
                Json::Number(number) => Value::Unsigned(number.as_u64()?),
                handle => {
                    let kind = handle.get("kind")?;
                    let tag = match kind.as_str() {
                        Some(kind) => self.schema.tag(kind)?,
                        None => u8::try_from(kind.as_u64()?).ok()?,
                    };
                    Value::Handle(join_handle(tag, handle.get("id")?.as_u64()?))
                }
            },
            Type::FunctionInfo => {
                let param = |param: &Json| {
                    let number = |key| u32::try_from(param.get(key)?.as_u64()?).ok();
                    Some((number("offset")?, number("size")?))
                };
                let params = given.get("params")?.as_array()?.iter().map(param);
                let given = given.get("attributes")?.as_array()?;
                let mut attributes = Box::new([0; FUNCTION_ATTRIBUTE_COUNT]);
                if given.len() != attributes.len() {
                    return None;
                }
                for (place, value) in attributes.iter_mut().zip(given) {
                    *place = i32::try_from(value.as_i64()?).ok()?;
                }
                Value::FunctionInfo {
                    params: params.collect::<Option<_>>()?,
                    attributes,
                }
            }
            Type::Array(item, _) | Type::List(item) => {
                let items = given.as_array()?.iter();
                let items: Option<_> = items.map(|given| self.value(item, given)).collect();
                Value::List(items?)
            }
            Type::Unknown(_) => return None,
        })
    }
}

/// The bytes that a payload had on the wire.
fn cut_bytes(payload: Option<&Payload>) -> Result<usize, Wrong> {
    let length = payload.map_or(0, |payload| payload.length);
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= RECORD_MAX)
        .ok_or("the payload is longer than any may be".to_owned())
}
