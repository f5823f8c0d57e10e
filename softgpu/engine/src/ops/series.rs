//! The transcendental functions behind the approximate instructions, in `f64` and without
//! branches, so that they vectorise. Each is good to better than 2^-30, relative (sine and cosine:
//! absolute), over the arguments named; rounded to `f32` that is within an ulp.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, LN_2, SQRT_2};

/// Adding this to a double of magnitude below 2^51 leaves its nearest integer in the low bits.
const TO_INTEGER: f64 = 6755399441055744.0; // 1.5 * 2^52

/// The nearest integer: as a double, and in the low bits of a word.
#[inline(always)]
fn nearest_integer(x: f64) -> (f64, u64) {
    let shifted = x + TO_INTEGER;
    (
        shifted - TO_INTEGER,
        shifted.to_bits().wrapping_sub(TO_INTEGER.to_bits()),
    )
}

/// `coefficients[0] + coefficients[1] x + ...`
#[inline(always)]
fn polynomial<const N: usize>(x: f64, coefficients: [f64; N]) -> f64 {
    let mut sum = coefficients[N - 1];
    for &coefficient in coefficients[..N - 1].iter().rev() {
        sum = sum.mul_add(x, coefficient);
    }
    sum
}

/// 1, 1/1!, 1/2!, ...
const fn inverse_factorials<const N: usize>() -> [f64; N] {
    let mut terms = [1.0; N];
    let mut n = 1;
    while n < N {
        terms[n] = terms[n - 1] / n as f64;
        n += 1;
    }
    terms
}

/// 2^x. Beyond the exponents of `f32` it is only large or small enough.
#[inline(always)]
pub(super) fn exp2(x: f64) -> f64 {
    let bounded = if x > 200.0 { 200.0 } else { x };
    let bounded = if bounded < -200.0 { -200.0 } else { bounded };
    let (whole, exponent) = nearest_integer(bounded);
    let power = polynomial((bounded - whole) * LN_2, inverse_factorials::<11>());
    power * f64::from_bits(exponent.wrapping_add(1023) << 52)
}

/// The binary logarithm of a positive, normal double.
#[inline(always)]
pub(super) fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | 1.0f64.to_bits());
    let upper = mantissa > SQRT_2;
    let mantissa = if upper { mantissa * 0.5 } else { mantissa };
    // The exponent as a double, by the integers' place among the doubles from 2^52 on.
    let field = f64::from_bits((bits >> 52 & 0x7ff) | 4503599627370496.0f64.to_bits());
    let exponent = field - (4503599627370496.0 + 1023.0) + if upper { 1.0 } else { 0.0 };
    // log m = 2 artanh((m - 1) / (m + 1))
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    const ARTANH: [f64; 9] = [
        1.0,
        1.0 / 3.0,
        1.0 / 5.0,
        1.0 / 7.0,
        1.0 / 9.0,
        1.0 / 11.0,
        1.0 / 13.0,
        1.0 / 15.0,
        1.0 / 17.0,
    ];
    (2.0 / LN_2 * t).mul_add(polynomial(t * t, ARTANH), exponent)
}

/// Largest argument of [`sin`] and [`cos`].
pub(super) const LARGEST_ANGLE: f32 = 536870912.0; // 2^29

/// Pi/2 less the double nearest to it.
const FRAC_PI_2_REST: f64 = 6.123233995736766e-17;

/// The sine of `x` plus `quarters` quarter turns.
#[inline(always)]
fn sine(x: f64, quarters: u64) -> f64 {
    let (turns, count) = nearest_integer(x * FRAC_2_PI);
    let r = turns.mul_add(-FRAC_PI_2_REST, turns.mul_add(-FRAC_PI_2, x));
    let square = r * r;
    const SINE: [f64; 7] = [
        1.0,
        -1.0 / 6.0,
        1.0 / 120.0,
        -1.0 / 5040.0,
        1.0 / 362880.0,
        -1.0 / 39916800.0,
        1.0 / 6227020800.0,
    ];
    const COSINE: [f64; 8] = [
        1.0,
        -1.0 / 2.0,
        1.0 / 24.0,
        -1.0 / 720.0,
        1.0 / 40320.0,
        -1.0 / 3628800.0,
        1.0 / 479001600.0,
        -1.0 / 87178291200.0,
    ];
    let quadrant = count.wrapping_add(quarters);
    let magnitude = if quadrant & 1 == 0 {
        r * polynomial(square, SINE)
    } else {
        polynomial(square, COSINE)
    };
    f64::from_bits(magnitude.to_bits() ^ (quadrant & 2) << 62)
}

#[inline(always)]
pub(super) fn sin(x: f64) -> f64 {
    sine(x, 0)
}

#[inline(always)]
pub(super) fn cos(x: f64) -> f64 {
    sine(x, 1)
}

/// The hyperbolic tangent.
#[inline(always)]
pub(super) fn tanh(x: f64) -> f64 {
    let square = x * x;
    let near = x * polynomial(
        square,
        [1.0, -1.0 / 3.0, 2.0 / 15.0, -17.0 / 315.0, 62.0 / 2835.0],
    );
    let grown = exp2(x.abs() * (2.0 / LN_2));
    let far = (1.0 - 2.0 / (grown + 1.0)).copysign(x);
    if square < 0.0025 {
        near
    } else {
        far
    }
}
