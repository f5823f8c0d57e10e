//! Extended precision: `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`.
//!
//! The condition code has one bit a lane: a carry after additions, a borrow after subtractions.
//! Unsafe by nature as `run.rs` is, and for the same reason sound.

use super::form::{Form, Type};
use super::integer::Product;
use super::lane::Lane;
use super::run::{active_warps, store, store_bits, Op, Operation};
use super::Class;
use crate::exec::lanes::{Lanes, Operands, LANES};
use std::marker::PhantomData;

/// Arithmetic with the condition code: whether it reads the carry is the function's matter,
/// whether it writes it is said here.
pub(super) trait CarryFn {
    type T: Lane;
    /// `add` and `sub` have two sources, `mad` three.
    const SRCS: &'static [Class];
    const WRITES_CARRY: bool;
    fn apply(a: Self::T, b: Self::T, c: Self::T, carry: bool) -> (Self::T, bool);
}

pub(super) struct Carry<F>(PhantomData<F>);

impl<F: CarryFn> Operation for Carry<F> {
    const DST: Option<Class> = Some(F::T::CLASS);
    const SRCS: &'static [Class] = F::SRCS;

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        let mut carry = lanes.carry;
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`; with two sources `b` stands in for the third.
            unsafe {
                let a = lanes.reg::<<F::T as Lane>::Raw>(operands.a, warp);
                let b = lanes.reg::<<F::T as Lane>::Raw>(operands.b, warp);
                let third = if F::SRCS.len() > 2 {
                    operands.c
                } else {
                    operands.b
                };
                let c = lanes.reg::<<F::T as Lane>::Raw>(third, warp);
                let mut result = [<F::T as Lane>::Raw::default(); LANES];
                let mut carries = 0;
                for (lane, result) in result.iter_mut().enumerate() {
                    let (value, out) = F::apply(
                        F::T::read((*a)[lane]),
                        F::T::read((*b)[lane]),
                        F::T::read((*c)[lane]),
                        carry[warp] >> lane & 1 != 0,
                    );
                    *result = value.write();
                    carries |= u32::from(out) << lane;
                }
                store(lanes.reg(operands.d, warp), mask, &result);
                if F::WRITES_CARRY {
                    store_bits(&mut carry[warp], mask, carries);
                }
            }
        }
        lanes.carry = carry;
    }
}

/// `carried!(T, [A A], FLAG, |a, b, c, carry| ...)`: declares a [`CarryFn`] and wraps it.
macro_rules! carried {
    ($T:ty, $count:literal, $writes:expr, |$a:ident, $b:ident, $c:ident, $carry:ident| $body:expr) => {{
        struct F;
        impl CarryFn for F {
            type T = $T;
            const SRCS: &'static [Class] = &[<$T as Lane>::CLASS; $count];
            const WRITES_CARRY: bool = $writes;
            #[inline(always)]
            fn apply($a: $T, $b: $T, $c: $T, $carry: bool) -> ($T, bool) {
                $body
            }
        }
        Op::new::<Carry<F>>()
    }};
}

/// Integers whose sums say whether they carried.
trait Carrying: Sized {
    fn sum(self, other: Self, carry: bool) -> (Self, bool);
    fn difference(self, other: Self, borrow: bool) -> (Self, bool);
}

macro_rules! carrying {
    ($($type:ty as $Unsigned:ty;)*) => {$(
        impl Carrying for $type {
            #[inline(always)]
            fn sum(self, other: Self, carry: bool) -> (Self, bool) {
                let (sum, first) = (self as $Unsigned).overflowing_add(other as $Unsigned);
                let (sum, second) = sum.overflowing_add(carry.into());
                (sum as Self, first | second)
            }
            #[inline(always)]
            fn difference(self, other: Self, borrow: bool) -> (Self, bool) {
                let (rest, first) = (self as $Unsigned).overflowing_sub(other as $Unsigned);
                let (rest, second) = rest.overflowing_sub(borrow.into());
                (rest as Self, first | second)
            }
        }
    )*};
}

carrying! {
    u32 as u32;
    i32 as u32;
    u64 as u64;
    i64 as u64;
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    let opcode = form.opcode;
    let high = match opcode {
        "mad" | "madc" => Some(form.next()?),
        _ => None,
    };
    let writes = form.eat("cc");
    let ty = form.ty()?;
    if !matches!(ty, Type::U32 | Type::S32 | Type::U64 | Type::S64) {
        return None;
    }
    // The low half of a product does not depend on the sign.
    let bits = ty.unsigned();
    by_flag!(writes, WRITES: match (opcode, high) {
        ("add", None) => by_type!(bits, T in U32 U64:
            carried!(T, 2, WRITES, |a, b, _c, _carry| a.sum(b, false))),
        ("addc", None) => by_type!(bits, T in U32 U64:
            carried!(T, 2, WRITES, |a, b, _c, carry| a.sum(b, carry))),
        ("sub", None) => by_type!(bits, T in U32 U64:
            carried!(T, 2, WRITES, |a, b, _c, _carry| a.difference(b, false))),
        ("subc", None) => by_type!(bits, T in U32 U64:
            carried!(T, 2, WRITES, |a, b, _c, carry| a.difference(b, carry))),
        ("mad", Some("lo")) => by_type!(bits, T in U32 U64:
            carried!(T, 3, WRITES, |a, b, c, _carry| a.wrapping_mul(b).sum(c, false))),
        ("mad", Some("hi")) => by_type!(ty, T in U32 S32 U64 S64:
            carried!(T, 3, WRITES, |a, b, c, _carry| a.high_product(b).sum(c, false))),
        ("madc", Some("lo")) => by_type!(bits, T in U32 U64:
            carried!(T, 3, WRITES, |a, b, c, carry| a.wrapping_mul(b).sum(c, carry))),
        ("madc", Some("hi")) => by_type!(ty, T in U32 S32 U64 S64:
            carried!(T, 3, WRITES, |a, b, c, carry| a.high_product(b).sum(c, carry))),
        _ => None,
    })
}
