//! Rounding that the machine's arithmetic does not offer: directions other than to nearest, and
//! floating-point formats narrower than `f32`.
//!
//! A directed `f32` result is the nearest one or its neighbour: `f64` tells on which side of the
//! nearest the exact result lies.
//!
//! Towards narrow formats the tool is *rounding to odd*: where a result is not exact, keep the
//! truncated value with its last bit set. A value so rounded to two or more bits beyond a narrower
//! format rounds on to that format, in any direction, as the exact value would (Boldo and
//! Melquiond, "When double rounding is odd"). So `f64` goes to 16 bits through `f32` without
//! double rounding.

use super::form::Rounding;
use super::lane::{Bf16, F16};

/// The NaN that `f32` arithmetic returns.
pub(super) const NAN_F32: f32 = f32::from_bits(0x7fff_ffff);

/// `x`, or the canonical NaN for any NaN.
///
/// In integers, because to the compiler one NaN is as good as another: it may drop a choice
/// between `x` and a constant NaN.
#[inline(always)]
pub(super) fn canonical(x: f32) -> f32 {
    let bits = x.to_bits();
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    f32::from_bits(if is_nan { NAN_F32.to_bits() } else { bits })
}

/// `.ftz`: zero of the same sign for a subnormal.
#[inline(always)]
pub(super) fn flush(x: f32, ftz: bool) -> f32 {
    let bits = x.to_bits();
    if ftz && bits & 0x7f80_0000 == 0 {
        f32::from_bits(bits & 0x8000_0000)
    } else {
        x
    }
}

/// `.sat`: within [0, 1], NaN and -0 to +0.
#[inline(always)]
pub(super) fn saturate(x: f32, sat: bool) -> f32 {
    if !sat {
        x
    } else if x > 0.0 {
        if x < 1.0 {
            x
        } else {
            1.0
        }
    } else {
        0.0
    }
}

/// The end of every `f32` operation: canonical NaN, `.ftz` and `.sat`.
#[inline(always)]
pub(super) fn finish(x: f32, ftz: bool, sat: bool) -> f32 {
    saturate(flush(canonical(x), ftz), sat)
}

/// Rounding to odd.
pub(super) trait ToOdd: Copy {
    /// `self + tail` rounded to odd, where `self` is that sum rounded to nearest. Only the sign of
    /// `tail` matters; NaN counts as exact.
    fn to_odd(self, tail: Self) -> Self;
    /// `self + other` rounded to odd.
    fn add_to_odd(self, other: Self) -> Self;
}

macro_rules! to_odd {
    ($($type:ty;)*) => {$(
        impl ToOdd for $type {
            #[inline(always)]
            fn to_odd(self, tail: Self) -> Self {
                let bits = self.to_bits();
                let inexact = tail.abs() > 0.0;
                let outward = (tail > 0.0) == (self > 0.0);
                let odd = if outward { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
                <$type>::from_bits(if inexact && bits & 1 == 0 { odd } else { bits })
            }

            #[inline(always)]
            fn add_to_odd(self, other: Self) -> Self {
                // The error of the sum, exactly (Knuth).
                let sum = self + other;
                let other_part = sum - self;
                let self_part = sum - other_part;
                sum.to_odd((self - self_part) + (other - other_part))
            }
        }
    )*};
}

to_odd! {
    f32;
    f64;
}

/// The result of an operation whose exact result is `error` away from `nearest`, the result
/// rounded to nearest. Only the sign of `error` matters; NaN counts as exact.
#[inline(always)]
fn directed(nearest: f32, error: f64, mode: Rounding) -> f32 {
    let bits = nearest.to_bits();
    let negative = bits >> 31 != 0;
    let (above, below) = (u32::from(error > 0.0), u32::from(error < 0.0));
    // A step away from zero is one up in the code, whatever the sign.
    f32::from_bits(match mode {
        Rounding::Nearest => bits,
        Rounding::Zero => bits - if negative { above } else { below },
        Rounding::Down if negative => bits + below,
        Rounding::Down => bits - below,
        Rounding::Up if negative => bits - above,
        Rounding::Up => bits + above,
    })
}

/// `x` in `f32`.
#[inline(always)]
pub(super) fn narrow(x: f64, mode: Rounding) -> f32 {
    let nearest = x as f32;
    directed(nearest, x - nearest as f64, mode)
}

/// `a + b`, where `nearest` is that rounded to nearest. An exact zero has the sign of `.rm`'s
/// direction there, unless both terms are +0.
#[inline(always)]
fn directed_sum(a: f64, b: f64, nearest: f32, mode: Rounding) -> f32 {
    let sum = a + b;
    // What the sum in `f64` lost cannot outweigh what is between it and `nearest`.
    let error = (sum - nearest as f64) + sum_error(a, b, sum);
    let negative = (a.to_bits() | b.to_bits()) >> 63 != 0;
    if matches!(mode, Rounding::Down) && nearest == 0.0 && error == 0.0 && negative {
        -0.0
    } else {
        directed(nearest, error, mode)
    }
}

/// What `sum = a + b` lost by rounding, exactly (Knuth).
#[inline(always)]
fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let b_part = sum - a;
    let a_part = sum - b_part;
    (a - a_part) + (b - b_part)
}

/// `a + b`.
#[inline(always)]
pub(super) fn add(a: f32, b: f32, mode: Rounding) -> f32 {
    directed_sum(a as f64, b as f64, a + b, mode)
}

/// `a * b`.
#[inline(always)]
pub(super) fn mul(a: f32, b: f32, mode: Rounding) -> f32 {
    narrow(a as f64 * b as f64, mode) // 48 bits: exact
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub(super) fn fma(a: f32, b: f32, c: f32, mode: Rounding) -> f32 {
    directed_sum(a as f64 * b as f64, c as f64, a.mul_add(b, c), mode)
}

/// `a / b`.
#[inline(always)]
pub(super) fn div(a: f32, b: f32, mode: Rounding) -> f32 {
    let quotient = a / b;
    let remainder = a as f64 - quotient as f64 * b as f64; // the product is exact
    directed(quotient, if b < 0.0 { -remainder } else { remainder }, mode)
}

/// The square root of `a`.
#[inline(always)]
pub(super) fn sqrt(a: f32, mode: Rounding) -> f32 {
    let root = a.sqrt();
    directed(root, a as f64 - root as f64 * root as f64, mode)
}

/// A float format of `mantissa` stored bits and an exponent `bias`, narrower than `f32`.
#[derive(Clone, Copy)]
pub(super) struct Narrow {
    pub mantissa: u32,
    pub bias: u32,
}

pub(super) const F16_FORMAT: Narrow = Narrow {
    mantissa: 10,
    bias: 15,
};
pub(super) const E5M2: Narrow = Narrow {
    mantissa: 2,
    bias: 15,
};
pub(super) const E4M3: Narrow = Narrow {
    mantissa: 3,
    bias: 7,
};
pub(super) const E2M3: Narrow = Narrow {
    mantissa: 3,
    bias: 1,
};
pub(super) const E3M2: Narrow = Narrow {
    mantissa: 2,
    bias: 3,
};
pub(super) const E2M1: Narrow = Narrow {
    mantissa: 1,
    bias: 1,
};

impl Narrow {
    /// The code, without sign, of `|x|` rounded to nearest even in a format without an upper
    /// end: what is too large (or NaN) gets a code beyond the format's largest.
    #[inline(always)]
    pub fn encode(self, x: f32) -> u32 {
        let bits = x.to_bits() & 0x7fff_ffff;
        let shift = 23 - self.mantissa;
        let rebias = (127 - self.bias) << 23;
        let half = (1 << (shift - 1)) - 1 + (bits >> shift & 1);
        let normal = bits.wrapping_sub(rebias).wrapping_add(half) >> shift;
        // Adding a power of two whose last bit weighs what the subnormals' last bit does lets
        // the machine round.
        let magic = (127 + 1 - self.bias + shift) << 23;
        let subnormal = (f32::from_bits(bits) + f32::from_bits(magic))
            .to_bits()
            .wrapping_sub(magic);
        if bits < rebias + (1 << 23) {
            subnormal
        } else {
            normal
        }
    }

    /// The value of a code without sign, which must not be one of infinity or NaN.
    #[inline(always)]
    pub fn decode(self, code: u32) -> f32 {
        let scale = f32::from_bits((254 - self.bias) << 23);
        f32::from_bits(code << (23 - self.mantissa)) * scale
    }
}

/// Half floats: what arithmetic on [`F16`] and [`Bf16`] needs.
pub(super) trait Half: Copy {
    const ONE: Self;
    const INFINITY: Self;
    /// From a code of 16 bits.
    fn from_code(code: u32) -> Self;
    fn code(self) -> u32;
    /// The value, exactly; NaN becomes the canonical one.
    fn widen(self) -> f32;
    /// The nearest value, ties to even.
    fn nearest(x: f32) -> Self;

    #[inline(always)]
    fn is_nan(self) -> bool {
        self.code() & 0x7fff > Self::INFINITY.code()
    }

    /// `.sat`: within [0, 1], NaN and -0 to +0.
    #[inline(always)]
    fn saturated(self, sat: bool) -> Self {
        let code = self.code();
        let positive = code <= Self::INFINITY.code();
        let clamped = if positive {
            code.min(Self::ONE.code())
        } else {
            0
        };
        Self::from_code(if sat { clamped } else { code })
    }

    /// `.relu`: zero for what is negative.
    #[inline(always)]
    fn rectified(self, relu: bool) -> Self {
        let negative = self.code() > 0x7fff && !self.is_nan();
        Self::from_code(if relu && negative { 0 } else { self.code() })
    }

    /// `.ftz`: zero of the same sign for a subnormal.
    fn flushed(self, ftz: bool) -> Self;

    /// `x` rounded once.
    #[inline(always)]
    fn rounded(x: f32, mode: Rounding) -> Self {
        let nearest = Self::nearest(x);
        let (back, code) = (nearest.widen(), nearest.code());
        let negative = code >> 15 != 0;
        // The codes of one sign are in order: a neighbour is one code away.
        Self::from_code(match mode {
            Rounding::Nearest => code,
            Rounding::Zero => code - u32::from(back.abs() > x.abs()),
            Rounding::Down if negative => code + u32::from(back > x),
            Rounding::Down => code - u32::from(back > x),
            Rounding::Up if negative => code - u32::from(back < x),
            Rounding::Up => code + u32::from(back < x),
        })
    }

    /// `a * b`, rounded once.
    fn product(self, other: Self) -> Self;
    /// `a * b + c`, rounded once.
    fn fused(self, other: Self, addend: Self) -> Self;

    /// `x` rounded once, which going through the nearest `f32` would not be.
    #[inline(always)]
    fn rounded_f64(x: f64, mode: Rounding) -> Self {
        Self::rounded(narrow_to_odd(x), mode)
    }
}

/// `x` in `f32`, rounded to odd.
#[inline(always)]
pub(super) fn narrow_to_odd(x: f64) -> f32 {
    let truncated = narrow(x, Rounding::Zero);
    let inexact = truncated as f64 != x && !x.is_nan();
    f32::from_bits(truncated.to_bits() | u32::from(inexact))
}

impl Half for F16 {
    const ONE: F16 = F16(0x3c00);
    const INFINITY: F16 = F16(0x7c00);

    #[inline(always)]
    fn from_code(code: u32) -> F16 {
        F16(code)
    }

    #[inline(always)]
    fn code(self) -> u32 {
        self.0
    }

    #[inline(always)]
    fn flushed(self, ftz: bool) -> F16 {
        F16(if ftz && self.0 & 0x7c00 == 0 {
            self.0 & 0x8000
        } else {
            self.0
        })
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        let code = self.0;
        let sign = (code & 0x8000) << 16;
        let (magnitude, rebias) = ((code & 0x7fff) << 13, (127 - 15) << 23);
        let normal = magnitude + rebias;
        // Below the normals, take the bits for those of the least normal and subtract that: the
        // machine is slow on its own subnormals.
        const LEAST_NORMAL: u32 = (127 - 14) << 23;
        let subnormal = f32::from_bits(magnitude + LEAST_NORMAL) - f32::from_bits(LEAST_NORMAL);
        let value = if magnitude < 1 << 23 {
            subnormal.to_bits()
        } else {
            normal
        };
        let value = if magnitude >= 0x7c00 << 13 {
            0x7f80_0000
        } else {
            value
        };
        let value = sign | value;
        f32::from_bits(if magnitude > 0x7c00 << 13 {
            NAN_F32.to_bits()
        } else {
            value
        })
    }

    #[inline(always)]
    fn nearest(x: f32) -> F16 {
        let sign = x.to_bits() >> 16 & 0x8000;
        let magnitude = F16_FORMAT.encode(x).min(0x7c00);
        F16(if x.is_nan() { 0x7fff } else { sign | magnitude })
    }

    // A product of halves is exact in `f32`.
    #[inline(always)]
    fn product(self, other: F16) -> F16 {
        F16::nearest(self.widen() * other.widen())
    }

    #[inline(always)]
    fn fused(self, other: F16, addend: F16) -> F16 {
        F16::nearest((self.widen() * other.widen()).add_to_odd(addend.widen()))
    }
}

impl Half for Bf16 {
    const ONE: Bf16 = Bf16(0x3f80);
    const INFINITY: Bf16 = Bf16(0x7f80);

    #[inline(always)]
    fn from_code(code: u32) -> Bf16 {
        Bf16(code)
    }

    #[inline(always)]
    fn code(self) -> u32 {
        self.0
    }

    #[inline(always)]
    fn flushed(self, ftz: bool) -> Bf16 {
        Bf16(if ftz && self.0 & 0x7f80 == 0 {
            self.0 & 0x8000
        } else {
            self.0
        })
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        canonical(f32::from_bits(self.0 << 16))
    }

    #[inline(always)]
    fn nearest(x: f32) -> Bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        Bf16(if x.is_nan() { 0x7fff } else { rounded })
    }

    // A product of bfloats can lie beyond the exponents of `f32`, but is exact in `f64`.
    #[inline(always)]
    fn product(self, other: Bf16) -> Bf16 {
        let product = self.widen() as f64 * other.widen() as f64;
        Bf16::rounded_f64(product, Rounding::Nearest)
    }

    #[inline(always)]
    fn fused(self, other: Bf16, addend: Bf16) -> Bf16 {
        let product = self.widen() as f64 * other.widen() as f64;
        Bf16::rounded_f64(product.add_to_odd(addend.widen() as f64), Rounding::Nearest)
    }
}
