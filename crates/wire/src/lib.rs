//! The encoded call stream: what travels, what is recorded, and what a restore issues again.
//!
//! Calls and replies are sequences of [records](record) and [replies](reply), little endian and
//! packed. Arguments are written by [`Encoder`] and read by [`Decoder`], which checks every length
//! against what is there before it believes it. Per call, [`calls`] holds the encoding function and
//! the decoded form, generated from the API spec so that both sides agree.

mod decoder;
mod encoder;
mod function_info;
#[allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
mod generated;
pub mod push;
pub mod record;
pub mod reply;
pub mod twin;
pub mod windows;

pub use decoder::{DecodeError, Decoder, SYNCHRONOUS};
pub use encoder::Encoder;
pub use function_info::{FunctionInfo, Parameter, FUNCTION_ATTRIBUTE_COUNT, PARAMETER_BYTES_MAX};
pub use generated::call_ids::{Because, CallId};
pub use generated::calls;
pub use generated::handle_kinds::HandleKind;

/// The longest record or reply, in bytes after its length word.
pub const RECORD_MAX: usize = 64 << 20;

/// The position of the kind in a wire handle, above its serial number.
pub const HANDLE_KIND_SHIFT: u32 = 56;

impl HandleKind {
    /// The kind that a wire handle's tag names.
    pub fn of(id: u64) -> Option<HandleKind> {
        HandleKind::from_tag((id >> HANDLE_KIND_SHIFT) as u8)
    }

    /// Whether a wire handle is of this kind.
    #[inline]
    pub fn is_of(self, id: u64) -> bool {
        id >> HANDLE_KIND_SHIFT == self as u64
    }

    /// The wire handle of this kind with a serial number below 2^56.
    pub fn handle(self, serial: u64) -> u64 {
        assert!(serial >> HANDLE_KIND_SHIFT == 0);
        (self as u64) << HANDLE_KIND_SHIFT | serial
    }
}
