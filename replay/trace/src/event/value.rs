//! Values of calls: read from the bytes of the wire, and written as them again.

use std::borrow::Cow;

use harp_wire::{FUNCTION_ATTRIBUTE_COUNT, HANDLE_KIND_SHIFT, SYNCHRONOUS};

use super::schema::Type;
use crate::block::Malformed;

/// The most values of one call; a call with more is left as bytes.
const VALUES_MAX: usize = 1 << 20;
/// The greatest stream argument that is a value and not a handle.
const LAST_SPECIAL_STREAM: u64 = 2;
const CUT_SHORT: Malformed = Malformed("its values are cut short");

/// A value of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f32),
    /// A capture id: the kind's tag in the top byte, a serial number below.
    Handle(u64),
    /// No handle, or no stream.
    None,
    DevicePointer(u64),
    Bytes(Cow<'a, [u8]>),
    /// The bytes of a payload, which are not in the record.
    Payload(u64),
    /// Without the NUL at its end.
    Text(Cow<'a, [u8]>),
    List(Vec<Value<'a>>),
    FunctionInfo {
        /// Offset and size of each parameter.
        params: Vec<(u32, u32)>,
        // Apart, so that the values of most calls are small.
        attributes: Box<[i32; FUNCTION_ATTRIBUTE_COUNT]>,
    },
}

impl Value<'_> {
    /// The number that an unsigned one is.
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Value::Unsigned(number) => Some(*number),
            _ => None,
        }
    }

    /// The address of a device pointer.
    pub fn address(&self) -> Option<u64> {
        match self {
            Value::DevicePointer(address) => Some(*address),
            _ => None,
        }
    }

    /// The capture id of a handle.
    pub fn handle(&self) -> Option<u64> {
        match self {
            Value::Handle(id) => Some(*id),
            _ => None,
        }
    }
}

/// The tag of a capture id's kind, and its serial number.
pub fn split_handle(id: u64) -> (u8, u64) {
    let serial = id & ((1 << HANDLE_KIND_SHIFT) - 1);
    ((id >> HANDLE_KIND_SHIFT) as u8, serial)
}

/// The capture id of a kind's tag and a serial number.
pub fn join_handle(tag: u8, serial: u64) -> u64 {
    u64::from(tag) << HANDLE_KIND_SHIFT | serial & ((1 << HANDLE_KIND_SHIFT) - 1)
}

/// Reads values one after the other.
pub struct Reading<'a> {
    rest: &'a [u8],
    values: usize,
}

impl<'a> Reading<'a> {
    pub fn new(bytes: &'a [u8]) -> Reading<'a> {
        Reading {
            rest: bytes,
            values: 0,
        }
    }

    pub fn finish(&self) -> Result<(), Malformed> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(Malformed("there is more than its values")),
        }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let taken = usize::try_from(count)
            .ok()
            .and_then(|count| self.rest.split_at_checked(count));
        let (taken, rest) = taken.ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn unsigned(&mut self, size: usize) -> Result<u64, Malformed> {
        // Of most values the size is one of these, and a copy of so many bytes is an instruction.
        match size {
            4 => self.u32().map(u64::from),
            8 => self.u64(),
            _ => {
                let mut bytes = [0; 8];
                bytes[..size].copy_from_slice(self.take(size as u64)?);
                Ok(u64::from_le_bytes(bytes))
            }
        }
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A run of `length` bytes that has been cut out.
    pub fn cut(&mut self, length: u64) -> Result<Value<'a>, Malformed> {
        match self.u64()? == length {
            true => Ok(Value::Payload(length)),
            false => Err(Malformed("its payload has another length than it says")),
        }
    }

    pub fn value(&mut self, kind: &Type) -> Result<Value<'a>, Malformed> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Malformed("it has too many values"));
        }
        Ok(match kind {
            Type::Unsigned(size) => Value::Unsigned(self.unsigned(*size)?),
            Type::Signed(size) => {
                let shift = 64 - 8 * size;
                Value::Signed(((self.unsigned(*size)? << shift) as i64) >> shift)
            }
            Type::Float => Value::Float(f32::from_bits(self.u32()?)),
            Type::DevicePointer => Value::DevicePointer(self.u64()?),
            Type::Bytes => {
                let length = self.u64()?;
                Value::Bytes(self.take(length)?.into())
            }
            Type::Text => {
                let length = self.u32()?;
                let bytes = self.take(u64::from(length))?;
                match bytes.split_last() {
                    Some((0, text)) if !text.contains(&0) => Value::Text(text.into()),
                    _ => return Err(Malformed("a string is not terminated where it ends")),
                }
            }
            Type::Stream { tag, copy } => match self.u64()? {
                SYNCHRONOUS if *copy => Value::None,
                special if special <= LAST_SPECIAL_STREAM => Value::Unsigned(special),
                id if split_handle(id).0 == *tag => Value::Handle(id),
                _ => return Err(Malformed("a stream is none")),
            },
            Type::FunctionInfo => {
                let Value::List(params) = self.list(&Type::Array(Type::Unsigned(4).into(), 2))?
                else {
                    return Err(Malformed("it is no function"));
                };
                let param = |param: &Value| match param {
                    Value::List(pair) => match pair[..] {
                        [Value::Unsigned(offset), Value::Unsigned(size)] => {
                            (offset as u32, size as u32)
                        }
                        _ => (0, 0),
                    },
                    _ => (0, 0),
                };
                let mut attributes = Box::new([0; FUNCTION_ATTRIBUTE_COUNT]);
                for attribute in attributes.iter_mut() {
                    *attribute = self.u32()? as i32;
                }
                Value::FunctionInfo {
                    params: params.iter().map(param).collect(),
                    attributes,
                }
            }
            Type::Handle { tags, optional } => match self.u64()? {
                0 if *optional => Value::None,
                id if tags.contains(&split_handle(id).0) => Value::Handle(id),
                _ => return Err(Malformed("a handle is of another kind")),
            },
            Type::Array(item, count) => {
                let mut items = Vec::with_capacity(*count);
                for _ in 0..*count {
                    items.push(self.value(item)?);
                }
                Value::List(items)
            }
            Type::List(item) => self.list(item)?,
            Type::Unknown(_) => return Err(Malformed("one of its types is not known")),
        })
    }

    fn list(&mut self, item: &Type) -> Result<Value<'a>, Malformed> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.value(item)?);
        }
        Ok(Value::List(items))
    }
}

/// Appends the bytes that `value` has on the wire; `None` for one that is not of this type.
pub fn write(kind: &Type, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    let mut word = |word: u64, size: usize| out.extend_from_slice(&word.to_le_bytes()[..size]);
    match (kind, value) {
        (Type::Unsigned(size), Value::Unsigned(number)) => word(*number, *size),
        (Type::Signed(size), Value::Signed(number)) => word(*number as u64, *size),
        (Type::Float, Value::Float(number)) => word(u64::from(number.to_bits()), 4),
        (Type::DevicePointer, Value::DevicePointer(address)) => word(*address, 8),
        (Type::Stream { .. }, Value::Handle(id) | Value::Unsigned(id)) => word(*id, 8),
        (Type::Stream { copy: true, .. }, Value::None) => word(SYNCHRONOUS, 8),
        (Type::Handle { .. }, Value::Handle(id)) => word(*id, 8),
        (Type::Handle { optional: true, .. }, Value::None) => word(0, 8),
        (Type::Bytes, Value::Payload(length)) => word(*length, 8),
        (Type::Bytes, Value::Bytes(bytes)) => {
            word(bytes.len() as u64, 8);
            out.extend_from_slice(bytes);
        }
        (Type::Text, Value::Text(text)) => {
            word(text.len() as u64 + 1, 4);
            out.extend_from_slice(text);
            out.push(0);
        }
        (Type::FunctionInfo, Value::FunctionInfo { params, attributes }) => {
            word(params.len() as u64, 4);
            for (offset, size) in params {
                word(u64::from(*offset), 4);
                word(u64::from(*size), 4);
            }
            attributes.iter().for_each(|value| word(*value as u64, 4));
        }
        (Type::Array(item, count), Value::List(items)) if items.len() == *count => {
            return items.iter().try_for_each(|value| write(item, value, out));
        }
        (Type::List(item), Value::List(items)) => {
            word(items.len() as u64, 4);
            return items.iter().try_for_each(|value| write(item, value, out));
        }
        _ => return None,
    }
    Some(())
}
