//! `cvt` between single values. Packed forms are in `pack.rs`.

use super::exact::{self, code_of_integer};
use super::form::{Form, Rounding, Type};
use super::lane::{Bf16, F16};
use super::modifiers::Modifiers;
use super::pack;
use super::round::{canonical, finish, flush, narrow, Half};
use super::run::Op;
use super::Class;

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    if pack::is_packed(form) {
        return pack::lookup(form);
    }
    let integral = form.integral();
    let rounding = if integral.is_none() {
        form.rounding()
    } else {
        None
    };
    let relu = form.eat("relu");
    let satfinite = form.eat("satfinite");
    if relu || satfinite {
        return pack::single(form, rounding?, relu, satfinite);
    }
    let ftz = form.eat("ftz");
    let sat = form.eat("sat");
    let (to, from) = (form.ty()?, form.ty()?);
    if ftz && to != Type::F32 && from != Type::F32 {
        return None;
    }
    match (is_float(to), is_float(from), integral, rounding) {
        (false, false, None, None) => between_integers(to, from, sat),
        (false, true, Some(mode), None) => float_to_integer(to, from, mode, ftz),
        (true, false, None, Some(mode)) => integer_to_float(to, from, mode, sat),
        (true, true, integral, rounding) if to == from => match (integral, rounding) {
            (Some(mode), None) => integral_float(to, mode, ftz, sat),
            (None, None) => same_float(to, ftz, sat),
            _ => None,
        },
        (true, true, None, rounding) => between_floats(to, from, rounding, ftz, sat),
        _ => None,
    }
}

fn is_float(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::Bf16 | Type::F32 | Type::F64)
}

/// Narrowing drops the upper bits, or with `.sat` gives the nearest in range.
fn between_integers(to: Type, from: Type, sat: bool) -> Option<Op> {
    if sat {
        return clamp_integer(to, from);
    }
    by_type!(to, T in U8 U16 U32 U64 S8 S16 S32 S64:
        by_type!(from, S in U8 U16 U32 U64 S8 S16 S32 S64: unary!(|a: S| -> T { a as T })))
    .flatten()
}

/// An integer type, packed into `Modifiers::detail`.
#[derive(Clone, Copy)]
struct Range {
    width: u32,
    signed: bool,
}

impl Range {
    fn of(ty: Type) -> Range {
        Range {
            width: ty.width(),
            signed: ty.is_signed(),
        }
    }

    fn pack(self) -> u32 {
        self.width << 1 | u32::from(self.signed)
    }

    #[inline(always)]
    fn unpack(detail: u32) -> Range {
        Range {
            width: detail >> 1 & 0x7f,
            signed: detail & 1 != 0,
        }
    }

    /// The integer in the low bits of a lane.
    #[inline(always)]
    fn number(self, bits: u64) -> i128 {
        let above = 64 - self.width;
        if self.signed {
            i128::from((bits << above) as i64 >> above)
        } else {
            i128::from(bits << above >> above)
        }
    }

    /// The nearest number in range, extended to a lane.
    #[inline(always)]
    fn clamp(self, number: i128) -> u64 {
        let (least, most) = if self.signed {
            (-1i128 << (self.width - 1), (1i128 << (self.width - 1)) - 1)
        } else {
            (0, (1i128 << self.width) - 1)
        };
        number.clamp(least, most) as u64
    }
}

/// The class in which a number lies in its lane.
fn class(ty: Type) -> Class {
    match ty.width() {
        8 | 16 => Class::W16,
        64 => Class::W64,
        _ => Class::W32,
    }
}

/// The one source of a conversion.
fn source(ty: Type) -> &'static [Class] {
    match class(ty) {
        Class::W16 => &[Class::W16],
        Class::W64 => &[Class::W64],
        _ => &[Class::W32],
    }
}

/// The lanes of a type: 32 or 64 bits.
fn lane(ty: Type) -> Type {
    if ty.width() == 64 {
        Type::B64
    } else {
        Type::B32
    }
}

/// `cvt.sat` between integers.
fn clamp_integer(to: Type, from: Type) -> Option<Op> {
    if is_float(to) || is_float(from) {
        return None;
    }
    let op = by_type!(lane(to), T in B32 B64: by_type!(lane(from), S in B32 B64:
    unary!(rare, m, |a: S| -> T {
        let number = Range::unpack(m.detail >> 8).number(a as u64);
        Range::unpack(m.detail).clamp(number) as T
    })));
    let detail = Range::of(from).pack() << 8 | Range::of(to).pack();
    let modifiers = Modifiers {
        detail,
        ..Modifiers::default()
    };
    Some(
        op.flatten()?
            .with(modifiers)
            .of_classes(class(to), source(from)),
    )
}

/// Floats that become integers: `f32` and `f64` themselves, halves through `f32`.
trait Float: Copy {
    type Wide: Rounds;
    fn wide(self) -> Self::Wide;
}

macro_rules! floats {
    ($($type:ty: $Wide:ty, |$value:ident| $wide:expr;)*) => {$(
        impl Float for $type {
            type Wide = $Wide;
            #[inline(always)]
            fn wide(self) -> $Wide {
                let $value = self;
                $wide
            }
        }
    )*};
}

floats! {
    F16: f32, |value| value.widen();
    Bf16: f32, |value| value.widen();
    f32: f32, |value| value;
    f64: f64, |value| value;
}

/// The machine's floats.
trait Rounds: Copy {
    fn integral(self, mode: Rounding) -> Self;
    fn flushed(self, ftz: bool) -> Self;
    /// `.sat`: within [0, 1], NaN and -0 to +0.
    fn saturated(self, sat: bool) -> Self;
}

macro_rules! rounds {
    ($($type:ty: |$value:ident, $ftz:ident| $flushed:expr;)*) => {$(
        impl Rounds for $type {
            #[inline(always)]
            fn integral(self, mode: Rounding) -> Self {
                match mode {
                    Rounding::Nearest => self.round_ties_even(),
                    Rounding::Zero => self.trunc(),
                    Rounding::Down => self.floor(),
                    Rounding::Up => self.ceil(),
                }
            }
            #[inline(always)]
            fn flushed(self, $ftz: bool) -> Self {
                let $value = self;
                $flushed
            }
            #[inline(always)]
            fn saturated(self, sat: bool) -> Self {
                match self {
                    x if !sat => x,
                    x if x >= 1.0 => 1.0,
                    x if x > 0.0 => x,
                    _ => 0.0,
                }
            }
        }
    )*};
}

rounds! {
    f32: |value, ftz| flush(value, ftz);
    f64: |value, _ftz| value;
}

/// Out of range gives the end of the range. NaN gives 0, but the top bit alone where 64 bits are
/// on either side.
fn float_to_integer(to: Type, from: Type, mode: Rounding, ftz: bool) -> Option<Op> {
    if ftz && from != Type::F32 {
        return None;
    }
    let op = match (to, from) {
        (Type::S32 | Type::U32 | Type::S64 | Type::U64, Type::F32 | Type::F64) => {
            by_rounding!(mode, MODE: by_type!(to, T in U32 U64 S32 S64: by_type!(from, S in F32 F64:
                unary!(dense, m, |a: S| -> T {
                    let value = a.flushed(m.ftz).integral(MODE);
                    let wide = T::BITS == 64 || size_of::<S>() == 8;
                    if wide && value.is_nan() { (1 as T) << (T::BITS - 1) } else { value as T }
                })))
            .flatten())
        }
        _ => by_type!(lane(to), T in B32 B64: by_type!(from, S in F16 Bf16 F32 F64:
        unary!(rare, m, |a: S| -> T {
            let range = Range::unpack(m.detail);
            let value = a.wide().flushed(m.ftz).integral(m.rounding);
            let wide = range.width == 64 || size_of::<S>() == 8;
            if wide && value.is_nan() {
                (1 as T) << (range.width - 1)
            } else if range.signed {
                range.clamp(i128::from(value as i64)) as T
            } else {
                range.clamp(i128::from(value as u64)) as T
            }
        })))
        .flatten(),
    };
    let detail = Range::of(to).pack();
    let modifiers = Modifiers {
        ftz,
        rounding: mode,
        detail,
        ..Modifiers::default()
    };
    Some(op?.with(modifiers).of_classes(class(to), source(from)))
}

fn integer_to_float(to: Type, from: Type, mode: Rounding, sat: bool) -> Option<Op> {
    let wide = from.width() == 64;
    if mode == Rounding::Nearest && !sat {
        match to {
            Type::F32 | Type::F64 => {
                return by_type!(to, T in F32 F64:
                    by_type!(from, S in U8 U16 U32 U64 S8 S16 S32 S64: unary!(|a: S| -> T { a as T })))
                .flatten();
            }
            _ if !wide => {
                return by_type!(to, T in F16 Bf16: by_type!(from, S in U8 U16 U32 S8 S16 S32:
                    unary!(|a: S| -> T { T::rounded_f64(a as f64, Rounding::Nearest) })))
                .flatten();
            }
            _ => {}
        }
    }
    let op = by_type!(lane(to), T in B32 B64: by_type!(lane(from), S in B32 B64:
    unary!(rare, m, |a: S| -> T {
        let number = Range::unpack(m.detail).number(a as u64);
        let number = if m.sat { number.clamp(0, 1) } else { number };
        code_of_integer(number, FORMATS[(m.detail >> 8) as usize], m.rounding) as T
    })));
    let format = match to {
        Type::F16 => 0,
        Type::Bf16 => 1,
        Type::F32 => 2,
        _ => 3,
    };
    let detail = format << 8 | Range::of(from).pack();
    let modifiers = Modifiers {
        sat,
        rounding: mode,
        detail,
        ..Modifiers::default()
    };
    Some(
        op.flatten()?
            .with(modifiers)
            .of_classes(class(to), source(from)),
    )
}

const FORMATS: [exact::Format; 4] = [exact::HALF, exact::BFLOAT, exact::SINGLE, exact::DOUBLE];

/// Rounding to an integral value of the same type.
fn integral_float(ty: Type, mode: Rounding, ftz: bool, sat: bool) -> Option<Op> {
    let op = by_rounding!(mode, MODE: match ty {
        Type::F32 => unary!(dense, m, |a: f32| -> f32 {
            canonical(flush(a, m.ftz).integral(MODE)).saturated(m.sat)
        }),
        Type::F64 => unary!(dense, m, |a: f64| -> f64 { a.integral(MODE).saturated(m.sat) }),
        _ => by_type!(ty, T in F16 Bf16: unary!(rare, m, |a: T| -> T {
            T::nearest(a.widen().integral(MODE).saturated(m.sat))
        }))?,
    });
    Some(op.with(Modifiers {
        ftz,
        sat,
        ..Modifiers::default()
    }))
}

/// A conversion to the same type, which only flushes and saturates.
fn same_float(ty: Type, ftz: bool, sat: bool) -> Option<Op> {
    let op = match ty {
        Type::F32 => unary!(dense, m, |a: f32| -> f32 {
            flush(a, m.ftz).saturated(m.sat)
        }),
        Type::F64 => unary!(dense, m, |a: f64| -> f64 { a.saturated(m.sat) }),
        _ => by_type!(ty, T in F16 Bf16: unary!(rare, m, |a: T| -> T { a.saturated(m.sat) }))?,
    };
    Some(op.with(Modifiers {
        ftz,
        sat,
        ..Modifiers::default()
    }))
}

/// Widening is exact and takes no rounding; anything else must name one.
fn between_floats(
    to: Type,
    from: Type,
    rounding: Option<Rounding>,
    ftz: bool,
    sat: bool,
) -> Option<Op> {
    let mode = rounding.unwrap_or_default();
    let op = match (to, from, rounding) {
        (Type::F64, _, None) => by_type!(from, S in F16 Bf16 F32: unary!(dense, m, |a: S| -> f64 {
            (a.wide().flushed(m.ftz) as f64).saturated(m.sat)
        }))?,
        (Type::F32, _, None) => by_type!(from, S in F16 Bf16: unary!(dense, m, |a: S| -> f32 {
            a.widen().flushed(m.ftz).saturated(m.sat)
        }))?,
        (Type::F32, Type::F64, Some(_)) => by_rounding!(mode, MODE:
            unary!(dense, m, |a: f64| -> f32 { finish(narrow(a, MODE), m.ftz, m.sat) })),
        (Type::F16 | Type::Bf16, Type::F32, Some(Rounding::Nearest)) => {
            by_type!(to, T in F16 Bf16: unary!(dense, m, |a: f32| -> T {
                T::nearest(flush(a, m.ftz)).saturated(m.sat)
            }))?
        }
        (Type::F16 | Type::Bf16, Type::F64, Some(Rounding::Nearest)) => {
            by_type!(to, T in F16 Bf16: unary!(dense, m, |a: f64| -> T {
                T::rounded_f64(a, Rounding::Nearest).saturated(m.sat)
            }))?
        }
        (Type::F16 | Type::Bf16, Type::F64, Some(_)) => {
            by_type!(to, T in F16 Bf16: unary!(rare, m, |a: f64| -> T {
                T::rounded_f64(a, m.rounding).saturated(m.sat)
            }))?
        }
        (Type::F16 | Type::Bf16, _, Some(_)) => by_type!(to, T in F16 Bf16:
        by_type!(from, S in F16 Bf16 F32: unary!(rare, m, |a: S| -> T {
            T::rounded(a.wide().flushed(m.ftz), m.rounding).saturated(m.sat)
        })))
        .flatten()?,
        _ => return None,
    };
    Some(op.with(Modifiers {
        ftz,
        sat,
        rounding: mode,
        ..Modifiers::default()
    }))
}
