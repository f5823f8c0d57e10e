//! Logic on words and predicates.
//!
//! Unsafe by nature as `run.rs` is, and for the same reason sound.

use super::form::{Form, Type};
use super::predicate::{Predicate, PredicateFn};
use super::run::{active_warps, store, Op, Operation};
use super::Class;
use crate::exec::lanes::{Lanes, Operands, LANES};

/// Declares logic on predicates, a warp's lanes at once.
macro_rules! predicate {
    ($count:literal, |$a:ident, $b:ident| $body:expr) => {{
        struct F;
        impl PredicateFn for F {
            const SRCS: &'static [Class] = &[Class::Pred; $count];
            #[inline(always)]
            fn apply($a: u32, $b: u32) -> u32 {
                $body
            }
        }
        Op::rare::<Predicate<F>>()
    }};
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    let ty = form.ty()?;
    match (form.opcode, ty) {
        ("and", Type::Pred) => Some(predicate!(2, |a, b| a & b)),
        ("or", Type::Pred) => Some(predicate!(2, |a, b| a | b)),
        ("xor", Type::Pred) => Some(predicate!(2, |a, b| a ^ b)),
        ("not", Type::Pred) => Some(predicate!(1, |a, _b| !a)),
        ("mov", Type::Pred) => Some(predicate!(1, |a, _b| a)),
        ("and", _) => by_type!(ty, T in B16 B32 B64: binary!(|a: T, b: T| -> T { a & b })),
        ("or", _) => by_type!(ty, T in B16 B32 B64: binary!(|a: T, b: T| -> T { a | b })),
        ("xor", _) => by_type!(ty, T in B16 B32 B64: binary!(|a: T, b: T| -> T { a ^ b })),
        ("not", _) => by_type!(ty, T in B16 B32 B64: unary!(|a: T| -> T { !a })),
        ("cnot", _) => by_type!(ty, T in B16 B32 B64: unary!(|a: T| -> T { T::from(a == 0) })),
        ("lop3", Type::B32) => Some(Op::new::<Lookup3>().with_literal()),
        _ => None,
    }
}

/// `lop3`: any boolean function of three words, given by the literal's table of eight bits.
pub(super) struct Lookup3;

impl Operation for Lookup3 {
    const DST: Option<Class> = Some(Class::W32);
    const SRCS: &'static [Class] = &[Class::W32, Class::W32, Class::W32];

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        // Entry `4a + 2b + c` of the table as a word of equal bits.
        let entry = |index: u32| 0u32.wrapping_sub(operands.imm as u32 >> index & 1);
        let table = [0, 1, 2, 3, 4, 5, 6, 7].map(entry);
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`.
            unsafe {
                let a = lanes.reg::<u32>(operands.a, warp);
                let b = lanes.reg::<u32>(operands.b, warp);
                let c = lanes.reg::<u32>(operands.c, warp);
                let mut result = [0; LANES];
                for (lane, result) in result.iter_mut().enumerate() {
                    let choose = |bit: u32, no: u32, yes: u32| no ^ (bit & (no ^ yes));
                    let (a, b, c) = ((*a)[lane], (*b)[lane], (*c)[lane]);
                    let without_a = choose(
                        b,
                        choose(c, table[0], table[1]),
                        choose(c, table[2], table[3]),
                    );
                    let with_a = choose(
                        b,
                        choose(c, table[4], table[5]),
                        choose(c, table[6], table[7]),
                    );
                    *result = choose(a, without_a, with_a);
                }
                store(lanes.reg(operands.d, warp), mask, &result);
            }
        }
    }
}
