//! How the types of PTX live in the lanes of a register.

use super::Class;
use std::ops::Shr;

/// A register lane.
pub(super) trait Raw: Copy + Default + Shr<u32, Output = Self> {
    /// `yes` where bit `lane` of `mask` is set, else `no`.
    fn choose(mask: u32, lane: usize, yes: Self, no: Self) -> Self;
}

macro_rules! raws {
    ($($type:ty as $Signed:ty;)*) => {$(
        impl Raw for $type {
            // In this form, which looks at the sign alone, it becomes a shift and a blend.
            #[inline(always)]
            fn choose(mask: u32, lane: usize, yes: Self, no: Self) -> Self {
                let bit_on_top = (mask as $type) << (<$type>::BITS as usize - 1 - lane);
                let all = (bit_on_top as $Signed >> (<$type>::BITS - 1)) as $type;
                no ^ ((no ^ yes) & all)
            }
        }
    )*};
}

raws! {
    u32 as i32;
    u64 as i64;
}

/// A value that fits a register lane.
pub(super) trait Lane: Copy {
    /// The lane that holds it: `u32` or `u64`.
    type Raw: Raw;
    const CLASS: Class;
    /// Reads the value, ignoring bits above it.
    fn read(raw: Self::Raw) -> Self;
    /// The value as a lane, sign or zero extended.
    fn write(self) -> Self::Raw;
}

macro_rules! lanes {
    ($($type:ty: $Class:ident $Raw:ident, |$raw:ident| $read:expr, |$value:ident| $write:expr;)*) => {$(
        impl Lane for $type {
            type Raw = $Raw;
            const CLASS: Class = Class::$Class;
            #[inline(always)]
            fn read($raw: $Raw) -> Self {
                $read
            }
            #[inline(always)]
            fn write(self) -> $Raw {
                let $value = self;
                $write
            }
        }
    )*};
}

lanes! {
    u8: W16 u32, |raw| raw as u8, |value| value as u32;
    i8: W16 u32, |raw| raw as i8, |value| value as u32;
    u16: W16 u32, |raw| raw as u16, |value| value as u32;
    i16: W16 u32, |raw| raw as i16, |value| value as u32;
    u32: W32 u32, |raw| raw, |value| value;
    i32: W32 u32, |raw| raw as i32, |value| value as u32;
    u64: W64 u64, |raw| raw, |value| value;
    i64: W64 u64, |raw| raw as i64, |value| value as u64;
    f32: W32 u32, |raw| f32::from_bits(raw), |value| value.to_bits();
    f64: W64 u64, |raw| f64::from_bits(raw), |value| value.to_bits();
    F16: W16 u32, |raw| F16(raw & 0xffff), |value| value.0;
    Bf16: W16 u32, |raw| Bf16(raw & 0xffff), |value| value.0;
}

/// An IEEE half float, as its code. It is kept in 32 bits, with nothing above the code, because
/// a loop over one width vectorises best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct F16(pub u32);

/// A bfloat16, likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bf16(pub u32);

/// Two 16-bit values in one 32-bit lane (`.f16x2`, `.s16x2`, ...).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair<H> {
    pub low: H,
    pub high: H,
}

impl<H: Copy> Pair<H> {
    #[inline(always)]
    pub fn map<R>(self, f: impl Fn(H) -> R) -> Pair<R> {
        Pair {
            low: f(self.low),
            high: f(self.high),
        }
    }

    #[inline(always)]
    pub fn zip<B: Copy, R>(self, b: Pair<B>, f: impl Fn(H, B) -> R) -> Pair<R> {
        Pair {
            low: f(self.low, b.low),
            high: f(self.high, b.high),
        }
    }
}

impl<H: Lane<Raw = u32>> Lane for Pair<H> {
    type Raw = u32;
    const CLASS: Class = Class::W32;
    #[inline(always)]
    fn read(raw: u32) -> Self {
        Pair {
            low: H::read(raw),
            high: H::read(raw >> 16),
        }
    }
    #[inline(always)]
    fn write(self) -> u32 {
        (self.low.write() & 0xffff) | self.high.write() << 16
    }
}
