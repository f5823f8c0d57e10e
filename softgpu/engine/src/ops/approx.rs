//! The approximate instructions. They are computed in `f64` and rounded, so they lie well inside
//! the error bounds of the PTX ISA manual, but their last bits are not those of a GPU.
//!
//! Unsafe by nature as `run.rs` is, and for the same reason sound.

use super::float::{from_upper_word, upper_word};
use super::form::{Form, Rounding, Type};
use super::lane::{Bf16, Lane, Pair, F16};
use super::round::{finish, flush, Half, NAN_F32};
use super::run::{active_warps, bits_where, each_bit, store, Op, Operation};
use super::series;
use super::Class;
use crate::exec::lanes::{Lanes, Operands, LANES};
use std::marker::PhantomData;

/// A function that most lanes compute in vectors and a few must compute another way.
pub(super) trait PatchedFn {
    type T: Lane;
    fn apply(a: Self::T) -> Self::T;
    /// Whether `apply` is no good for this argument.
    fn is_hard(a: Self::T) -> bool;
    fn apply_hard(a: Self::T) -> Self::T;
}

pub(super) struct Patched<F>(PhantomData<F>);

impl<F: PatchedFn> Operation for Patched<F> {
    const DST: Option<Class> = Some(F::T::CLASS);
    const SRCS: &'static [Class] = &[F::T::CLASS];

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`.
            unsafe {
                let a = lanes.reg::<<F::T as Lane>::Raw>(operands.a, warp);
                let mut result = [<F::T as Lane>::Raw::default(); LANES];
                for (lane, result) in result.iter_mut().enumerate() {
                    *result = F::apply(F::T::read((*a)[lane])).write();
                }
                let hard = bits_where(|lane| F::is_hard(F::T::read((*a)[lane])));
                each_bit(hard & mask, |lane| {
                    result[lane] = F::apply_hard(F::T::read((*a)[lane])).write();
                });
                store(lanes.reg(operands.d, warp), mask, &result);
            }
        }
    }
}

/// Declares a function of an angle: `$near` for all but huge ones.
macro_rules! angle {
    ($FTZ:ident, $near:path, $far:path) => {{
        struct F;
        impl PatchedFn for F {
            type T = f32;
            #[inline(always)]
            fn apply(a: f32) -> f32 {
                finish($near(flush(a, $FTZ) as f64) as f32, $FTZ, false)
            }
            #[inline(always)]
            fn is_hard(a: f32) -> bool {
                a.abs() > series::LARGEST_ANGLE
            }
            #[inline(always)]
            fn apply_hard(a: f32) -> f32 {
                finish($far(a as f64) as f32, $FTZ, false)
            }
        }
        Op::new::<Patched<F>>()
    }};
}

pub(super) fn lookup(form: &mut Form) -> Option<Op> {
    if !form.eat("approx") {
        return None;
    }
    let ftz = form.eat("ftz");
    let ty = form.ty()?;
    match (form.opcode, ty) {
        ("rsqrt", Type::F32) => Some(by_flag!(ftz, FTZ: unary!(|a: f32| -> f32 {
            finish((1.0 / (flush(a, FTZ) as f64).sqrt()) as f32, FTZ, false)
        }))),
        ("rsqrt", Type::F64) if ftz => Some(unary!(|a: f64| -> f64 {
            upper_word(1.0 / from_upper_word(a).sqrt())
        })),
        ("rsqrt", Type::F64) => Some(unary!(|a: f64| -> f64 { 1.0 / a.sqrt() })),
        ("lg2", Type::F32) => Some(by_flag!(ftz, FTZ: unary!(|a: f32| -> f32 {
            finish(log2(flush(a, FTZ)), FTZ, false)
        }))),
        ("ex2", Type::F32) => Some(by_flag!(ftz, FTZ: unary!(|a: f32| -> f32 {
            finish(series::exp2(flush(a, FTZ) as f64) as f32, FTZ, false)
        }))),
        ("sin", Type::F32) => Some(by_flag!(ftz, FTZ: angle!(FTZ, series::sin, f64::sin))),
        ("cos", Type::F32) => Some(by_flag!(ftz, FTZ: angle!(FTZ, series::cos, f64::cos))),
        ("tanh", Type::F32) if !ftz => Some(unary!(|a: f32| -> f32 {
            finish(series::tanh(a as f64) as f32, false, false)
        })),
        ("tanh" | "ex2", _) => half(form.opcode, ty, ftz),
        _ => None,
    }
}

/// The binary logarithm: of zero minus infinity, of less NaN.
#[inline(always)]
fn log2(x: f32) -> f32 {
    let value = series::log2(x as f64) as f32;
    if x == 0.0 {
        f32::NEG_INFINITY
    } else if x > 0.0 {
        if x == f32::INFINITY {
            x
        } else {
            value
        }
    } else {
        NAN_F32
    }
}

/// `tanh` and `ex2` of halves. Only `ex2` of bfloats has `.ftz`, and must.
fn half(opcode: &str, ty: Type, ftz: bool) -> Option<Op> {
    match (opcode, ty, ftz) {
        ("tanh", Type::F16, false) => Some(unary!(|a: F16| -> F16 { tanh(a) })),
        ("tanh", Type::Bf16, false) => Some(unary!(|a: Bf16| -> Bf16 { tanh(a) })),
        ("tanh", Type::F16x2, false) => Some(unary!(|a: Pair<F16>| -> Pair<F16> { a.map(tanh) })),
        ("tanh", Type::Bf16x2, false) => {
            Some(unary!(|a: Pair<Bf16>| -> Pair<Bf16> { a.map(tanh) }))
        }
        ("ex2", Type::F16, false) => Some(unary!(|a: F16| -> F16 { exp2(a, false) })),
        ("ex2", Type::Bf16, true) => Some(unary!(|a: Bf16| -> Bf16 { exp2(a, true) })),
        ("ex2", Type::F16x2, false) => Some(unary!(|a: Pair<F16>| -> Pair<F16> {
            a.map(|a| exp2(a, false))
        })),
        ("ex2", Type::Bf16x2, true) => Some(unary!(|a: Pair<Bf16>| -> Pair<Bf16> {
            a.map(|a| exp2(a, true))
        })),
        _ => None,
    }
}

#[inline(always)]
fn tanh<H: Half>(a: H) -> H {
    H::rounded_f64(series::tanh(a.widen() as f64), Rounding::Nearest)
}

#[inline(always)]
fn exp2<H: Half>(a: H, ftz: bool) -> H {
    let a = a.flushed(ftz);
    H::rounded_f64(series::exp2(a.widen() as f64), Rounding::Nearest).flushed(ftz)
}
