//! What a client learns of a kernel when it looks one up, so that launches need no questions.

use crate::{DecodeError, Decoder, Encoder};

/// The `CUfunction_attribute` values 0 to 15 travel with a function.
pub const FUNCTION_ATTRIBUTE_COUNT: usize = 16;

/// The most bytes that the parameters of a kernel take on any device.
pub const PARAMETER_BYTES_MAX: u32 = 32764;

/// Where one kernel parameter lies in the parameter buffer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub offset: u32,
    pub size: u32,
}

/// The parameters and attributes of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionInfo {
    pub params: Vec<Parameter>,
    /// By `CUfunction_attribute`; `i32::MIN` for one that the driver does not have.
    pub attributes: [i32; FUNCTION_ATTRIBUTE_COUNT],
}

impl FunctionInfo {
    const PARAMETER_BYTES: usize = 8;

    pub fn encode(&self, e: &mut Encoder) {
        e.list(&self.params, |e, param| {
            e.u32(param.offset);
            e.u32(param.size);
        });
        self.attributes.iter().for_each(|value| e.i32(*value));
    }

    /// A layout that no kernel has is refused: a launch copies what it says from the program's memory.
    pub fn read(d: &mut Decoder) -> FunctionInfo {
        let mut end = 0;
        let params = d.list(Self::PARAMETER_BYTES, |d| {
            let (offset, size) = (d.u32(), d.u32());
            let starts_behind = offset >= end;
            end = offset.saturating_add(size);
            if !starts_behind || end > PARAMETER_BYTES_MAX {
                d.fail(DecodeError::ImpossibleParameters);
            }
            Parameter { offset, size }
        });
        FunctionInfo {
            params,
            attributes: core::array::from_fn(|_| d.i32()),
        }
    }

    /// The size of the parameter buffer in bytes.
    pub fn param_bytes(&self) -> usize {
        let end = |param: &Parameter| param.offset as usize + param.size as usize;
        self.params.iter().map(end).max().unwrap_or(0)
    }
}
