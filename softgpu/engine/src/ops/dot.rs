//! Dot products of packed integers: `dp4a`, `dp2a`.

use super::form::{Form, Type};
use super::run::Op;

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    let half = if form.opcode == "dp2a" {
        Some(form.next()?)
    } else {
        None
    };
    let (a_signed, b_signed) = (signed(form)?, signed(form)?);
    by_flag!(a_signed, A_SIGNED: by_flag!(b_signed, B_SIGNED: Some(match half {
        None => ternary!(|a: u32, b: u32, c: u32| -> u32 {
            let product = |i: u32| piece(a, i, 8, A_SIGNED).wrapping_mul(piece(b, i, 8, B_SIGNED));
            let low = product(0).wrapping_add(product(1));
            c.wrapping_add(low).wrapping_add(product(2)).wrapping_add(product(3))
        }),
        Some("lo") => ternary!(|a: u32, b: u32, c: u32| -> u32 {
            let product = |i: u32| piece(a, i, 16, A_SIGNED).wrapping_mul(piece(b, i, 8, B_SIGNED));
            c.wrapping_add(product(0)).wrapping_add(product(1))
        }),
        Some("hi") => ternary!(|a: u32, b: u32, c: u32| -> u32 {
            let b = b >> 16;
            let product = |i: u32| piece(a, i, 16, A_SIGNED).wrapping_mul(piece(b, i, 8, B_SIGNED));
            c.wrapping_add(product(0)).wrapping_add(product(1))
        }),
        Some(_) => return None,
    })))
}

/// Reads `.s32` or `.u32`.
fn signed(form: &mut Form) -> Option<bool> {
    match form.ty()? {
        Type::S32 => Some(true),
        Type::U32 => Some(false),
        _ => None,
    }
}

/// Piece `index` of `width` bits, extended to 32.
#[inline(always)]
pub(super) fn piece(word: u32, index: u32, width: u32, signed: bool) -> u32 {
    let at_top = word << (32 - width - index * width);
    if signed {
        (at_top as i32 >> (32 - width)) as u32
    } else {
        at_top >> (32 - width)
    }
}
