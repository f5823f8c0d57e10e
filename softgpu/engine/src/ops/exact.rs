//! Floating point in integers: exact results, rounded once, in any direction and format.
//!
//! Slow and rarely needed: directed rounding of `f64` arithmetic, and wide integers to floats in
//! roundings other than to nearest. The tests use it as an oracle for the fast ways as well.

use super::form::Rounding;

/// An IEEE format: bits of the significand with its leading one, and the exponent of the last
/// bit of a subnormal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub precision: u32,
    pub least_exponent: i32,
    /// The largest exponent of a leading bit.
    pub most_exponent: i32,
}

pub(super) const DOUBLE: Format = Format {
    precision: 53,
    least_exponent: -1074,
    most_exponent: 1023,
};
pub(super) const SINGLE: Format = Format {
    precision: 24,
    least_exponent: -149,
    most_exponent: 127,
};
pub(super) const HALF: Format = Format {
    precision: 11,
    least_exponent: -24,
    most_exponent: 15,
};
pub(super) const BFLOAT: Format = Format {
    precision: 8,
    least_exponent: -133,
    most_exponent: 127,
};

/// The number `significand * 2^exponent`, and a nonzero bit of less weight where `sticky`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    pub negative: bool,
    pub exponent: i32,
    pub significand: u128,
    pub sticky: bool,
}

impl Exact {
    pub fn integer(value: i128) -> Exact {
        Exact {
            negative: value < 0,
            exponent: 0,
            significand: value.unsigned_abs(),
            sticky: false,
        }
    }

    /// A finite double.
    pub fn double(x: f64) -> Exact {
        let bits = x.to_bits();
        let field = (bits >> 52 & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let leading = u64::from(field != 0) << 52;
        Exact {
            negative: bits >> 63 != 0,
            exponent: field.max(1) - 1075,
            significand: (fraction | leading) as u128,
            sticky: false,
        }
    }

    fn is_zero(self) -> bool {
        self.significand == 0 && !self.sticky
    }

    /// With the leading bit moved to bit 125, so that sums cannot overflow.
    fn raised(self) -> Exact {
        let shift = (self.significand.leading_zeros() as i32 - 2).max(0);
        Exact {
            significand: self.significand << shift,
            exponent: self.exponent - shift,
            ..self
        }
    }

    pub fn times(self, other: Exact) -> Exact {
        Exact {
            negative: self.negative != other.negative,
            exponent: self.exponent + other.exponent,
            significand: self.significand * other.significand,
            sticky: false,
        }
    }

    /// The sum of two exact numbers of at most 107 bits. `mode` decides the sign of zero.
    pub fn plus(self, other: Exact, mode: Rounding) -> Exact {
        let zero_sign = match mode {
            Rounding::Down => self.negative || other.negative,
            _ => self.negative && other.negative,
        };
        if self.is_zero() && other.is_zero() {
            return Exact {
                negative: zero_sign,
                ..self
            };
        } else if self.is_zero() {
            return other;
        } else if other.is_zero() {
            return self;
        }
        let (a, b) = (self.raised(), other.raised());
        let (large, small) = if a.exponent >= b.exponent {
            (a, b)
        } else {
            (b, a)
        };
        let distance = (large.exponent - small.exponent) as u32;
        let moved = small.significand.checked_shr(distance).unwrap_or(0);
        let lost = distance > 127 || moved << distance != small.significand;
        if large.negative == small.negative {
            return Exact {
                significand: large.significand + moved,
                sticky: lost,
                ..large
            };
        }
        // What was lost is taken from the last bit of the larger term.
        let (difference, flipped) = if large.significand >= moved + u128::from(lost) {
            (large.significand - moved - u128::from(lost), false)
        } else {
            (moved - large.significand, true)
        };
        let negative = if difference == 0 && !lost {
            zero_sign
        } else {
            large.negative != flipped
        };
        Exact {
            negative,
            significand: difference,
            sticky: lost,
            ..large
        }
    }

    /// The quotient of two finite doubles, the divisor not zero.
    pub fn over(self, other: Exact) -> Exact {
        let numerator = self.raised();
        Exact {
            negative: self.negative != other.negative,
            exponent: numerator.exponent - other.exponent,
            significand: numerator.significand / other.significand,
            sticky: !numerator.significand.is_multiple_of(other.significand),
        }
    }

    /// The root of a finite double that is not negative.
    pub fn root(self) -> Exact {
        let mut square = self.raised();
        if square.exponent % 2 != 0 {
            square.exponent -= 1;
            square.significand <<= 1;
        }
        let root = square.significand.isqrt();
        Exact {
            negative: self.negative,
            exponent: square.exponent / 2,
            significand: root,
            sticky: root * root != square.significand,
        }
    }

    /// The code of this number in `format`, its sign apart; overflow as the direction says.
    pub fn round(self, format: Format, mode: Rounding) -> u64 {
        let Format {
            precision,
            least_exponent,
            most_exponent,
        } = format;
        let infinity = ((most_exponent * 2 + 1) as u64) << (precision - 1);
        if self.is_zero() {
            return 0;
        }
        let length = 128 - self.significand.leading_zeros() as i32;
        // The exponent of the result's last bit, and how many bits fall below it.
        let last = (self.exponent + length - precision as i32).max(least_exponent);
        let below = last - self.exponent;
        let (kept, half, rest) = if below <= 0 {
            ((self.significand << -below) as u64, false, self.sticky)
        } else if below > 128 {
            (0, false, true)
        } else {
            let kept = self.significand.checked_shr(below as u32).unwrap_or(0) as u64;
            let half = self.significand >> (below - 1) & 1 != 0;
            let under = self.significand & ((1 << (below - 1)) - 1);
            (kept, half, under != 0 || self.sticky)
        };
        let away = match mode {
            Rounding::Nearest => half && (rest || kept & 1 != 0),
            Rounding::Zero => false,
            Rounding::Down => self.negative && (half || rest),
            Rounding::Up => !self.negative && (half || rest),
        };
        // A subnormal's exponent field is 0, and carries run on into the field by themselves.
        let field = (last - least_exponent) as u64;
        let code = (field << (precision - 1)) + kept + u64::from(away);
        let outward = match mode {
            Rounding::Nearest => true,
            Rounding::Zero => false,
            Rounding::Down => self.negative,
            Rounding::Up => !self.negative,
        };
        if code < infinity {
            code
        } else {
            infinity - u64::from(!outward)
        }
    }

    fn to_double(self, mode: Rounding) -> f64 {
        f64::from_bits(u64::from(self.negative) << 63 | self.round(DOUBLE, mode))
    }
}

/// Rounds an integer into a format: its code with the sign.
pub(super) fn code_of_integer(value: i128, format: Format, mode: Rounding) -> u64 {
    let sign_bit = match format.precision {
        53 => 63,
        24 => 31,
        _ => 15,
    };
    u64::from(value < 0) << sign_bit | Exact::integer(value).round(format, mode)
}

/// `a + b`.
pub(super) fn add(a: f64, b: f64, mode: Rounding) -> f64 {
    if !a.is_finite() || !b.is_finite() {
        return a + b;
    }
    Exact::double(a)
        .plus(Exact::double(b), mode)
        .to_double(mode)
}

/// `a * b`.
pub(super) fn mul(a: f64, b: f64, mode: Rounding) -> f64 {
    if !a.is_finite() || !b.is_finite() {
        return a * b;
    }
    Exact::double(a).times(Exact::double(b)).to_double(mode)
}

/// `a * b + c`, rounded once.
pub(super) fn fma(a: f64, b: f64, c: f64, mode: Rounding) -> f64 {
    if !a.is_finite() || !b.is_finite() || !c.is_finite() {
        return a.mul_add(b, c);
    }
    let product = Exact::double(a).times(Exact::double(b));
    product.plus(Exact::double(c), mode).to_double(mode)
}

/// `a / b`.
pub(super) fn div(a: f64, b: f64, mode: Rounding) -> f64 {
    if !a.is_finite() || !b.is_finite() || b == 0.0 || a == 0.0 {
        return a / b;
    }
    Exact::double(a).over(Exact::double(b)).to_double(mode)
}

/// The square root of `a`.
pub(super) fn sqrt(a: f64, mode: Rounding) -> f64 {
    if !a.is_finite() || a <= 0.0 {
        return a.sqrt();
    }
    Exact::double(a).root().to_double(mode)
}
