//! Integer arithmetic: sums, products, quotients, extrema.

use super::form::{Form, Type};
use super::lane::Pair;
use super::run::Op;

/// Integers with a product of twice their width.
pub(super) trait Product: Sized {
    type Wide;
    fn wide_product(self, other: Self) -> Self::Wide;
    /// The upper half of the product.
    fn high_product(self, other: Self) -> Self;
}

macro_rules! products {
    ($($type:ty => $Wide:ty;)*) => {$(
        impl Product for $type {
            type Wide = $Wide;
            #[inline(always)]
            fn wide_product(self, other: Self) -> $Wide {
                self as $Wide * other as $Wide
            }
            #[inline(always)]
            fn high_product(self, other: Self) -> Self {
                (self.wide_product(other) >> Self::BITS) as Self
            }
        }
    )*};
}

products! {
    u16 => u32;
    i16 => i32;
    u32 => u64;
    i32 => i64;
    u64 => u128;
    i64 => i128;
}

/// Division as the device does it: by zero it gives all ones, for the quotient and the remainder,
/// and the least integer by -1 is itself.
trait Divide: Sized {
    fn quotient(self, by: Self) -> Self;
    fn remainder(self, by: Self) -> Self;
}

/// 2^52: the doubles from here to 2^53 are the integers, with them in their low bits.
const INTEGERS: f64 = 4503599627370496.0;

/// `a / b` in doubles, which is exact: a quotient of 32-bit integers that is not an integer is
/// further from the next one than the rounding error. All of it vectorises.
#[inline(always)]
fn quotient_u32(a: u32, b: u32) -> u32 {
    let double = |x: u32| f64::from_bits(INTEGERS.to_bits() | u64::from(x)) - INTEGERS;
    let quotient = double(a) / double(b);
    let nearest = (quotient + INTEGERS) - INTEGERS;
    let floor = if nearest > quotient {
        nearest - 1.0
    } else {
        nearest
    };
    if b == 0 {
        u32::MAX
    } else {
        (floor + INTEGERS).to_bits() as u32
    }
}

impl Divide for u32 {
    #[inline(always)]
    fn quotient(self, by: u32) -> u32 {
        quotient_u32(self, by)
    }
    #[inline(always)]
    fn remainder(self, by: u32) -> u32 {
        let rest = self.wrapping_sub(quotient_u32(self, by).wrapping_mul(by));
        if by == 0 {
            u32::MAX
        } else {
            rest
        }
    }
}

impl Divide for i32 {
    #[inline(always)]
    fn quotient(self, by: i32) -> i32 {
        let magnitude = quotient_u32(self.unsigned_abs(), by.unsigned_abs()) as i32;
        let sign = (self ^ by) >> 31;
        if by == 0 {
            -1
        } else {
            (magnitude ^ sign).wrapping_sub(sign)
        }
    }
    #[inline(always)]
    fn remainder(self, by: i32) -> i32 {
        let rest = self.wrapping_sub(self.quotient(by).wrapping_mul(by));
        if by == 0 {
            -1
        } else {
            rest
        }
    }
}

macro_rules! divide_through_32 {
    ($($type:ty as $Wide:ty;)*) => {$(
        impl Divide for $type {
            #[inline(always)]
            fn quotient(self, by: Self) -> Self {
                (self as $Wide).quotient(by as $Wide) as Self
            }
            #[inline(always)]
            fn remainder(self, by: Self) -> Self {
                (self as $Wide).remainder(by as $Wide) as Self
            }
        }
    )*};
}

divide_through_32! {
    u16 as u32;
    i16 as i32;
}

macro_rules! divide_in_machine {
    ($($type:ty;)*) => {$(
        impl Divide for $type {
            #[inline(always)]
            fn quotient(self, by: Self) -> Self {
                if by == 0 { !0 } else { self.wrapping_div(by) }
            }
            #[inline(always)]
            fn remainder(self, by: Self) -> Self {
                if by == 0 { !0 } else { self.wrapping_rem(by) }
            }
        }
    )*};
}

divide_in_machine! {
    u64;
    i64;
}

/// The low 24 bits, sign or zero extended, and the product's upper 32 of 48 bits.
trait Low24: Sized {
    fn low24(self) -> Self;
    fn high_product24(self, other: Self) -> Self;
}

impl Low24 for u32 {
    #[inline(always)]
    fn low24(self) -> u32 {
        self & 0xff_ffff
    }
    #[inline(always)]
    fn high_product24(self, other: u32) -> u32 {
        (self.low24().wide_product(other.low24()) >> 16) as u32
    }
}

impl Low24 for i32 {
    #[inline(always)]
    fn low24(self) -> i32 {
        self << 8 >> 8
    }
    #[inline(always)]
    fn high_product24(self, other: i32) -> i32 {
        (self.low24().wide_product(other.low24()) >> 16) as i32
    }
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    match form.opcode {
        "add" | "sub" => sum(form),
        "mul" | "mad" => product(form),
        "mul24" | "mad24" => product24(form),
        "min" | "max" => extremum(form),
        _ => one_type(form),
    }
}

fn sum(form: &mut Form) -> Option<Op> {
    let sat = form.eat("sat");
    let ty = form.ty()?;
    match (form.opcode, sat) {
        ("add", true) => {
            by_type!(ty, T in S32: binary!(rare, |a: T, b: T| -> T { a.saturating_add(b) }))
        }
        ("sub", true) => {
            by_type!(ty, T in S32: binary!(rare, |a: T, b: T| -> T { a.saturating_sub(b) }))
        }
        ("add", false) if matches!(ty, Type::U16x2 | Type::S16x2) => {
            by_type!(ty, T in U16x2 S16x2: binary!(|a: T, b: T| -> T {
                a.zip(b, |a, b| a.wrapping_add(b))
            }))
        }
        ("add", false) => by_type!(ty.unsigned(), T in U16 U32 U64:
            binary!(|a: T, b: T| -> T { a.wrapping_add(b) })),
        _ => by_type!(ty.unsigned(), T in U16 U32 U64:
            binary!(|a: T, b: T| -> T { a.wrapping_sub(b) })),
    }
}

fn product(form: &mut Form) -> Option<Op> {
    let part = form.next()?;
    let sat = form.eat("sat");
    let ty = form.ty()?;
    match (form.opcode, part, sat) {
        ("mul", "lo", false) => by_type!(ty.unsigned(), T in U16 U32 U64:
            binary!(|a: T, b: T| -> T { a.wrapping_mul(b) })),
        ("mul", "hi", false) => by_type!(ty, T in U16 S16 U32 S32 U64 S64:
            binary!(|a: T, b: T| -> T { a.high_product(b) })),
        ("mul", "wide", false) => by_type!(ty, T in U16 S16 U32 S32:
            binary!(|a: T, b: T| -> <T as Product>::Wide { a.wide_product(b) })),
        ("mad", "lo", false) => by_type!(ty.unsigned(), T in U16 U32 U64:
            ternary!(|a: T, b: T, c: T| -> T { a.wrapping_mul(b).wrapping_add(c) })),
        ("mad", "hi", false) => by_type!(ty, T in U16 S16 U32 S32 U64 S64:
            ternary!(|a: T, b: T, c: T| -> T { a.high_product(b).wrapping_add(c) })),
        ("mad", "hi", true) => by_type!(ty, T in S32:
            ternary!(|a: T, b: T, c: T| -> T { a.high_product(b).saturating_add(c) })),
        ("mad", "wide", false) => by_type!(ty, T in U16 S16 U32 S32:
        ternary!(|a: T, b: T, c: <T as Product>::Wide| -> <T as Product>::Wide {
            a.wide_product(b).wrapping_add(c)
        })),
        _ => None,
    }
}

fn product24(form: &mut Form) -> Option<Op> {
    let part = form.next()?;
    let sat = form.eat("sat");
    let ty = form.ty()?;
    match (form.opcode, part, sat) {
        ("mul24", "lo", false) => by_type!(ty, T in U32 S32:
            binary!(rare, |a: T, b: T| -> T { a.low24().wrapping_mul(b.low24()) })),
        ("mul24", "hi", false) => by_type!(ty, T in U32 S32:
            binary!(rare, |a: T, b: T| -> T { a.high_product24(b) })),
        ("mad24", "lo", false) => by_type!(ty, T in U32 S32:
        ternary!(rare, |a: T, b: T, c: T| -> T {
            a.low24().wrapping_mul(b.low24()).wrapping_add(c)
        })),
        ("mad24", "hi", false) => by_type!(ty, T in U32 S32:
            ternary!(rare, |a: T, b: T, c: T| -> T { a.high_product24(b).wrapping_add(c) })),
        ("mad24", "hi", true) => by_type!(ty, T in S32:
            ternary!(rare, |a: T, b: T, c: T| -> T { a.high_product24(b).saturating_add(c) })),
        _ => None,
    }
}

fn extremum(form: &mut Form) -> Option<Op> {
    let relu = form.eat("relu");
    let ty = form.ty()?;
    match (form.opcode, relu, ty) {
        ("min", true, Type::S16x2) => {
            Some(binary!(rare, |a: Pair<i16>, b: Pair<i16>| -> Pair<i16> {
                a.zip(b, |a, b| a.min(b).max(0))
            }))
        }
        ("max", true, Type::S16x2) => {
            Some(binary!(rare, |a: Pair<i16>, b: Pair<i16>| -> Pair<i16> {
                a.zip(b, |a, b| a.max(b).max(0))
            }))
        }
        ("min", true, _) => by_type!(ty, T in S32:
            binary!(rare, |a: T, b: T| -> T { a.min(b).max(0) })),
        ("max", true, _) => by_type!(ty, T in S32:
            binary!(rare, |a: T, b: T| -> T { a.max(b).max(0) })),
        ("min", false, Type::U16x2 | Type::S16x2) => by_type!(ty, T in U16x2 S16x2:
            binary!(|a: T, b: T| -> T { a.zip(b, |a, b| a.min(b)) })),
        ("max", false, Type::U16x2 | Type::S16x2) => by_type!(ty, T in U16x2 S16x2:
            binary!(|a: T, b: T| -> T { a.zip(b, |a, b| a.max(b)) })),
        ("min", false, _) => by_type!(ty, T in U16 S16 U32 S32 U64 S64:
            binary!(|a: T, b: T| -> T { a.min(b) })),
        ("max", false, _) => by_type!(ty, T in U16 S16 U32 S32 U64 S64:
            binary!(|a: T, b: T| -> T { a.max(b) })),
        _ => None,
    }
}

/// The opcodes that have nothing but a type.
fn one_type(form: &mut Form) -> Option<Op> {
    let ty = form.ty()?;
    let wide = matches!(ty, Type::U64 | Type::S64);
    match form.opcode {
        "div" if wide => by_type!(ty, T in U64 S64:
            binary!(sparse, |a: T, b: T| -> T { a.quotient(b) })),
        "rem" if wide => by_type!(ty, T in U64 S64:
            binary!(sparse, |a: T, b: T| -> T { a.remainder(b) })),
        "div" => by_type!(ty, T in U16 S16 U32 S32: binary!(|a: T, b: T| -> T { a.quotient(b) })),
        "rem" => by_type!(ty, T in U16 S16 U32 S32: binary!(|a: T, b: T| -> T { a.remainder(b) })),
        "abs" => by_type!(ty, T in S16 S32 S64: unary!(|a: T| -> T { a.wrapping_abs() })),
        "neg" => by_type!(ty, T in S16 S32 S64: unary!(|a: T| -> T { a.wrapping_neg() })),
        "sad" => by_type!(ty, T in U16 S16 U32 S32 U64 S64:
            ternary!(|a: T, b: T, c: T| -> T { (a.abs_diff(b) as T).wrapping_add(c) })),
        _ => None,
    }
}
