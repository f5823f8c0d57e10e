//! Minimum and maximum as PTX orders floats: -0 below +0, and NaN lost to any number.

use super::modifiers::Modifiers;
use super::round::NAN_F32;

pub(super) trait Extremum: Copy {
    /// The lesser; the number where only one is a number.
    fn smaller(self, other: Self) -> Self;
    /// The greater; the number where only one is a number.
    fn larger(self, other: Self) -> Self;
}

macro_rules! extrema {
    ($($type:ty;)*) => {$(
        impl Extremum for $type {
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                let equal = self == other && self.is_sign_negative();
                if self < other || equal || other.is_nan() { self } else { other }
            }
            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                let equal = self == other && self.is_sign_positive();
                if self > other || equal || other.is_nan() { self } else { other }
            }
        }
    )*};
}

extrema! {
    f32;
    f64;
}

/// The minimum or maximum as the modifiers ask for it, with a canonical NaN.
#[inline(always)]
pub(super) fn extremum(a: f32, b: f32, modifiers: Modifiers) -> f32 {
    let sign = if modifiers.xorsign {
        (a.to_bits() ^ b.to_bits()) & 0x8000_0000
    } else {
        0
    };
    let (a, b) = if modifiers.xorsign {
        (a.abs(), b.abs())
    } else {
        (a, b)
    };
    let chosen = if modifiers.greatest {
        a.larger(b)
    } else {
        a.smaller(b)
    };
    if chosen.is_nan() || (modifiers.nan && (a.is_nan() || b.is_nan())) {
        NAN_F32
    } else {
        f32::from_bits(chosen.to_bits() | sign)
    }
}
