//! Shifts. Amounts beyond the width count as the width, as PTX says and x86 does not.

use super::form::{Form, Type};
use super::run::Op;

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    match form.opcode {
        "shl" => by_type!(form.ty()?, T in B16 B32 B64:
            binary!(|a: T, b: u32| -> T { a.checked_shl(b).unwrap_or(0) })),
        "shr" => by_type!(form.ty()?, T in B16 B32 B64 U16 U32 U64 S16 S32 S64:
        binary!(|a: T, b: u32| -> T {
            // An arithmetic shift by all but one bit leaves only the sign.
            a.checked_shr(b).unwrap_or(if T::MIN == 0 { 0 } else { a >> (T::BITS - 1) })
        })),
        "shf" => funnel(form),
        _ => None,
    }
}

/// `shf`: shifts the pair `b:a`; left gives its upper word, right the lower.
fn funnel(form: &mut Form) -> Option<Op> {
    let left = form.next()?;
    let clamp = form.next()?;
    if form.ty()? != Type::B32 {
        return None;
    }
    Some(match (left, clamp) {
        ("l", "clamp") => ternary!(|a: u32, b: u32, c: u32| -> u32 { left_of(a, b, c.min(32)) }),
        ("l", "wrap") => ternary!(|a: u32, b: u32, c: u32| -> u32 { left_of(a, b, c & 31) }),
        ("r", "clamp") => ternary!(|a: u32, b: u32, c: u32| -> u32 { right_of(a, b, c.min(32)) }),
        ("r", "wrap") => ternary!(|a: u32, b: u32, c: u32| -> u32 { right_of(a, b, c & 31) }),
        _ => return None,
    })
}

#[inline(always)]
fn left_of(low: u32, high: u32, amount: u32) -> u32 {
    ((u64::from(high) << 32 | u64::from(low)) << amount >> 32) as u32
}

#[inline(always)]
fn right_of(low: u32, high: u32, amount: u32) -> u32 {
    ((u64::from(high) << 32 | u64::from(low)) >> amount) as u32
}
