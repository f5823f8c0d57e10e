//! Scalar types and state spaces.

/// How the bits of a scalar are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `.b…`: untyped bits.
    Bits,
    /// `.u…`
    Unsigned,
    /// `.s…`
    Signed,
    /// `.f…`, `.bf16`, packed halves.
    Float,
    /// `.pred`
    Predicate,
}

/// A fundamental type; `bytes` is its size in memory (0 for predicates).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar {
    pub kind: Kind,
    pub bytes: u32,
}

impl Scalar {
    /// The type named `name` (no dot), if it is one that registers and variables may have.
    pub fn from_name(name: &str) -> Option<Scalar> {
        let (kind, bytes) = match name {
            "b8" => (Kind::Bits, 1),
            "b16" => (Kind::Bits, 2),
            "b32" => (Kind::Bits, 4),
            "b64" => (Kind::Bits, 8),
            "b128" => (Kind::Bits, 16),
            "u8" => (Kind::Unsigned, 1),
            "u16" => (Kind::Unsigned, 2),
            "u32" => (Kind::Unsigned, 4),
            "u64" => (Kind::Unsigned, 8),
            "s8" => (Kind::Signed, 1),
            "s16" => (Kind::Signed, 2),
            "s32" => (Kind::Signed, 4),
            "s64" => (Kind::Signed, 8),
            "f16" | "bf16" => (Kind::Float, 2),
            "f16x2" | "bf16x2" | "f32" => (Kind::Float, 4),
            "f64" => (Kind::Float, 8),
            "pred" => (Kind::Predicate, 0),
            _ => return None,
        };
        Some(Scalar { kind, bytes })
    }
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
}
