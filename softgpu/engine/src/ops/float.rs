//! `f32` and `f64` arithmetic with IEEE results.

use super::exact;
use super::form::{Form, Rounding, Type};
use super::minmax::{extremum, Extremum};
use super::modifiers::Modifiers;
use super::predicate::{Test, TestFn};
use super::round::{self, canonical, finish, flush};
use super::run::Op;

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    match form.opcode {
        "add" | "sub" | "mul" | "fma" | "mad" | "a*b-c" | "c-a*b" => sum_or_product(form),
        "div" => quotient(form),
        "rcp" => reciprocal(form),
        "sqrt" => root(form),
        "abs" | "neg" => sign(form),
        "min" | "max" => least_or_greatest(form),
        "copysign" => by_type!(form.ty()?, T in F32 F64:
            binary!(|a: T, b: T| -> T { b.copysign(a) })),
        "testp" => test(form),
        _ => None,
    }
}

/// The `f32` operations rounded to nearest.
macro_rules! nearest {
    ($opcode:expr, $FTZ:ident, $SAT:ident) => {
        Some(match $opcode {
            "add" => binary!(|a: f32, b: f32| -> f32 {
                finish(flush(a, $FTZ) + flush(b, $FTZ), $FTZ, $SAT)
            }),
            "sub" => binary!(|a: f32, b: f32| -> f32 {
                finish(flush(a, $FTZ) - flush(b, $FTZ), $FTZ, $SAT)
            }),
            "mul" => binary!(|a: f32, b: f32| -> f32 {
                finish(flush(a, $FTZ) * flush(b, $FTZ), $FTZ, $SAT)
            }),
            "a*b-c" => ternary!(|a: f32, b: f32, c: f32| -> f32 {
                finish(
                    flush(a, $FTZ).mul_add(flush(b, $FTZ), -flush(c, $FTZ)),
                    $FTZ,
                    $SAT,
                )
            }),
            "c-a*b" => ternary!(|a: f32, b: f32, c: f32| -> f32 {
                finish(
                    (-flush(a, $FTZ)).mul_add(flush(b, $FTZ), flush(c, $FTZ)),
                    $FTZ,
                    $SAT,
                )
            }),
            _ => ternary!(|a: f32, b: f32, c: f32| -> f32 {
                finish(
                    flush(a, $FTZ).mul_add(flush(b, $FTZ), flush(c, $FTZ)),
                    $FTZ,
                    $SAT,
                )
            }),
        })
    };
}

/// The `f32` operations rounded in another direction.
macro_rules! directed {
    ($opcode:expr, $MODE:ident) => {
        Some(match $opcode {
            "add" => binary!(dense, m, |a: f32, b: f32| -> f32 {
                finish(
                    round::add(flush(a, m.ftz), flush(b, m.ftz), $MODE),
                    m.ftz,
                    m.sat,
                )
            }),
            "sub" => binary!(dense, m, |a: f32, b: f32| -> f32 {
                finish(
                    round::add(flush(a, m.ftz), -flush(b, m.ftz), $MODE),
                    m.ftz,
                    m.sat,
                )
            }),
            "mul" => binary!(dense, m, |a: f32, b: f32| -> f32 {
                finish(
                    round::mul(flush(a, m.ftz), flush(b, m.ftz), $MODE),
                    m.ftz,
                    m.sat,
                )
            }),
            _ => ternary!(dense, m, |a: f32, b: f32, c: f32| -> f32 {
                let (a, b, c) = (flush(a, m.ftz), flush(b, m.ftz), flush(c, m.ftz));
                finish(round::fma(a, b, c, $MODE), m.ftz, m.sat)
            }),
        })
    };
}

fn sum_or_product(form: &mut Form) -> Option<Op> {
    let rounding = form.rounding();
    if form.opcode == "fma" && rounding.is_none() {
        return None; // the one that has no default
    }
    let rounding = rounding.unwrap_or_default();
    if form.opcode.contains('*') && rounding != Rounding::Nearest {
        return None;
    }
    let ftz = form.eat("ftz");
    let sat = form.eat("sat");
    let modifiers = Modifiers {
        ftz,
        sat,
        rounding,
        ..Modifiers::default()
    };
    match form.ty()? {
        Type::F32 if rounding == Rounding::Nearest => {
            by_flag!(ftz, FTZ: by_flag!(sat, SAT: nearest!(form.opcode, FTZ, SAT)))
        }
        Type::F32 => {
            by_value!(rounding, MODE: Rounding in Zero Down Up: directed!(form.opcode, MODE),
                else None)
            .map(|op| op.with(modifiers))
        }
        Type::F64 if ftz || sat => None,
        Type::F64 if rounding == Rounding::Nearest => Some(match form.opcode {
            "add" => binary!(|a: f64, b: f64| -> f64 { a + b }),
            "sub" => binary!(|a: f64, b: f64| -> f64 { a - b }),
            "mul" => binary!(|a: f64, b: f64| -> f64 { a * b }),
            "a*b-c" => ternary!(|a: f64, b: f64, c: f64| -> f64 { a.mul_add(b, -c) }),
            "c-a*b" => ternary!(|a: f64, b: f64, c: f64| -> f64 { (-a).mul_add(b, c) }),
            _ => ternary!(|a: f64, b: f64, c: f64| -> f64 { a.mul_add(b, c) }),
        }),
        Type::F64 => Some(
            match form.opcode {
                "add" => binary!(rare, m, |a: f64, b: f64| -> f64 {
                    exact::add(a, b, m.rounding)
                }),
                "sub" => binary!(rare, m, |a: f64, b: f64| -> f64 {
                    exact::add(a, -b, m.rounding)
                }),
                "mul" => binary!(rare, m, |a: f64, b: f64| -> f64 {
                    exact::mul(a, b, m.rounding)
                }),
                _ => ternary!(rare, m, |a: f64, b: f64, c: f64| -> f64 {
                    exact::fma(a, b, c, m.rounding)
                }),
            }
            .with(modifiers),
        ),
        _ => None,
    }
}

fn quotient(form: &mut Form) -> Option<Op> {
    let approx = form.eat("approx");
    let full = !approx && form.eat("full");
    let rounding = if approx || full {
        Rounding::Nearest
    } else {
        form.rounding()?
    };
    let ftz = form.eat("ftz");
    let modifiers = Modifiers {
        ftz,
        rounding,
        ..Modifiers::default()
    };
    let op = match form.ty()? {
        Type::F32 if approx => binary!(dense, m, |a: f32, b: f32| -> f32 {
            finish(
                divide_approximately(flush(a, m.ftz), flush(b, m.ftz)),
                m.ftz,
                false,
            )
        }),
        Type::F32 => by_rounding!(rounding, MODE: binary!(dense, m, |a: f32, b: f32| -> f32 {
            finish(round::div(flush(a, m.ftz), flush(b, m.ftz), MODE), m.ftz, false)
        })),
        Type::F64 if ftz || approx || full => return None,
        Type::F64 if rounding == Rounding::Nearest => binary!(|a: f64, b: f64| -> f64 { a / b }),
        Type::F64 => binary!(rare, m, |a: f64, b: f64| -> f64 {
            exact::div(a, b, m.rounding)
        }),
        _ => return None,
    };
    Some(op.with(modifiers))
}

/// `div.approx`: `a * (1 / b)`, whose reciprocal underflows for the largest divisors.
#[inline(always)]
fn divide_approximately(a: f32, b: f32) -> f32 {
    const LARGE: f32 = f32::from_bits((126 + 127) << 23);
    let reciprocal_of = if b.abs() > LARGE {
        f32::INFINITY.copysign(b)
    } else {
        b
    };
    if b.abs() > LARGE && a.is_infinite() {
        f32::NAN
    } else {
        a / reciprocal_of
    }
}

fn reciprocal(form: &mut Form) -> Option<Op> {
    let approx = form.eat("approx");
    let rounding = if approx {
        Rounding::Nearest
    } else {
        form.rounding()?
    };
    let ftz = form.eat("ftz");
    let modifiers = Modifiers {
        ftz,
        rounding,
        ..Modifiers::default()
    };
    let op = match form.ty()? {
        Type::F32 => by_rounding!(rounding, MODE: unary!(dense, m, |a: f32| -> f32 {
            finish(round::div(1.0, flush(a, m.ftz), MODE), m.ftz, false)
        })),
        Type::F64 if approx && ftz => {
            unary!(|a: f64| -> f64 { upper_word(1.0 / from_upper_word(a)) })
        }
        Type::F64 if approx || ftz => return None,
        Type::F64 if rounding == Rounding::Nearest => unary!(|a: f64| -> f64 { 1.0 / a }),
        Type::F64 => unary!(rare, m, |a: f64| -> f64 { exact::div(1.0, a, m.rounding) }),
        _ => return None,
    };
    Some(op.with(modifiers))
}

/// The argument of the gross `f64` approximations: the upper word alone, subnormals as zero.
#[inline(always)]
pub(super) fn from_upper_word(a: f64) -> f64 {
    let bits = a.to_bits() & 0xffff_ffff_0000_0000;
    let exponent = bits & 0x7ff0_0000_0000_0000;
    if a.is_nan() {
        a
    } else {
        f64::from_bits(if exponent == 0 { bits & 1 << 63 } else { bits })
    }
}

/// The result of the gross `f64` approximations: rounded to the upper word, subnormals as zero.
#[inline(always)]
pub(super) fn upper_word(x: f64) -> f64 {
    let rounded = (x.to_bits() + 0x8000_0000) & 0xffff_ffff_0000_0000;
    let exponent = rounded & 0x7ff0_0000_0000_0000;
    if x.is_nan() {
        f64::from_bits(0x7fff_ffff_0000_0000)
    } else {
        f64::from_bits(if exponent == 0 {
            rounded & 1 << 63
        } else {
            rounded
        })
    }
}

fn root(form: &mut Form) -> Option<Op> {
    let approx = form.eat("approx");
    let rounding = if approx {
        Rounding::Nearest
    } else {
        form.rounding()?
    };
    let ftz = form.eat("ftz");
    let modifiers = Modifiers {
        ftz,
        rounding,
        ..Modifiers::default()
    };
    let op = match form.ty()? {
        Type::F32 => by_rounding!(rounding, MODE: unary!(dense, m, |a: f32| -> f32 {
            finish(round::sqrt(flush(a, m.ftz), MODE), m.ftz, false)
        })),
        Type::F64 if ftz || approx => return None,
        Type::F64 if rounding == Rounding::Nearest => unary!(|a: f64| -> f64 { a.sqrt() }),
        Type::F64 => unary!(rare, m, |a: f64| -> f64 { exact::sqrt(a, m.rounding) }),
        _ => return None,
    };
    Some(op.with(modifiers))
}

/// `abs` and `neg` touch the sign bit alone, of NaN too.
fn sign(form: &mut Form) -> Option<Op> {
    let ftz = form.eat("ftz");
    let op = match (form.ty()?, form.opcode) {
        (Type::F32, "abs") => unary!(dense, m, |a: f32| -> f32 { flush(a, m.ftz).abs() }),
        (Type::F32, _) => unary!(dense, m, |a: f32| -> f32 { -flush(a, m.ftz) }),
        (Type::F64, "abs") if !ftz => unary!(|a: f64| -> f64 { a.abs() }),
        (Type::F64, _) if !ftz => unary!(|a: f64| -> f64 { -a }),
        _ => return None,
    };
    Some(op.with(Modifiers {
        ftz,
        ..Modifiers::default()
    }))
}

fn least_or_greatest(form: &mut Form) -> Option<Op> {
    let modifiers = extremum_modifiers(form)?;
    let plain = modifiers
        == Modifiers {
            greatest: modifiers.greatest,
            ..Modifiers::default()
        };
    let op = match (form.ty()?, modifiers.greatest) {
        (Type::F32, false) if plain => binary!(|a: f32, b: f32| -> f32 { canonical(a.smaller(b)) }),
        (Type::F32, true) if plain => binary!(|a: f32, b: f32| -> f32 { canonical(a.larger(b)) }),
        (Type::F32, _) => binary!(dense, m, |a: f32, b: f32| -> f32 {
            extremum(flush(a, m.ftz), flush(b, m.ftz), m)
        }),
        (Type::F64, false) if plain => binary!(|a: f64, b: f64| -> f64 { a.smaller(b) }),
        (Type::F64, true) if plain => binary!(|a: f64, b: f64| -> f64 { a.larger(b) }),
        _ => return None,
    };
    Some(op.with(modifiers))
}

/// Reads the modifiers of `min` and `max`.
pub(super) fn extremum_modifiers(form: &mut Form) -> Option<Modifiers> {
    let modifiers = Modifiers {
        greatest: form.opcode == "max",
        ftz: form.eat("ftz"),
        nan: form.eat("NaN"),
        xorsign: form.eat("xorsign"),
        ..Modifiers::default()
    };
    (!modifiers.xorsign || form.eat("abs")).then_some(modifiers)
}

/// Declares a condition on a float.
macro_rules! condition {
    ($T:ty, |$a:ident| $holds:expr) => {{
        struct F;
        impl TestFn for F {
            type A = $T;
            #[inline(always)]
            fn holds($a: $T) -> bool {
                $holds
            }
        }
        Op::rare::<Test<F>>()
    }};
}

fn test(form: &mut Form) -> Option<Op> {
    let property = form.next()?;
    let ty = form.ty()?;
    match property {
        "finite" => by_type!(ty, T in F32 F64: condition!(T, |a| a.is_finite())),
        "infinite" => by_type!(ty, T in F32 F64: condition!(T, |a| a.is_infinite())),
        "number" => by_type!(ty, T in F32 F64: condition!(T, |a| !a.is_nan())),
        "notanumber" => by_type!(ty, T in F32 F64: condition!(T, |a| a.is_nan())),
        "normal" => by_type!(ty, T in F32 F64: condition!(T, |a| a.is_normal())),
        "subnormal" => by_type!(ty, T in F32 F64: condition!(T, |a| a.is_subnormal())),
        _ => None,
    }
}
