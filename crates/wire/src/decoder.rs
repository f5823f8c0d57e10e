//! Reading of what the other side wrote, without trusting it.

use core::ffi::CStr;
use core::fmt;

use crate::HandleKind;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end before the value does, or a length names more than there is.
    Truncated,
    /// They go on after the last argument.
    TrailingBytes,
    /// A handle of another kind, or none, where a call wants one of `kind`.
    WrongHandle { kind: HandleKind, id: u64 },
    /// A string that does not end with its only NUL.
    MalformedText,
    /// A record or reply head with impossible fields.
    MalformedHead,
    /// Parameters of a kernel that overlap, or reach further than any may.
    ImpossibleParameters,
    /// A call number that the spec does not have.
    UnknownCall(u16),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated => write!(f, "the encoded call is cut short"),
            DecodeError::TrailingBytes => write!(f, "the encoded call is too long"),
            DecodeError::WrongHandle { kind, id } => {
                write!(f, "the handle {id:#x} is not a {kind:?}")
            }
            DecodeError::MalformedText => write!(f, "a string is not terminated where it ends"),
            DecodeError::MalformedHead => write!(f, "a record's head is malformed"),
            DecodeError::ImpossibleParameters => {
                write!(f, "no kernel has parameters that lie like these")
            }
            DecodeError::UnknownCall(number) => write!(f, "there is no call number {number:#06x}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The greatest stream argument that is a value and not a handle: 0 the default stream, 1 the
/// legacy one, 2 the thread's own.
const LAST_SPECIAL_STREAM: u64 = 2;
/// The stream argument of a copy that CUDA calls synchronous.
pub const SYNCHRONOUS: u64 = u64::MAX;

/// A cursor over encoded values.
///
/// The first error sticks: from then on every value is zero or empty and nothing is consumed, so a
/// caller reads all arguments straight through and asks [`finish`](Decoder::finish) once.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    error: Option<DecodeError>,
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder {
            rest: bytes,
            error: None,
        }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether all that was read so far was there, and nothing is left over.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.error {
            Some(error) => Err(error),
            None if self.rest.is_empty() => Ok(()),
            None => Err(DecodeError::TrailingBytes),
        }
    }

    #[cold]
    pub(crate) fn fail(&mut self, error: DecodeError) {
        self.error.get_or_insert(error);
        self.rest = &[];
    }

    #[inline]
    fn take(&mut self, len: usize) -> &'a [u8] {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                taken
            }
            None => {
                self.fail(DecodeError::Truncated);
                &[]
            }
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk() {
            Some((array, rest)) => {
                self.rest = rest;
                *array
            }
            None => {
                self.fail(DecodeError::Truncated);
                [0; N]
            }
        }
    }

    /// A run of bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = self.u64();
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A C string.
    pub fn text(&mut self) -> &'a CStr {
        let len = self.u32() as usize;
        let bytes = self.take(len);
        if self.error.is_some() {
            return c"";
        }
        CStr::from_bytes_with_nul(bytes).unwrap_or_else(|_| {
            self.fail(DecodeError::MalformedText);
            c""
        })
    }

    /// A sequence whose items take at least `item_bytes` each, so that no more memory is set aside
    /// than the bytes at hand can fill.
    pub fn list<T>(&mut self, item_bytes: usize, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.u32() as usize;
        if count.saturating_mul(item_bytes.max(1)) > self.rest.len() {
            self.fail(DecodeError::Truncated);
            return Vec::new();
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// A wire handle of `kind`.
    #[inline]
    pub fn handle(&mut self, kind: HandleKind) -> u64 {
        self.handle_of(&[kind])
    }

    /// A wire handle of one of `kinds`, of which there is at least one.
    #[inline]
    pub fn handle_of(&mut self, kinds: &[HandleKind]) -> u64 {
        self.handle_or(kinds, |_| false)
    }

    /// A wire handle of `kind`, or 0 for none.
    #[inline]
    pub fn handle_or_none(&mut self, kind: HandleKind) -> u64 {
        self.handle_or(&[kind], |id| id == 0)
    }

    /// A stream's wire handle, or one of CUDA's values 0, 1, 2 for the default streams.
    #[inline]
    pub fn stream(&mut self) -> u64 {
        self.handle_or(&[HandleKind::Stream], |id| id <= LAST_SPECIAL_STREAM)
    }

    /// As [`stream`](Decoder::stream), or u64::MAX for the synchronous form of a copy.
    #[inline]
    pub fn copy_stream(&mut self) -> u64 {
        self.handle_or(&[HandleKind::Stream], |id| {
            id <= LAST_SPECIAL_STREAM || id == SYNCHRONOUS
        })
    }

    /// A wire handle of one of `kinds`, or a value that is `special`.
    #[inline]
    fn handle_or(&mut self, kinds: &[HandleKind], special: impl FnOnce(u64) -> bool) -> u64 {
        let id = self.u64();
        let is_one = kinds.iter().any(|kind| kind.is_of(id));
        if is_one || special(id) || self.error.is_some() {
            return id;
        }
        self.fail(DecodeError::WrongHandle { kind: kinds[0], id });
        0
    }
}

macro_rules! scalars {
    ($($name:ident $several:ident,)*) => {
        impl Decoder<'_> {
            $(
                #[inline]
                pub fn $name(&mut self) -> $name {
                    $name::from_le_bytes(self.array())
                }

                /// So many numbers, looked for at once.
                #[inline]
                pub fn $several<const N: usize>(&mut self) -> [$name; N] {
                    let bytes = self.take(N * size_of::<$name>());
                    let mut numbers = [$name::default(); N];
                    for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
                        *number = $name::from_le_bytes(*bytes);
                    }
                    numbers
                }
            )*
        }
    };
}

scalars!(u8 u8s, u16 u16s, u32 u32s, u64 u64s, i32 i32s, i64 i64s, f32 f32s, f64 f64s,);
