//! Reading an opcode: its parts from left to right, and the macros that turn what was read at
//! lookup time into types and constants of the operation.

/// The operand types of PTX that lane arithmetic knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    U16x2,
    S16x2,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
}

impl Type {
    /// Bits of an integer or float, or of the whole of a pair.
    pub fn width(self) -> u32 {
        match self {
            Type::Pred => 1,
            Type::B8 | Type::U8 | Type::S8 => 8,
            Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 => 16,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => 64,
            _ => 32,
        }
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// The unsigned integer in place of a signed one: what to compute with where the sign makes no
    /// difference. Other types stay.
    pub fn unsigned(self) -> Type {
        match self {
            Type::S8 => Type::U8,
            Type::S16 => Type::U16,
            Type::S32 => Type::U32,
            Type::S64 => Type::U64,
            other => other,
        }
    }

    /// The untyped bits of a number of 16 bits or more.
    pub fn bits(self) -> Option<Type> {
        match self {
            Type::B16 | Type::U16 | Type::S16 => Some(Type::B16),
            Type::B32 | Type::U32 | Type::S32 | Type::F32 => Some(Type::B32),
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => Some(Type::B64),
            _ => None,
        }
    }
}

/// The IEEE rounding of a result, `.rn`, `.rz`, `.rm`, `.rp`, and the same four ways of rounding
/// to an integral value, `.rni`, `.rzi`, `.rmi`, `.rpi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rounding {
    #[default]
    Nearest,
    Zero,
    Down,
    Up,
}

/// The parts of one opcode, read from the left.
pub(super) struct Form<'a> {
    pub opcode: &'a str,
    rest: &'a [&'a str],
    all: &'a [&'a str],
}

impl<'a> Form<'a> {
    pub fn new(parts: &'a [&'a str]) -> Option<Form<'a>> {
        let (opcode, rest) = parts.split_first()?;
        Some(Form {
            opcode,
            rest,
            all: rest,
        })
    }

    /// Whether nothing is left unread. A form with a part that nobody asked for does not exist.
    pub fn is_read(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads `part` if it comes next.
    pub fn eat(&mut self, part: &str) -> bool {
        let found = self.rest.first() == Some(&part);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    /// Reads the next part, whatever it is.
    pub fn next(&mut self) -> Option<&'a str> {
        let (part, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(part)
    }

    /// Reads the next part if it means something to `parse`.
    pub fn parse<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = parse(self.rest.first()?)?;
        self.rest = &self.rest[1..];
        Some(value)
    }

    /// Reads a type.
    pub fn ty(&mut self) -> Option<Type> {
        self.parse(parse_type)
    }

    /// Reads the IEEE rounding; `None` where there is none.
    pub fn rounding(&mut self) -> Option<Rounding> {
        self.parse(|part| {
            Some(match part {
                "rn" => Rounding::Nearest,
                "rz" => Rounding::Zero,
                "rm" => Rounding::Down,
                "rp" => Rounding::Up,
                _ => return None,
            })
        })
    }

    /// Reads the rounding to an integral value; `None` where there is none.
    pub fn integral(&mut self) -> Option<Rounding> {
        self.parse(|part| {
            Some(match part {
                "rni" => Rounding::Nearest,
                "rzi" => Rounding::Zero,
                "rmi" => Rounding::Down,
                "rpi" => Rounding::Up,
                _ => return None,
            })
        })
    }

    /// Whether `part` stands anywhere in the opcode.
    pub fn has(&self, part: &str) -> bool {
        self.all.contains(&part)
    }

    /// Whether any part is as `condition` asks.
    pub fn any(&self, condition: impl Fn(&str) -> bool) -> bool {
        self.all.iter().any(|part| condition(part))
    }

    pub fn ends_in_half(&self) -> bool {
        matches!(
            self.all.last(),
            Some(&("f16" | "f16x2" | "bf16" | "bf16x2"))
        )
    }

    pub fn ends_in_float(&self) -> bool {
        matches!(self.all.last(), Some(&("f32" | "f64")))
    }

    /// Width of the last floating-point type: that of the sources, in every form that has any.
    pub fn float_width(&self) -> Option<u8> {
        self.all.iter().rev().find_map(|part| match *part {
            "f16" | "f16x2" => Some(16),
            "f32" => Some(32),
            "f64" => Some(64),
            _ => None,
        })
    }
}

fn parse_type(part: &str) -> Option<Type> {
    Some(match part {
        "pred" => Type::Pred,
        "b8" => Type::B8,
        "b16" => Type::B16,
        "b32" => Type::B32,
        "b64" => Type::B64,
        "u8" => Type::U8,
        "u16" => Type::U16,
        "u32" => Type::U32,
        "u64" => Type::U64,
        "s8" => Type::S8,
        "s16" => Type::S16,
        "s32" => Type::S32,
        "s64" => Type::S64,
        "u16x2" => Type::U16x2,
        "s16x2" => Type::S16x2,
        "f16" => Type::F16,
        "f16x2" => Type::F16x2,
        "bf16" => Type::Bf16,
        "bf16x2" => Type::Bf16x2,
        "f32" => Type::F32,
        "f64" => Type::F64,
        _ => return None,
    })
}

/// The lane type (see `lane.rs`) of a PTX type.
macro_rules! lane_type {
    (B8) => { u8 };
    (B16) => { u16 };
    (B32) => { u32 };
    (B64) => { u64 };
    (U8) => { u8 };
    (U16) => { u16 };
    (U32) => { u32 };
    (U64) => { u64 };
    (S8) => { i8 };
    (S16) => { i16 };
    (S32) => { i32 };
    (S64) => { i64 };
    (U16x2) => { Pair<u16> };
    (S16x2) => { Pair<i16> };
    (F16) => { F16 };
    (Bf16) => { Bf16 };
    (F32) => { f32 };
    (F64) => { f64 };
}

/// `by_type!(ty, T in U32 S32: binary!(|a: T, b: T| -> T ...))`: the operation for one of the
/// listed types, `None` for any other.
macro_rules! by_type {
    ($ty:expr, $T:ident in $($name:ident)*: $op:expr) => {
        match $ty {
            $(Type::$name => {
                type $T = lane_type!($name);
                Some($op)
            })*
            _ => None,
        }
    };
}

/// `by_flag!(ftz, FTZ: ...)`: the operation with a `bool` known at lookup as its constant.
macro_rules! by_flag {
    ($flag:expr, $NAME:ident: $op:expr) => {
        if $flag {
            const $NAME: bool = true;
            $op
        } else {
            const $NAME: bool = false;
            $op
        }
    };
}

/// `by_rounding!(mode, MODE: ...)`: the operation with the rounding as its constant.
macro_rules! by_rounding {
    ($mode:expr, $NAME:ident: $op:expr) => {
        by_value!($mode, $NAME: Rounding in Nearest Zero Down Up: $op)
    };
}

/// The operation with an enum's value as its constant; after `else`, for values not listed.
macro_rules! by_value {
    ($value:expr, $NAME:ident: $Enum:ident in $($variant:ident)*: $op:expr $(, else $none:expr)?) => {
        match $value {
            $($Enum::$variant => {
                const $NAME: $Enum = $Enum::$variant;
                $op
            })*
            $(_ => $none,)?
        }
    };
}
