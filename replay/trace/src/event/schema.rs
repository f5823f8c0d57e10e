//! How calls are encoded, as the trace itself says it.
//!
//! The first block of a trace holds the call schema of the program that wrote it (proto/trace/schema.json),
//! so that a reader needs no code that was generated for it. The names of types are those of
//! proto/src/harp_spec/codecs.py.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use super::value::Reading;
use super::Value;
use crate::block::{Malformed, Payload};

/// Lists within lists, and such, have at most this depth.
const DEPTH_MAX: usize = 4;
/// The most items of an array of fixed length.
const ARRAY_MAX: usize = 4096;

/// How one value is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// An unsigned integer of so many bytes.
    Unsigned(usize),
    /// A signed integer of so many bytes.
    Signed(usize),
    Float,
    DevicePointer,
    Bytes,
    Text,
    /// A created stream, or 0, 1, 2 for the default ones; u64::MAX for none where `copy` is set.
    Stream {
        tag: u8,
        copy: bool,
    },
    FunctionInfo,
    /// A handle whose kind has one of these tags; 0 for none where `optional` is set.
    Handle {
        tags: Vec<u8>,
        optional: bool,
    },
    Array(Box<Type>, usize),
    List(Box<Type>),
    /// A type that this reader does not know.
    Unknown(Arc<str>),
}

/// An argument or an output.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: Arc<str>,
    pub kind: Type,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: Arc<str>,
    /// The part of the API that it belongs to.
    pub area: Arc<str>,
    pub inputs: Arc<[Field]>,
    pub outputs: Arc<[Field]>,
    /// How it is recorded: `value`, `blob` or `skip`.
    pub record: Arc<str>,
    /// Whether it starts a kernel, which its first argument names.
    pub launches: bool,
    /// Whether it makes a function or kernel known, which its first argument names.
    pub introduces_kernel: bool,
}

/// What a trace says of its own calls and names.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    calls: BTreeMap<u16, Call>,
    kinds: HashMap<u8, Arc<str>>,
    symbols: Vec<Arc<str>>,
    reasons: Vec<Arc<str>>,
}

#[derive(Deserialize)]
struct WrittenField {
    name: Arc<str>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct WrittenCall {
    id: u16,
    name: Arc<str>,
    #[serde(default)]
    area: Arc<str>,
    #[serde(default)]
    record: Arc<str>,
    #[serde(default)]
    inputs: Vec<WrittenField>,
    #[serde(default)]
    outputs: Vec<WrittenField>,
}

#[derive(Deserialize)]
struct Written {
    handle_kinds: HashMap<String, u8>,
    calls: Vec<WrittenCall>,
    #[serde(default)]
    symbols: Vec<Arc<str>>,
    #[serde(default)]
    reasons: Vec<Arc<str>>,
}

impl Schema {
    /// Reads the body of a `Define` block.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Schema, String> {
        let written: Written = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let tags = &written.handle_kinds;
        let fields = |fields: Vec<WrittenField>| -> Arc<[Field]> {
            let field = |field: WrittenField| Field {
                kind: parse_type(&field.kind, tags, 0)
                    .unwrap_or_else(|| Type::Unknown(field.kind.into())),
                name: field.name,
            };
            fields.into_iter().map(field).collect()
        };
        let calls = written.calls.into_iter().map(|call| {
            let (inputs, outputs) = (fields(call.inputs), fields(call.outputs));
            let takes = |name: &str| inputs.iter().any(|field| &*field.name == name);
            let is_info = |field: &Field| field.kind == Type::FunctionInfo;
            let known = Call {
                name: call.name,
                area: call.area,
                record: call.record,
                launches: takes("function") && takes("grid") && takes("params"),
                introduces_kernel: outputs.iter().any(is_info),
                inputs,
                outputs,
            };
            (call.id, known)
        });
        let calls = calls.collect();
        let kinds = tags.iter().map(|(name, tag)| (*tag, name.as_str().into()));
        Ok(Schema {
            calls,
            kinds: kinds.collect(),
            symbols: written.symbols,
            reasons: written.reasons,
        })
    }

    pub fn call(&self, number: u16) -> Option<&Call> {
        self.calls.get(&number)
    }

    /// The call of that name, and its number.
    pub fn named(&self, name: &str) -> Option<(u16, &Call)> {
        let mut calls = self.calls.iter();
        let found = calls.find(|(_, call)| &*call.name == name);
        found.map(|(number, call)| (*number, call))
    }

    /// What the kind of a handle is called.
    pub fn kind(&self, tag: u8) -> Option<&Arc<str>> {
        self.kinds.get(&tag)
    }

    /// The tag of a kind of handles.
    pub fn tag(&self, kind: &str) -> Option<u8> {
        let mut kinds = self.kinds.iter();
        kinds
            .find(|(_, name)| &***name == kind)
            .map(|(tag, _)| *tag)
    }

    /// The driver's function that an `Enter` block names.
    pub fn symbol(&self, number: u16) -> Option<&Arc<str>> {
        self.symbols.get(usize::from(number))
    }

    /// Why a program waited, as a `Wait` block says it.
    pub fn reason(&self, number: u16) -> Option<&Arc<str>> {
        self.reasons.get(usize::from(number))
    }
}

fn parse_type(name: &str, tags: &HashMap<String, u8>, depth: usize) -> Option<Type> {
    if depth > DEPTH_MAX {
        return None;
    }
    let within = |prefix: &str| name.strip_prefix(prefix)?.strip_suffix(')');
    let handle = |kinds: &str, optional| {
        let tags: Option<Vec<u8>> = kinds
            .split('|')
            .map(|kind| tags.get(kind).copied())
            .collect();
        Some(Type::Handle {
            tags: tags?,
            optional,
        })
    };
    if let Some(kinds) = within("handle(") {
        return handle(kinds, false);
    }
    if let Some(kind) = within("handle_or_none(") {
        return handle(kind, true);
    }
    if let Some(item) = within("list(") {
        return Some(Type::List(Box::new(parse_type(item, tags, depth + 1)?)));
    }
    if let Some((item, count)) = name
        .strip_suffix(']')
        .and_then(|name| name.rsplit_once('['))
    {
        let count: usize = count.parse().ok()?;
        let item = Box::new(parse_type(item, tags, depth + 1)?);
        return (1..=ARRAY_MAX)
            .contains(&count)
            .then_some(Type::Array(item, count));
    }
    Some(match name {
        "u8" => Type::Unsigned(1),
        "u16" => Type::Unsigned(2),
        "u32" => Type::Unsigned(4),
        "u64" => Type::Unsigned(8),
        "i32" => Type::Signed(4),
        "i64" => Type::Signed(8),
        "f32" => Type::Float,
        "device_pointer" => Type::DevicePointer,
        "bytes" | "payload" => Type::Bytes,
        "text" => Type::Text,
        "stream" | "copy_stream" => Type::Stream {
            tag: *tags.get("Stream")?,
            copy: name == "copy_stream",
        },
        "function_info" => Type::FunctionInfo,
        _ => return None,
    })
}

/// The values of `fields` in `bytes`, from which the content of the last run of bytes has been cut out
/// if there is a `payload`.
///
/// # Errors
/// Where the bytes are not those of such values.
pub fn read<'a>(
    fields: &[Field],
    bytes: &'a [u8],
    payload: Option<&Payload>,
) -> Result<Vec<Value<'a>>, Malformed> {
    let mut reading = Reading::new(bytes);
    let cut = match payload {
        Some(payload) => {
            let last = fields.iter().rposition(|field| field.kind == Type::Bytes);
            let last = last.ok_or(Malformed("a payload was cut out of a call that has none"))?;
            Some((last, payload.length))
        }
        None => None,
    };
    let mut values = Vec::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        values.push(match cut {
            Some((last, length)) if last == index => reading.cut(length)?,
            _ => reading.value(&field.kind)?,
        });
    }
    reading.finish()?;
    Ok(values)
}
