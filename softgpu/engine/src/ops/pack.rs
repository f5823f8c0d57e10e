//! `cvt` to and from pairs of narrow floats, to TF32, and `cvt.pack` of integers.

use super::form::{Form, Rounding, Type};
use super::lane::{Bf16, Pair, F16};
use super::modifiers::Modifiers;
use super::round::{Half, Narrow, E2M1, E2M3, E3M2, E4M3, E5M2};
use super::run::Op;

/// The operation with one of the roundings that packing allows as its constant.
macro_rules! by_near_rounding {
    ($mode:expr, $NAME:ident: $op:expr) => {
        by_value!($mode, $NAME: Rounding in Nearest Zero: $op, else None)
    };
}

/// Whether the form is one of this file's.
pub(super) fn is_packed(form: &Form) -> bool {
    form.any(|part| matches!(part, "pack" | "tf32" | "f16x2" | "bf16x2") || small(part).is_some())
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    if form.eat("pack") {
        return integers(form);
    } else if form.eat("rna") {
        return tf32(form, TfRounding::Away);
    }
    let rounding = form.rounding()?;
    // `.satfinite` and `.relu` come in either order, as the grammar of the types has it.
    let relu = form.eat("relu");
    let satfinite = form.eat("satfinite");
    let relu = relu || form.eat("relu");
    if form.has("tf32") {
        let rounding = match rounding {
            Rounding::Nearest => TfRounding::Even,
            Rounding::Zero => TfRounding::Zero,
            _ => return None,
        };
        return tf32_with(form, rounding, relu, satfinite);
    }
    if let Some(to) = form.parse(small) {
        let nearest = rounding == Rounding::Nearest;
        return if nearest && satfinite {
            to_small(form, to, relu)
        } else {
            None
        };
    }
    let to = form.ty()?;
    if let Some(from) = form.parse(small) {
        let plain = rounding == Rounding::Nearest && !satfinite;
        return if plain {
            from_small(to, from, relu)
        } else {
            None
        };
    }
    if form.ty()? != Type::F32 {
        return None;
    }
    let modifiers = Modifiers {
        relu,
        satfinite,
        ..Modifiers::default()
    };
    let op = by_near_rounding!(rounding, MODE: match to {
        Type::F16x2 => Some(binary!(dense, m, |a: f32, b: f32| -> Pair<F16> {
            Pair { low: half(b, MODE, m), high: half(a, MODE, m) }
        })),
        Type::Bf16x2 => Some(binary!(dense, m, |a: f32, b: f32| -> Pair<Bf16> {
            Pair { low: half(b, MODE, m), high: half(a, MODE, m) }
        })),
        _ => None,
    });
    Some(op?.with(modifiers))
}

/// `cvt` of one `f32` to a half with `.relu` or `.satfinite`, whose modifiers have been read.
pub(super) fn single(
    form: &mut Form,
    rounding: Rounding,
    relu: bool,
    satfinite: bool,
) -> Option<Op> {
    let to = form.ty()?;
    if form.ty()? != Type::F32 {
        return None;
    }
    let op = by_near_rounding!(rounding, MODE: by_type!(to, T in F16 Bf16:
        unary!(dense, m, |a: f32| -> T { half(a, MODE, m) })));
    Some(op?.with(Modifiers {
        relu,
        satfinite,
        ..Modifiers::default()
    }))
}

/// One half; `.satfinite` gives the largest number for what is larger.
#[inline(always)]
fn half<H: Half>(x: f32, mode: Rounding, modifiers: Modifiers) -> H {
    let rounded = H::rounded(x, mode);
    let infinity = H::INFINITY.code();
    let finite = if modifiers.satfinite && rounded.code() & 0x7fff == infinity {
        H::from_code(rounded.code() - 1)
    } else {
        rounded
    };
    finite.rectified(modifiers.relu)
}

/// How TF32 is rounded: to nearest with ties to even or away from zero, or towards zero.
#[derive(Clone, Copy)]
enum TfRounding {
    Even,
    Away,
    Zero,
}

fn tf32(form: &mut Form, rounding: TfRounding) -> Option<Op> {
    let satfinite = form.eat("satfinite");
    tf32_with(form, rounding, false, satfinite)
}

fn tf32_with(form: &mut Form, rounding: TfRounding, relu: bool, satfinite: bool) -> Option<Op> {
    if !form.eat("tf32") || form.ty()? != Type::F32 {
        return None;
    }
    let op = by_value!(rounding, MODE: TfRounding in Even Away Zero:
        unary!(rare, m, |a: f32| -> u32 { to_tf32(a, MODE, m) }));
    Some(op.with(Modifiers {
        relu,
        satfinite,
        ..Modifiers::default()
    }))
}

/// An `f32` whose low 13 bits are zero.
#[inline(always)]
fn to_tf32(x: f32, mode: TfRounding, modifiers: Modifiers) -> u32 {
    const KEPT: u32 = !0x1fff;
    let bits = x.to_bits();
    let up = match mode {
        TfRounding::Even => 0xfff + (bits >> 13 & 1),
        TfRounding::Away => 0x1000,
        TfRounding::Zero => 0,
    };
    let rounded = bits.wrapping_add(up) & KEPT;
    if x.is_nan() {
        0x7fff_ffff & KEPT
    } else if modifiers.relu && bits >> 31 != 0 {
        0
    } else if modifiers.satfinite && rounded & 0x7fff_ffff == 0x7f80_0000 {
        (rounded & 0x8000_0000) | (0x7f7f_ffff & KEPT)
    } else {
        rounded
    }
}

/// The floats of 8 bits or fewer. A pair of them is a byte each, but `E2M1` four bits each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Small {
    E4m3,
    E5m2,
    E2m3,
    E3m2,
    E2m1,
}

fn small(part: &str) -> Option<Small> {
    Some(match part {
        "e4m3x2" => Small::E4m3,
        "e5m2x2" => Small::E5m2,
        "e2m3x2" => Small::E2m3,
        "e3m2x2" => Small::E3m2,
        "e2m1x2" => Small::E2m1,
        _ => return None,
    })
}

impl Small {
    #[inline(always)]
    const fn format(self) -> Narrow {
        match self {
            Small::E4m3 => E4M3,
            Small::E5m2 => E5M2,
            Small::E2m3 => E2M3,
            Small::E3m2 => E3M2,
            Small::E2m1 => E2M1,
        }
    }

    /// The code of the largest number.
    #[inline(always)]
    const fn largest(self) -> u32 {
        match self {
            Small::E4m3 => 0x7e, // 448
            Small::E5m2 => 0x7b, // 57344
            Small::E2m3 => 0x1f, // 7.5
            Small::E3m2 => 0x1f, // 28
            Small::E2m1 => 0x7,  // 6
        }
    }

    /// Bits of a code.
    #[inline(always)]
    const fn width(self) -> u32 {
        match self {
            Small::E4m3 | Small::E5m2 => 8,
            Small::E2m3 | Small::E3m2 => 6,
            Small::E2m1 => 4,
        }
    }

    /// Where the upper one of a pair starts.
    #[inline(always)]
    const fn upper(self) -> u32 {
        match self {
            Small::E2m1 => 4,
            _ => 8,
        }
    }

    /// The code of a number, the largest one for what is larger. The formats of fewer than 8 bits
    /// have no NaN and take the largest for it too.
    #[inline(always)]
    fn encode(self, x: f32, relu: bool) -> u32 {
        let negative = x.to_bits() >> 31;
        if x.is_nan() {
            return if self.width() == 8 {
                0x7f
            } else {
                self.largest()
            };
        }
        let magnitude = self.format().encode(x).min(self.largest());
        if relu && negative != 0 {
            0
        } else {
            magnitude | negative << (self.width() - 1)
        }
    }

    /// The number of a code.
    #[inline(always)]
    fn decode(self, code: u32) -> f32 {
        let negative = code >> (self.width() - 1) & 1;
        let magnitude = code & ((1 << (self.width() - 1)) - 1);
        let value = match (self, magnitude) {
            (Small::E4m3, 0x7f) => f32::NAN,
            (Small::E5m2, 0x7c) => f32::INFINITY,
            (Small::E5m2, 0x7d..) => f32::NAN,
            _ => self.format().decode(magnitude),
        };
        f32::from_bits(value.to_bits() | negative << 31)
    }

    #[inline(always)]
    fn encode_pair(self, high: f32, low: f32, relu: bool) -> u16 {
        (self.encode(low, relu) | self.encode(high, relu) << self.upper()) as u16
    }
}

fn to_small(form: &mut Form, to: Small, relu: bool) -> Option<Op> {
    let from = form.ty()?;
    let op = by_value!(to, TO: Small in E4m3 E5m2 E2m3 E3m2 E2m1: match from {
        Type::F32 => Some(binary!(rare, m, |a: f32, b: f32| -> u16 {
            TO.encode_pair(a, b, m.relu)
        })),
        Type::F16x2 => Some(unary!(rare, m, |a: Pair<F16>| -> u16 {
            TO.encode_pair(a.high.widen(), a.low.widen(), m.relu)
        })),
        _ => None,
    });
    Some(op?.with(Modifiers {
        relu,
        ..Modifiers::default()
    }))
}

fn from_small(to: Type, from: Small, relu: bool) -> Option<Op> {
    if to != Type::F16x2 {
        return None;
    }
    let op = by_value!(from, FROM: Small in E4m3 E5m2 E2m3 E3m2 E2m1:
    unary!(rare, m, |a: u16| -> Pair<F16> {
        let half = |code: u32| F16::nearest(FROM.decode(code)).rectified(m.relu);
        let a = u32::from(a);
        Pair { low: half(a), high: half(a >> FROM.upper()) }
    }));
    Some(op.with(Modifiers {
        relu,
        ..Modifiers::default()
    }))
}

/// `cvt.pack`: two integers clamped into the low end of the destination, under the low bits of a
/// third where they leave room.
fn integers(form: &mut Form) -> Option<Op> {
    if !form.eat("sat") {
        return None;
    }
    let to = form.next()?;
    if form.ty()? != Type::S32 {
        return None;
    }
    let signed = to.starts_with('s');
    let width: u32 = to.strip_prefix(['s', 'u'])?.parse().ok()?;
    let three = match width {
        16 => false,
        2 | 4 | 8 => form.ty()? == Type::B32,
        _ => return None,
    };
    let op = if width == 16 {
        binary!(rare, m, |a: i32, b: i32| -> u32 {
            let signed = m.detail != 0;
            clamped(a, 16, signed) << 16 | clamped(b, 16, signed)
        })
    } else if three {
        ternary!(rare, m, |a: i32, b: i32, c: u32| -> u32 {
            let (width, signed) = (m.detail >> 1, m.detail & 1 != 0);
            c << (2 * width) | clamped(a, width, signed) << width | clamped(b, width, signed)
        })
    } else {
        return None;
    };
    let detail = if width == 16 {
        u32::from(signed)
    } else {
        width << 1 | u32::from(signed)
    };
    Some(op.with(Modifiers {
        detail,
        ..Modifiers::default()
    }))
}

/// The nearest integer of `width` bits.
#[inline(always)]
fn clamped(x: i32, width: u32, signed: bool) -> u32 {
    let (least, most) = if signed {
        (-(1 << (width - 1)), (1 << (width - 1)) - 1)
    } else {
        (0, (1 << width) - 1)
    };
    x.clamp(least, most) as u32 & ((1 << width) - 1)
}
