//! Counting, finding, reversing, extracting, inserting and permuting bits.

use super::form::{Form, Type};
use super::run::Op;

/// `count` ones in the low bits, `count` at most the width.
macro_rules! ones {
    ($type:ty, $count:expr) => {
        !(!0 as $type).checked_shl($count).unwrap_or(0)
    };
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    match form.opcode {
        "popc" => by_type!(form.ty()?, T in B32 B64: unary!(|a: T| -> u32 { a.count_ones() })),
        "clz" => by_type!(form.ty()?, T in B32 B64: unary!(|a: T| -> u32 { a.leading_zeros() })),
        "brev" => by_type!(form.ty()?, T in B32 B64: unary!(|a: T| -> T { a.reverse_bits() })),
        "bfind" => {
            let shift_amount = form.eat("shiftamt");
            let ty = form.ty()?;
            by_flag!(shift_amount, SHIFT_AMOUNT: by_type!(ty, T in U32 S32 U64 S64:
                unary!(|a: T| -> u32 { find_top(a.significant(), T::BITS, SHIFT_AMOUNT) })))
        }
        "bfe" => by_type!(form.ty()?, T in U32 S32 U64 S64:
            ternary!(|a: T, b: u32, c: u32| -> T { a.extract(b & 0xff, c & 0xff) })),
        "bfi" => by_type!(form.ty()?, T in B32 B64:
            quaternary!(|a: T, b: T, c: u32, e: u32| -> T { {
                let field = ones!(T, e & 0xff).checked_shl(c & 0xff).unwrap_or(0);
                (b & !field) | (a.checked_shl(c & 0xff).unwrap_or(0) & field)
            } })),
        "fns" => (form.ty()? == Type::B32).then(|| {
            ternary!(rare, |a: u32, b: u32, c: i32| -> u32 {
                find_nth_set(a, b, c)
            })
        }),
        "bmsk" => {
            let clamp = clamp_or_wrap(form)?;
            (form.ty()? == Type::B32).then(
                || by_flag!(clamp, CLAMP: binary!(rare, |a: u32, b: u32| -> u32 { mask(a, b, CLAMP) })),
            )
        }
        "szext" => {
            let clamp = clamp_or_wrap(form)?;
            let ty = form.ty()?;
            by_flag!(clamp, CLAMP: by_type!(ty, T in U32 S32:
                binary!(rare, |a: T, b: u32| -> T { extend(a as u32, b, CLAMP, T::MIN != 0) as T })))
        }
        "prmt" => permute(form),
        _ => None,
    }
}

/// Reads the mode of an instruction whose bit positions clamp or wrap.
fn clamp_or_wrap(form: &mut Form) -> Option<bool> {
    form.parse(|part| match part {
        "clamp" => Some(true),
        "wrap" => Some(false),
        _ => None,
    })
}

/// Bit fields of integers.
trait Field {
    /// The value with the sign's copies cleared: what `bfind` looks at.
    fn significant(self) -> u64;
    /// `len` bits from bit `pos` on; the sign of a signed field fills what is above it or above
    /// the word.
    fn extract(self, pos: u32, len: u32) -> Self;
}

macro_rules! fields {
    ($($type:ty as $Unsigned:ty;)*) => {$(
        impl Field for $type {
            #[inline(always)]
            fn significant(self) -> u64 {
                let sign = if <$type>::MIN != 0 && self < (0 as $type) { !0 } else { 0 };
                u64::from(self as $Unsigned ^ sign)
            }
            #[inline(always)]
            fn extract(self, pos: u32, len: u32) -> Self {
                let there = <$type>::BITS.saturating_sub(pos);
                let kept = len.min(there);
                let ones = ones!($Unsigned, kept);
                let bits = (self as $Unsigned).checked_shr(pos).unwrap_or(0) & ones;
                // The bit at the field's top or the word's, whichever comes first.
                let top = (pos + len.max(1) - 1).min(<$type>::BITS - 1);
                let negative = <$type>::MIN != 0 && len != 0 && self as $Unsigned >> top & 1 != 0;
                (if negative { bits | !ones } else { bits }) as Self
            }
        }
    )*};
}

fields! {
    u32 as u32;
    i32 as u32;
    u64 as u64;
    i64 as u64;
}

/// The number of the highest set bit, or how far it is from the top of a `width`-bit word; all
/// ones where there is none.
#[inline(always)]
fn find_top(bits: u64, width: u32, shift_amount: bool) -> u32 {
    let top = 63u32.wrapping_sub(bits.leading_zeros());
    if shift_amount && bits != 0 {
        width - 1 - top
    } else {
        top
    }
}

/// The `n`th set bit at or above (below, for negative `n`) bit `base`; `n` 0 asks for `base` itself.
#[inline(always)]
fn find_nth_set(mask: u32, base: u32, n: i32) -> u32 {
    const NONE: u32 = u32::MAX;
    if base > 31 {
        return NONE;
    }
    let mut candidates = match n {
        0 => mask & 1 << base,
        1.. => mask >> base << base,
        _ => (mask << (31 - base) >> (31 - base)).reverse_bits(),
    };
    for _ in 1..n.unsigned_abs().min(33) {
        candidates &= candidates.wrapping_sub(1);
    }
    match candidates.trailing_zeros() {
        32 => NONE,
        bit if n < 0 => 31 - bit,
        bit => bit,
    }
}

/// `bmsk`: `width` ones from bit `start` on.
#[inline(always)]
fn mask(start: u32, width: u32, clamp: bool) -> u32 {
    let (low, count) = (start & 31, width & 31);
    let from_start = if clamp && start > 31 { 0 } else { !0 << low };
    let beyond = if low + count > 31 || (clamp && (start > 31 || width > 31)) {
        0
    } else {
        !0 << (low + count)
    };
    from_start & !beyond
}

/// `szext`: the low `width` bits, sign or zero extended.
#[inline(always)]
fn extend(a: u32, width: u32, clamp: bool, signed: bool) -> u32 {
    let count = width & 31;
    let too_large = clamp && width > 31;
    let above = if too_large { 0 } else { !0 << count };
    let sign = signed && !too_large && count != 0 && a >> (count.wrapping_sub(1) & 31) & 1 != 0;
    (a & !above) | if sign { above } else { 0 }
}

/// Byte `index` (of 8) of the pair `b:a`.
#[inline(always)]
fn byte(a: u32, b: u32, index: u32) -> u32 {
    let pair = u64::from(b) << 32 | u64::from(a);
    (pair >> ((index & 7) * 8)) as u32 & 0xff
}

/// Four bytes, chosen by `index` for each.
#[inline(always)]
fn gather(a: u32, b: u32, index: impl Fn(u32) -> u32) -> u32 {
    byte(a, b, index(0))
        | byte(a, b, index(1)) << 8
        | byte(a, b, index(2)) << 16
        | byte(a, b, index(3)) << 24
}

fn permute(form: &mut Form) -> Option<Op> {
    if form.ty()? != Type::B32 {
        return None;
    }
    let Some(mode) = form.next() else {
        return Some(ternary!(|a: u32, b: u32, c: u32| -> u32 {
            permute_bytes(a, b, c)
        }));
    };
    Some(match mode {
        "f4e" => ternary!(rare, |a: u32, b: u32, c: u32| -> u32 {
            gather(a, b, |i| (c & 3) + i)
        }),
        "b4e" => ternary!(rare, |a: u32, b: u32, c: u32| -> u32 {
            gather(a, b, |i| (c & 3) + 8 - i)
        }),
        "rc8" => ternary!(rare, |a: u32, b: u32, c: u32| -> u32 {
            gather(a, b, |_| c & 3)
        }),
        "ecl" => ternary!(rare, |a: u32, b: u32, c: u32| -> u32 {
            gather(a, b, |i| (c & 3).max(i))
        }),
        "ecr" => ternary!(rare, |a: u32, b: u32, c: u32| -> u32 {
            gather(a, b, |i| (c & 3).min(i))
        }),
        "rc16" => {
            ternary!(rare, |a: u32, b: u32, c: u32| -> u32 {
                gather(a, b, |i| (c & 1) * 2 + (i & 1))
            })
        }
        _ => return None,
    })
}

/// `prmt` without a mode: each nibble of `c` chooses a byte, and with its top bit the byte's sign
/// in all its bits.
#[inline(always)]
fn permute_bytes(a: u32, b: u32, c: u32) -> u32 {
    let bytes = gather(a, b, |i| c >> (4 * i) & 7);
    let only_sign = (c >> 3 & 1) | (c >> 7 & 1) << 8 | (c >> 11 & 1) << 16 | (c >> 15 & 1) << 24;
    let signs = (bytes >> 7 & 0x0101_0101) * 0xff;
    let chosen = only_sign * 0xff;
    (bytes & !chosen) | (signs & chosen)
}
