//! The approximate operations against the machine's mathematics library in `f64`.

use super::harness::{one, run, Random, F32_EDGES};

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Rows of `f32` arguments, evenly spread over an interval, and edges.
fn rows(from: f32, to: f32) -> Vec<[u64; 4]> {
    let mut rows: Vec<[u64; 4]> = (0..40_000)
        .map(|n| {
            [
                u64::from((from + (to - from) * (n as f32 / 40_000.0)).to_bits()),
                0,
                0,
                0,
            ]
        })
        .collect();
    rows.extend(F32_EDGES.iter().map(|&x| [x.into(), 0, 0, 0]));
    rows
}

/// The largest error, in units of the last place of the `f32` nearest to the truth.
fn worst_ulp(name: &str, rows: &[[u64; 4]], truth: impl Fn(f64) -> f64) -> f64 {
    let mut worst = 0f64;
    for (row, found) in rows.iter().zip(run(name, rows)) {
        let truth = truth(f(row[0]).into());
        let found = f(found);
        if truth.is_nan() {
            assert_eq!(found.to_bits(), 0x7fff_ffff, "{name} {:e}", f(row[0]));
            continue;
        }
        let nearest = truth as f32;
        if nearest.is_infinite() || truth == 0.0 {
            assert_eq!(found, nearest, "{name} {:e}", f(row[0]));
            continue;
        }
        let ulp = (f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest)).abs();
        worst = worst.max((f64::from(found) - truth).abs() / ulp);
    }
    worst
}

/// Rounding alone costs half a unit.
const NEARLY_ROUNDED: f64 = 0.501;

#[test]
fn exponentials_and_logarithms_are_nearly_rounded() {
    let worst = worst_ulp("ex2.approx.f32", &rows(-150.0, 130.0), f64::exp2);
    assert!(worst < NEARLY_ROUNDED, "ex2: {worst}");
    let worst = worst_ulp("ex2.approx.f32", &rows(-1.0, 1.0), f64::exp2);
    assert!(worst < NEARLY_ROUNDED, "ex2: {worst}");
    for (from, to) in [(1e-38, 1e-30), (0.4, 2.5), (0.99, 1.01), (1.0, 3e38)] {
        let worst = worst_ulp("lg2.approx.f32", &rows(from, to), f64::log2);
        assert!(worst < NEARLY_ROUNDED, "lg2 from {from:e}: {worst}");
    }
}

#[test]
fn roots_are_nearly_rounded() {
    for (from, to) in [(1e-38, 1e-30), (0.1, 10.0), (1.0, 3e38)] {
        let worst = worst_ulp("rsqrt.approx.f32", &rows(from, to), |x| 1.0 / x.sqrt());
        assert!(worst < NEARLY_ROUNDED, "rsqrt from {from:e}: {worst}");
    }
}

/// Near a root of the function the absolute error counts.
fn worst_absolute(name: &str, rows: &[[u64; 4]], truth: impl Fn(f64) -> f64) -> f64 {
    let results = rows.iter().zip(run(name, rows));
    let errors = results
        .filter(|(row, _)| f(row[0]).is_finite())
        .map(|(row, found)| (f64::from(f(found)) - truth(f(row[0]).into())).abs());
    errors.fold(0.0, f64::max)
}

#[test]
fn angles_are_right_to_the_last_bit_at_any_size() {
    for (from, to) in [(-3.2, 3.2), (-1e4, 1e4), (-5e8, 5e8), (5e8, 3e38)] {
        let worst = worst_absolute("sin.approx.f32", &rows(from, to), f64::sin);
        assert!(worst < 3.1e-8, "sin from {from:e}: {worst:e}");
        let worst = worst_absolute("cos.approx.f32", &rows(from, to), f64::cos);
        assert!(worst < 3.1e-8, "cos from {from:e}: {worst:e}");
    }
    let worst = worst_ulp("sin.approx.f32", &rows(-0.8, 0.8), f64::sin);
    assert!(worst < NEARLY_ROUNDED, "sin: {worst}");
}

#[test]
fn hyperbolic_tangents_are_nearly_rounded() {
    for (from, to) in [(-1e-3, 1e-3), (-1.0, 1.0), (-12.0, 12.0)] {
        let worst = worst_ulp("tanh.approx.f32", &rows(from, to), f64::tanh);
        assert!(worst < 0.51, "tanh from {from:e}: {worst}");
    }
}

#[test]
fn special_arguments_have_special_results() {
    let (inf, nan, minus) = (0x7f80_0000, 0x7fff_ffff, 0x8000_0000);
    for (name, argument, result) in [
        ("ex2.approx.f32", inf | minus, 0),
        ("ex2.approx.f32", inf, inf),
        ("ex2.approx.f32", minus, 0x3f80_0000),
        ("ex2.approx.f32", 0x0000_0001, 0x3f80_0000),
        ("ex2.approx.f32", 0xc315_0000, 0x0000_0001), // 2^-149
        ("ex2.approx.ftz.f32", 0xc2fe_0000, 0),       // 2^-127
        ("lg2.approx.f32", 0, inf | minus),
        ("lg2.approx.f32", minus, inf | minus),
        ("lg2.approx.f32", 0xbf80_0000, nan),
        ("lg2.approx.f32", inf, inf),
        ("lg2.approx.f32", 0x0000_0001, 0xc315_0000), // -149
        ("lg2.approx.ftz.f32", 0x0000_0001, inf | minus),
        ("rsqrt.approx.f32", 0, inf),
        ("rsqrt.approx.f32", minus, inf | minus),
        ("rsqrt.approx.ftz.f32", 0x8000_0001, inf | minus),
        ("rsqrt.approx.f32", inf, 0),
        ("rsqrt.approx.f32", 0xbf80_0000, nan),
        ("sin.approx.f32", minus, minus),
        ("sin.approx.f32", inf, nan),
        ("sin.approx.ftz.f32", 0x8000_0001, minus),
        ("cos.approx.f32", inf | minus, nan),
        ("cos.approx.ftz.f32", 0x0000_0001, 0x3f80_0000),
        ("tanh.approx.f32", inf | minus, 0xbf80_0000),
        ("tanh.approx.f32", minus, minus),
        ("sqrt.approx.ftz.f32", 0x8000_0001, minus),
        ("rcp.approx.ftz.f32", 0x0000_0001, inf),
        ("rcp.approx.ftz.f32", 0x7f00_0000, 0),
    ] {
        assert_eq!(one(name, &[argument]), result, "{name} {argument:x}");
    }
}

#[test]
fn gross_double_approximations_have_one_word() {
    let mut random = Random::new(81);
    let rows: Vec<[u64; 4]> = (0..4000).map(|_| [random.f64(), 0, 0, 0]).collect();
    let check = |name: &str, truth: &dyn Fn(f64) -> f64| {
        for (row, found) in rows.iter().zip(run(name, &rows)) {
            let upper = f64::from_bits(row[0] >> 32 << 32);
            let argument = if upper.is_subnormal() {
                0f64.copysign(upper)
            } else {
                upper
            };
            let (truth, found_value) = (truth(argument), f64::from_bits(found));
            assert_eq!(found as u32, 0, "{name} {:x}", row[0]);
            if truth.is_nan() || f64::from_bits(row[0]).is_nan() {
                assert!(found_value.is_nan(), "{name} {:x}", row[0]);
            } else if truth == 0.0 || truth.is_infinite() || truth.is_subnormal() {
                let flushed = if truth.is_subnormal() {
                    0f64.copysign(truth)
                } else {
                    truth
                };
                assert_eq!(
                    found_value.to_bits(),
                    flushed.to_bits(),
                    "{name} {:x}",
                    row[0]
                );
            } else {
                assert!(
                    (found_value / truth - 1.0).abs() < 2f64.powi(-20),
                    "{name} {:x}",
                    row[0]
                );
            }
        }
    };
    check("rcp.approx.ftz.f64", &|x| 1.0 / x);
    check("rsqrt.approx.ftz.f64", &|x| 1.0 / x.sqrt());
    assert_eq!(one("rsqrt.approx.f64", &[4f64.to_bits()]), 0.5f64.to_bits());
}

#[test]
fn halves_are_the_nearest_to_the_truth() {
    let codes: Vec<[u64; 4]> = (0..0x1_0000).map(|code| [code, 0, 0, 0]).collect();
    let pairs: Vec<[u64; 4]> = (0..0x1_0000)
        .map(|code| [code << 16 | code, 0, 0, 0])
        .collect();
    let quiet = |nan: bool, code: u16| if nan { 0x7fff } else { code.into() };
    let half = |x: f64| quiet(x.is_nan(), half::f16::from_f64(x).to_bits());
    let bfloat = |x: f64| quiet(x.is_nan(), half::bf16::from_f64(x).to_bits());
    let from_half = |code: u64| half::f16::from_bits(code as u16).to_f64();
    let from_bfloat = |code: u64| half::bf16::from_bits(code as u16).to_f64();
    let flushed = |code: u64| {
        if code & 0x7f80 == 0 {
            code & 0x8000
        } else {
            code
        }
    };
    type Truth<'f> = &'f dyn Fn(u64) -> u64;
    let cases: [(&str, &str, Truth); 4] = [
        ("tanh.approx.f16", "tanh.approx.f16x2", &|c| {
            half(from_half(c).tanh())
        }),
        ("tanh.approx.bf16", "tanh.approx.bf16x2", &|c| {
            bfloat(from_bfloat(c).tanh())
        }),
        ("ex2.approx.f16", "ex2.approx.f16x2", &|c| {
            half(from_half(c).exp2())
        }),
        ("ex2.approx.ftz.bf16", "ex2.approx.ftz.bf16x2", &|c| {
            flushed(bfloat(from_bfloat(flushed(c)).exp2()))
        }),
    ];
    for (single, pair, truth) in cases {
        let (found, in_pairs) = (run(single, &codes), run(pair, &pairs));
        for code in 0..0x1_0000u64 {
            let (found, expected) = (found[code as usize], truth(code));
            // The library that tells the truth rounds too; a tie may fall either way.
            assert!(
                found.abs_diff(expected) <= 1,
                "{single} {code:x}: {found:x} {expected:x}"
            );
            assert_eq!(
                in_pairs[code as usize],
                found << 16 | found,
                "{pair} {code:x}"
            );
        }
    }
}
