//! Comparisons against `partial_cmp`.

use super::harness::{run_case, Random, F32_EDGES};
use std::cmp::Ordering::{self, Equal, Greater, Less};

/// What a comparison says of an order, `None` where a side is NaN.
fn holds(comparison: &str, order: Option<Ordering>) -> bool {
    match comparison {
        "eq" => order == Some(Equal),
        "ne" => matches!(order, Some(Less | Greater)),
        "lt" | "lo" => order == Some(Less),
        "le" | "ls" => matches!(order, Some(Less | Equal)),
        "gt" | "hi" => order == Some(Greater),
        "ge" | "hs" => matches!(order, Some(Greater | Equal)),
        "num" => order.is_some(),
        "nan" => order.is_none(),
        unordered => order.is_none() || holds(&unordered[..2], order),
    }
}

const FLOATS: &[&str] = &[
    "eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];
const INTEGERS: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge"];

/// Checks `setp` in all its shapes over rows of two operands, whose order `order` tells.
fn check(
    comparisons: &[&str],
    suffix: &str,
    rows: &[[u64; 4]],
    order: impl Fn(u64, u64) -> Option<Ordering>,
) {
    let rows: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(n, r)| [r[0], r[1], (n as u64 / 2) & 1, 0])
        .collect();
    for comparison in comparisons {
        for boolean in ["", ".and", ".or", ".xor"] {
            let name = format!("setp.{comparison}{boolean}.{suffix}");
            let outcome = run_case(&name, &rows, |_| ());
            for (lane, row) in rows.iter().enumerate() {
                let yes = holds(comparison, order(row[0], row[1]));
                let with = row[2] != 0;
                let combine = |x: bool| match boolean {
                    ".and" => x && with,
                    ".or" => x || with,
                    ".xor" => x != with,
                    _ => x,
                };
                assert_eq!(outcome.d[lane] != 0, combine(yes), "{name} {row:x?}");
                assert_eq!(outcome.q[lane] != 0, combine(!yes), "{name} q {row:x?}");
            }
        }
    }
}

fn integers(seed: u64) -> Vec<[u64; 4]> {
    let mut random = Random::new(seed);
    let mut rows: Vec<_> = (0..200)
        .map(|_| [random.integer(), random.integer(), 0, 0])
        .collect();
    for row in rows.iter_mut().step_by(5) {
        row[1] = row[0];
    }
    rows
}

#[test]
fn integers_compare_by_their_sign() {
    let rows = integers(21);
    check(INTEGERS, "u16", &rows, |a, b| {
        (a as u16).partial_cmp(&(b as u16))
    });
    check(INTEGERS, "s16", &rows, |a, b| {
        (a as i16).partial_cmp(&(b as i16))
    });
    check(INTEGERS, "u32", &rows, |a, b| {
        (a as u32).partial_cmp(&(b as u32))
    });
    check(INTEGERS, "s32", &rows, |a, b| {
        (a as i32).partial_cmp(&(b as i32))
    });
    check(INTEGERS, "u64", &rows, |a, b| a.partial_cmp(&b));
    check(INTEGERS, "s64", &rows, |a, b| {
        (a as i64).partial_cmp(&(b as i64))
    });
    check(&["eq", "ne"], "b16", &rows, |a, b| {
        (a as u16).partial_cmp(&(b as u16))
    });
    check(&["eq", "ne"], "b32", &rows, |a, b| {
        (a as u32).partial_cmp(&(b as u32))
    });
    check(&["eq", "ne"], "b64", &rows, |a, b| a.partial_cmp(&b));
    check(&["lo", "ls", "hi", "hs"], "u32", &rows, |a, b| {
        (a as u32).partial_cmp(&(b as u32))
    });
}

#[test]
fn floats_compare_with_nan_on_either_side() {
    let mut random = Random::new(22);
    let mut rows: Vec<[u64; 4]> = vec![];
    for &a in F32_EDGES {
        rows.extend(F32_EDGES.iter().map(|&b| [a.into(), b.into(), 0, 0]));
    }
    rows.extend((0..200).map(|_| [random.f32().into(), random.f32().into(), 0, 0]));
    let f = |x: u64| f32::from_bits(x as u32);
    let flushed = |x: u64| if f(x).is_subnormal() { 0.0 } else { f(x) };
    check(FLOATS, "f32", &rows, |a, b| f(a).partial_cmp(&f(b)));
    check(FLOATS, "ftz.f32", &rows, |a, b| {
        flushed(a).partial_cmp(&flushed(b))
    });

    let rows: Vec<[u64; 4]> = (0..600)
        .map(|_| [random.f64(), random.f64(), 0, 0])
        .collect();
    check(FLOATS, "f64", &rows, |a, b| {
        f64::from_bits(a).partial_cmp(&f64::from_bits(b))
    });

    let rows: Vec<[u64; 4]> = (0..600)
        .map(|n| {
            [
                random.bits(),
                if n % 3 == 0 { 0x7c00 } else { random.bits() },
                0,
                0,
            ]
        })
        .collect();
    let half = |x: u64| half::f16::from_bits(x as u16);
    let flushed = |x: u64| {
        if half(x).classify() == std::num::FpCategory::Subnormal {
            half(0)
        } else {
            half(x)
        }
    };
    check(FLOATS, "f16", &rows, |a, b| half(a).partial_cmp(&half(b)));
    check(FLOATS, "ftz.f16", &rows, |a, b| {
        flushed(a).partial_cmp(&flushed(b))
    });
    let bfloat = |x: u64| half::bf16::from_bits(x as u16);
    check(FLOATS, "bf16", &rows, |a, b| {
        bfloat(a).partial_cmp(&bfloat(b))
    });
}

#[test]
fn pairs_compare_into_two_predicates() {
    let rows = [
        [0x3c00_7e00, 0x3c00_3c00, 1, 0],
        [0x0000_3c00, 0x3c00_3c00, 0, 0],
    ];
    let outcome = run_case("setp.eq.f16x2", &rows, |_| ());
    assert_eq!((&outcome.d[..], &outcome.q[..]), (&[0, 1][..], &[1, 0][..]));
    let outcome = run_case("setp.ltu.and.f16x2", &rows, |_| ());
    assert_eq!((&outcome.d[..], &outcome.q[..]), (&[1, 0][..], &[0, 0][..]));
}

#[test]
fn set_writes_ones_or_one() {
    let (one_f32, nan) = (0x3f80_0000, 0x7fc0_0000);
    let rows = [
        [one_f32, one_f32, 1, 0],
        [one_f32, nan, 1, 0],
        [one_f32, one_f32, 0, 0],
    ];
    for (name, expected) in [
        ("set.eq.u32.f32", [0xffff_ffff, 0, 0xffff_ffff]),
        ("set.eq.s32.f32", [0xffff_ffff, 0, 0xffff_ffff]),
        ("set.equ.f32.f32", [one_f32, one_f32, one_f32]),
        ("set.eq.and.f32.f32", [one_f32, 0, 0]),
        ("set.nan.xor.u32.f32", [0xffff_ffff, 0, 0]),
    ] {
        assert_eq!(run_case(name, &rows, |_| ()).d, expected, "{name}");
    }
    let rows = [[0x3c00_7e00, 0x3c00_3c00, 0, 0]];
    for (name, expected) in [
        ("set.eq.f16x2.f16x2", 0x3c00_0000),
        ("set.neu.f16x2.f16x2", 0x0000_3c00),
        ("set.eq.u32.f16x2", 0xffff_0000),
        ("set.nan.f16.f16", 0x3c00),
        ("set.nan.u16.f16", 0xffff),
        ("set.eq.bf16x2.bf16x2", 0x3f80_0000),
    ] {
        assert_eq!(run_case(name, &rows, |_| ()).d, [expected], "{name}");
    }
}
