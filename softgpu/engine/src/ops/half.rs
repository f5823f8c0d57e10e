//! Arithmetic on `f16`, `bf16` and pairs of them: computed exactly or wider, rounded once.

use super::float::extremum_modifiers;
use super::form::{Form, Type};
use super::lane::{Bf16, Pair, F16};
use super::minmax::extremum;
use super::modifiers::Modifiers;
use super::round::Half;
use super::run::Op;

/// Declares a function of one, two or three halves `H` for a half type or, half by half, for a
/// pair of them.
macro_rules! halves {
    ($ty:expr, $H:ident, $m:ident, $shape:tt) => {
        match $ty {
            Type::F16 => {
                type $H = F16;
                Some(halves!(@ single $H $m $shape))
            }
            Type::F16x2 => {
                type $H = F16;
                Some(halves!(@ pair $H $m $shape))
            }
            Type::Bf16 => {
                type $H = Bf16;
                Some(halves!(@ single $H $m $shape))
            }
            Type::Bf16x2 => {
                type $H = Bf16;
                Some(halves!(@ pair $H $m $shape))
            }
            _ => None,
        }
    };
    (@ single $H:ident $m:ident (|$a:ident| $r:expr)) => { unary!(dense, $m, |$a: $H| -> $H { $r }) };
    (@ single $H:ident $m:ident (|$a:ident, $b:ident| $r:expr)) => {
        binary!(dense, $m, |$a: $H, $b: $H| -> $H { $r })
    };
    (@ single $H:ident $m:ident (|$a:ident, $b:ident, $c:ident| $r:expr)) => {
        ternary!(dense, $m, |$a: $H, $b: $H, $c: $H| -> $H { $r })
    };
    // Each half is spelled out: a closure for both might be compiled apart, without AVX2.
    (@ pair $H:ident $m:ident (|$a:ident| $r:expr)) => {
        unary!(dense, $m, |a: Pair<$H>| -> Pair<$H> {
            Pair {
                low: { let $a = a.low; $r },
                high: { let $a = a.high; $r },
            }
        })
    };
    (@ pair $H:ident $m:ident (|$a:ident, $b:ident| $r:expr)) => {
        binary!(dense, $m, |a: Pair<$H>, b: Pair<$H>| -> Pair<$H> {
            Pair {
                low: { let ($a, $b) = (a.low, b.low); $r },
                high: { let ($a, $b) = (a.high, b.high); $r },
            }
        })
    };
    (@ pair $H:ident $m:ident (|$a:ident, $b:ident, $c:ident| $r:expr)) => {
        ternary!(dense, $m, |a: Pair<$H>, b: Pair<$H>, c: Pair<$H>| -> Pair<$H> {
            Pair {
                low: { let ($a, $b, $c) = (a.low, b.low, c.low); $r },
                high: { let ($a, $b, $c) = (a.high, b.high, c.high); $r },
            }
        })
    };
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    match form.opcode {
        "add" | "sub" | "mul" => sum_or_product(form),
        "fma" => fused(form),
        "abs" | "neg" => sign(form),
        "min" | "max" => least_or_greatest(form),
        _ => None,
    }
}

/// `a + b` of halves: `f32` has more than twice their bits, so rounding twice is rounding once.
#[inline(always)]
fn sum<H: Half>(a: H, b: H) -> H {
    H::nearest(a.widen() + b.widen())
}

/// `.ftz`, `.sat` and `.relu` of a result.
#[inline(always)]
fn finished<H: Half>(x: H, modifiers: Modifiers) -> H {
    x.flushed(modifiers.ftz)
        .saturated(modifiers.sat)
        .rectified(modifiers.relu)
}

fn sum_or_product(form: &mut Form) -> Option<Op> {
    form.eat("rn"); // the default, and the only one
    let modifiers = Modifiers {
        ftz: form.eat("ftz"),
        sat: form.eat("sat"),
        ..Modifiers::default()
    };
    let ty = of_half(form, modifiers)?;
    let op = match form.opcode {
        "add" => halves!(
            ty,
            H,
            m,
            (|a, b| finished(sum(a.flushed(m.ftz), b.flushed(m.ftz)), m))
        ),
        "sub" => halves!(
            ty,
            H,
            m,
            (|a, b| finished(sum(a.flushed(m.ftz), negated(b.flushed(m.ftz))), m))
        ),
        _ => halves!(
            ty,
            H,
            m,
            (|a, b| finished(a.flushed(m.ftz).product(b.flushed(m.ftz)), m))
        ),
    };
    Some(op?.with(modifiers))
}

/// Reads the type. Bfloats have neither `.ftz` nor `.sat`.
fn of_half(form: &mut Form, modifiers: Modifiers) -> Option<Type> {
    let ty = form.ty()?;
    let bfloat = matches!(ty, Type::Bf16 | Type::Bf16x2);
    (!bfloat || !modifiers.ftz && !modifiers.sat).then_some(ty)
}

#[inline(always)]
fn negated<H: Half>(x: H) -> H {
    H::from_code(x.code() ^ 0x8000)
}

fn fused(form: &mut Form) -> Option<Op> {
    if !form.eat("rn") {
        return None;
    }
    let (ftz, sat) = (form.eat("ftz"), form.eat("sat"));
    let relu = !sat && form.eat("relu");
    let modifiers = Modifiers {
        ftz,
        sat,
        relu,
        ..Modifiers::default()
    };
    let ty = of_half(form, modifiers)?;
    let op = halves!(
        ty,
        H,
        m,
        (|a, b, c| {
            finished(
                a.flushed(m.ftz).fused(b.flushed(m.ftz), c.flushed(m.ftz)),
                m,
            )
        })
    );
    Some(op?.with(modifiers))
}

fn sign(form: &mut Form) -> Option<Op> {
    let modifiers = Modifiers {
        ftz: form.eat("ftz"),
        ..Modifiers::default()
    };
    let ty = of_half(form, modifiers)?;
    let op = match form.opcode {
        "neg" => halves!(ty, H, m, (|a| negated(a.flushed(m.ftz)))),
        _ => halves!(
            ty,
            H,
            m,
            (|a| H::from_code(a.flushed(m.ftz).code() & 0x7fff))
        ),
    };
    Some(op?.with(modifiers))
}

fn least_or_greatest(form: &mut Form) -> Option<Op> {
    let modifiers = extremum_modifiers(form)?;
    let ty = of_half(form, modifiers)?;
    let op = halves!(
        ty,
        H,
        m,
        (|a, b| least_or_greatest_of(a.flushed(m.ftz), b.flushed(m.ftz), m))
    );
    Some(op?.with(modifiers))
}

/// The signs of NaN, which widening forgets, count for `.xorsign` too.
#[inline(always)]
fn least_or_greatest_of<H: Half>(a: H, b: H, modifiers: Modifiers) -> H {
    let chosen = H::nearest(extremum(a.widen(), b.widen(), modifiers));
    if modifiers.xorsign && !chosen.is_nan() {
        H::from_code((chosen.code() & 0x7fff) | ((a.code() ^ b.code()) & 0x8000))
    } else {
        chosen
    }
}
