//! The integer-only floating point that other tests use as their oracle, against the machine's
//! arithmetic and against what rounding means.

use super::harness::Random;
use crate::ops::exact::{self, Exact, DOUBLE, SINGLE};
use crate::ops::form::Rounding;

const DIRECTIONS: [Rounding; 4] = [
    Rounding::Nearest,
    Rounding::Zero,
    Rounding::Down,
    Rounding::Up,
];

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn nearest_results_are_the_machine_s() {
    let mut random = Random::new(31);
    for _ in 0..100_000 {
        let [a, b, c] = [0; 3].map(|_| f64::from_bits(random.f64()));
        let mode = Rounding::Nearest;
        assert!(same(exact::add(a, b, mode), a + b), "{a:e} + {b:e}");
        assert!(same(exact::mul(a, b, mode), a * b), "{a:e} * {b:e}");
        assert!(
            same(exact::fma(a, b, c, mode), a.mul_add(b, c)),
            "{a:e} * {b:e} + {c:e}"
        );
        assert!(same(exact::div(a, b, mode), a / b), "{a:e} / {b:e}");
        assert!(same(exact::sqrt(a, mode), a.sqrt()), "sqrt {a:e}");
    }
}

/// Whichever way it is rounded, a result is one of two neighbours around the exact one, and each
/// direction takes its side.
#[test]
fn directed_results_enclose_the_nearest() {
    let mut random = Random::new(32);
    for _ in 0..50_000 {
        let [a, b, c] = [0; 3].map(|_| f64::from_bits(random.f64()));
        let operations: [&dyn Fn(Rounding) -> f64; 5] = [
            &|mode| exact::add(a, b, mode),
            &|mode| exact::mul(a, b, mode),
            &|mode| exact::fma(a, b, c, mode),
            &|mode| exact::div(a, b, mode),
            &|mode| exact::sqrt(a, mode),
        ];
        for operation in operations {
            let [nearest, zero, down, up] = DIRECTIONS.map(operation);
            if nearest.is_nan() {
                assert!(zero.is_nan() && down.is_nan() && up.is_nan());
                continue;
            }
            assert!(
                down <= up && (nearest == down || nearest == up),
                "{a:e} {b:e} {c:e}"
            );
            assert!(
                down == up
                    || up.to_bits().abs_diff(down.to_bits()) == 1
                    || down == 0.0
                    || up == 0.0
            );
            let inward = if up <= 0.0 { up } else { down };
            assert_eq!(zero, inward, "{a:e} {b:e} {c:e}");
        }
    }
}

#[test]
fn zero_sums_have_the_sign_of_their_direction() {
    for mode in DIRECTIONS {
        let expected = if mode == Rounding::Down { -0.0 } else { 0.0 };
        assert!(same(exact::add(1.5, -1.5, mode), expected));
        assert!(same(exact::fma(1.5, 2.0, -3.0, mode), expected));
        assert!(same(exact::add(0.0, 0.0, mode), 0.0));
        assert!(same(exact::add(-0.0, -0.0, mode), -0.0));
    }
}

#[test]
fn integers_round_once() {
    let mut random = Random::new(33);
    for _ in 0..50_000 {
        let integer = random.integer() as i64;
        let code = |format, mode| Exact::integer(integer.into()).round(format, mode);
        let magnitude = integer.unsigned_abs();
        assert_eq!(
            code(SINGLE, Rounding::Nearest) as u32,
            (magnitude as f32).to_bits()
        );
        assert_eq!(
            code(DOUBLE, Rounding::Nearest),
            (magnitude as f64).to_bits()
        );
        let truncated = f64::from_bits(code(DOUBLE, Rounding::Zero));
        let (below, above) = (truncated as u128, f64::from_bits(truncated.to_bits() + 1));
        assert!(
            below == magnitude.into()
                || below < magnitude.into() && above as u128 > magnitude.into()
        );
    }
}
