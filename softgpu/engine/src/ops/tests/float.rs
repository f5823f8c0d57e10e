//! `f32` and `f64` arithmetic: every rounding against exact results rounded in integers.

use super::harness::{one, run, Random, F32_EDGES, F64_EDGES};
use crate::ops::exact::{self, Exact, SINGLE};
use crate::ops::form::Rounding;

const DIRECTIONS: [(&str, Rounding); 4] = [
    ("rn", Rounding::Nearest),
    ("rz", Rounding::Zero),
    ("rm", Rounding::Down),
    ("rp", Rounding::Up),
];

const NAN: u64 = 0x7fff_ffff;

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Rows of three `f32`, all pairs of edges among them.
fn rows(seed: u64) -> Vec<[u64; 4]> {
    let mut random = Random::new(seed);
    let mut rows = vec![];
    for &a in F32_EDGES {
        for &b in F32_EDGES {
            rows.push([a.into(), b.into(), random.f32().into(), 0]);
        }
    }
    for _ in 0..6000 {
        rows.push([
            random.f32().into(),
            random.f32().into(),
            random.f32().into(),
            0,
        ]);
    }
    // Sums that cancel, wholly or nearly.
    for _ in 0..600 {
        let (a, b) = (random.f32(), random.f32());
        let product = (f32::from_bits(a) * f32::from_bits(b)).to_bits() ^ 0x8000_0000;
        rows.push([
            a.into(),
            b.into(),
            (product ^ (random.bits() as u32 & 1)).into(),
            0,
        ]);
        rows.push([
            a.into(),
            (a ^ 0x8000_0000 ^ (random.bits() as u32 & 1)).into(),
            0,
            0,
        ]);
    }
    rows
}

fn exact_of(x: f32) -> Exact {
    Exact::double(x.into())
}

fn rounded(exact: Exact, mode: Rounding) -> f32 {
    f32::from_bits(u32::from(exact.negative) << 31 | exact.round(SINGLE, mode) as u32)
}

/// `a * b + c` as a wide machine result where any of them is not finite.
fn fused(a: f32, b: f32, c: f32, mode: Rounding) -> f32 {
    if !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return a.mul_add(b, c);
    }
    rounded(exact_of(a).times(exact_of(b)).plus(exact_of(c), mode), mode)
}

fn sum(a: f32, b: f32, mode: Rounding) -> f32 {
    if !a.is_finite() || !b.is_finite() {
        return a + b;
    }
    rounded(exact_of(a).plus(exact_of(b), mode), mode)
}

fn product(a: f32, b: f32, mode: Rounding) -> f32 {
    if !a.is_finite() || !b.is_finite() {
        return a * b;
    }
    rounded(exact_of(a).times(exact_of(b)), mode)
}

fn quotient(a: f32, b: f32, mode: Rounding) -> f32 {
    if !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return a / b;
    }
    rounded(exact_of(a).over(exact_of(b)), mode)
}

fn root(a: f32, mode: Rounding) -> f32 {
    if !a.is_finite() || a <= 0.0 {
        return a.sqrt();
    }
    rounded(exact_of(a).root(), mode)
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

/// Checks one form against a function of flushed operands whose result is finished by the book.
fn check(
    name: &str,
    rows: &[[u64; 4]],
    ftz: bool,
    sat: bool,
    expected: impl Fn(f32, f32, f32) -> f32,
) {
    for (row, found) in rows.iter().zip(run(name, rows)) {
        let [a, b, c, _] = row.map(|x| if ftz { flushed(f(x)) } else { f(x) });
        let result = expected(a, b, c);
        let result = if ftz { flushed(result) } else { result };
        let bits = match result {
            nan if nan.is_nan() => {
                if sat {
                    0
                } else {
                    NAN
                }
            }
            x if !sat => x.to_bits().into(),
            x if x >= 1.0 => 1f32.to_bits().into(),
            x if x > 0.0 => x.to_bits().into(),
            _ => 0,
        };
        assert_eq!(
            found,
            bits,
            "{name} {:e} {:e} {:e}: {:e}",
            f(row[0]),
            f(row[1]),
            f(row[2]),
            f(found)
        );
    }
}

#[test]
fn sums_and_products_round_every_way() {
    let rows = rows(41);
    for (rounding, mode) in DIRECTIONS {
        for (suffix, ftz, sat) in [
            ("", false, false),
            (".ftz", true, false),
            (".sat", false, true),
            (".ftz.sat", true, true),
        ] {
            let name = |opcode: &str| format!("{opcode}.{rounding}{suffix}.f32");
            check(&name("add"), &rows, ftz, sat, |a, b, _| sum(a, b, mode));
            check(&name("sub"), &rows, ftz, sat, |a, b, _| sum(a, -b, mode));
            check(&name("mul"), &rows, ftz, sat, |a, b, _| product(a, b, mode));
            check(&name("fma"), &rows, ftz, sat, |a, b, c| {
                fused(a, b, c, mode)
            });
        }
    }
    check("add.f32", &rows, false, false, |a, b, _| a + b);
    check("mul.ftz.f32", &rows, true, false, |a, b, _| a * b);
    check("mad.rn.f32", &rows, false, false, |a, b, c| a.mul_add(b, c));
}

#[test]
fn quotients_and_roots_round_every_way() {
    let rows = rows(42);
    for (rounding, mode) in DIRECTIONS {
        for (suffix, ftz) in [("", false), (".ftz", true)] {
            let name = |opcode: &str| format!("{opcode}.{rounding}{suffix}.f32");
            check(&name("div"), &rows, ftz, false, |a, b, _| {
                quotient(a, b, mode)
            });
            check(&name("rcp"), &rows, ftz, false, |a, _, _| {
                quotient(1.0, a, mode)
            });
            check(&name("sqrt"), &rows, ftz, false, |a, _, _| root(a, mode));
        }
    }
    check("div.full.ftz.f32", &rows, true, false, |a, b, _| a / b);
    check("rcp.approx.ftz.f32", &rows, true, false, |a, _, _| 1.0 / a);
    check("sqrt.approx.f32", &rows, false, false, |a, _, _| a.sqrt());
}

#[test]
fn fused_results_differ_from_two_roundings() {
    let (a, b) = (f32::from_bits(0x3f80_0001), f32::from_bits(0x3f7f_fffe));
    assert_eq!(a * b - 1.0, 0.0);
    let fused = one("fma.rn.f32", &[a, b, -1.0].map(|x| x.to_bits().into()));
    assert_eq!(f(fused), -(2f32.powi(-46)));
}

#[test]
fn double_arithmetic_rounds_every_way() {
    let mut random = Random::new(43);
    let mut rows: Vec<[u64; 4]> = vec![];
    for &a in F64_EDGES {
        rows.extend(F64_EDGES.iter().map(|&b| [a, b, random.f64(), 0]));
    }
    rows.extend((0..3000).map(|_| [random.f64(), random.f64(), random.f64(), 0]));
    // Of several NaN operands, any may lend its payload.
    let check = |name: &str, expected: &dyn Fn(f64, f64, f64) -> f64| {
        let quiet = |bits: u64| {
            if f64::from_bits(bits).is_nan() {
                u64::MAX
            } else {
                bits
            }
        };
        for (row, found) in rows.iter().zip(run(name, &rows)) {
            let [a, b, c, _] = row.map(f64::from_bits);
            assert_eq!(
                quiet(found),
                quiet(expected(a, b, c).to_bits()),
                "{name} {a:e} {b:e} {c:e}"
            );
        }
    };
    for (rounding, mode) in DIRECTIONS {
        check(&format!("add.{rounding}.f64"), &|a, b, _| {
            exact::add(a, b, mode)
        });
        check(&format!("sub.{rounding}.f64"), &|a, b, _| {
            exact::add(a, -b, mode)
        });
        check(&format!("mul.{rounding}.f64"), &|a, b, _| {
            exact::mul(a, b, mode)
        });
        check(&format!("fma.{rounding}.f64"), &|a, b, c| {
            exact::fma(a, b, c, mode)
        });
        check(&format!("div.{rounding}.f64"), &|a, b, _| {
            exact::div(a, b, mode)
        });
        check(&format!("rcp.{rounding}.f64"), &|a, _, _| {
            exact::div(1.0, a, mode)
        });
        check(&format!("sqrt.{rounding}.f64"), &|a, _, _| {
            exact::sqrt(a, mode)
        });
    }
    check("add.f64", &|a, b, _| a + b);
    check("neg.f64", &|a, _, _| -a);
    check("abs.f64", &|a, _, _| a.abs());
    check("copysign.f64", &|a, b, _| b.copysign(a));
}

/// Minimum by the book: order the two with -0 below +0; a NaN loses.
fn lesser(a: f32, b: f32) -> f32 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ => {
            if a.total_cmp(&b).is_lt() {
                a
            } else {
                b
            }
        }
    }
}

fn greater(a: f32, b: f32) -> f32 {
    -lesser(-a, -b)
}

#[test]
fn minimum_and_maximum_order_zeros_and_lose_nan() {
    let rows = rows(44);
    for (suffix, ftz) in [("", false), (".ftz", true)] {
        check(&format!("min{suffix}.f32"), &rows, ftz, false, |a, b, _| {
            lesser(a, b)
        });
        check(&format!("max{suffix}.f32"), &rows, ftz, false, |a, b, _| {
            greater(a, b)
        });
        let nan = |a: f32, b: f32, x: f32| {
            if a.is_nan() || b.is_nan() {
                f32::NAN
            } else {
                x
            }
        };
        check(
            &format!("min{suffix}.NaN.f32"),
            &rows,
            ftz,
            false,
            |a, b, _| nan(a, b, lesser(a, b)),
        );
        check(
            &format!("max{suffix}.NaN.f32"),
            &rows,
            ftz,
            false,
            |a, b, _| nan(a, b, greater(a, b)),
        );
        let signed = |a: f32, b: f32, x: f32| {
            if a.is_sign_negative() != b.is_sign_negative() {
                -x
            } else {
                x
            }
        };
        check(
            &format!("min{suffix}.xorsign.abs.f32"),
            &rows,
            ftz,
            false,
            |a, b, _| signed(a, b, lesser(a.abs(), b.abs())),
        );
        check(
            &format!("max{suffix}.NaN.xorsign.abs.f32"),
            &rows,
            ftz,
            false,
            |a, b, _| nan(a, b, signed(a, b, greater(a.abs(), b.abs()))),
        );
    }
    let d = |x: f64| x.to_bits();
    for (a, b, least, greatest) in [
        (0.0, -0.0, -0.0, 0.0),
        (-0.0, 0.0, -0.0, 0.0),
        (f64::NAN, 1.0, 1.0, 1.0),
        (1.0, f64::NAN, 1.0, 1.0),
        (f64::NEG_INFINITY, 1.0, f64::NEG_INFINITY, 1.0),
    ] {
        assert_eq!(one("min.f64", &[d(a), d(b)]), d(least), "{a} {b}");
        assert_eq!(one("max.f64", &[d(a), d(b)]), d(greatest), "{a} {b}");
    }
}

#[test]
fn signs_are_bits() {
    for &code in F32_EDGES {
        let code = u64::from(code);
        assert_eq!(one("neg.f32", &[code]), code ^ 0x8000_0000);
        assert_eq!(one("abs.f32", &[code]), code & 0x7fff_ffff);
        assert_eq!(
            one("neg.ftz.f32", &[code]),
            u64::from(flushed(f(code)).to_bits()) ^ 0x8000_0000
        );
        assert_eq!(
            one("copysign.f32", &[0x8000_0000, code]),
            code | 0x8000_0000
        );
        assert_eq!(
            one("copysign.f32", &[0x3f80_0000, code]),
            code & 0x7fff_ffff
        );
    }
}

#[test]
fn approximate_division_underflows_for_huge_divisors() {
    let huge = 0x7f00_0000; // 2^127
    assert_eq!(one("div.approx.f32", &[0x7f00_0000, huge]), 0);
    assert_eq!(one("div.approx.ftz.f32", &[0xff00_0000, huge]), 0x8000_0000);
    assert_eq!(one("div.approx.f32", &[0x7f80_0000, huge]), NAN);
    assert_eq!(f(one("div.approx.f32", &[0x7e80_0000, 0x7e80_0000])), 1.0);
    assert_eq!(f(one("div.full.f32", &[huge, huge])), 1.0);
}
