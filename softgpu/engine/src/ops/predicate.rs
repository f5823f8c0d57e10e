//! Loops that read or write predicates: tests, selections, logic.
//!
//! Unsafe by nature as `run.rs` is, and for the same reason sound.

use super::lane::{Lane, Raw};
use super::run::{active_warps, bits_where, store, store_bits, Operation};
use super::Class;
use crate::exec::lanes::{Lanes, Operands, LANES};
use std::marker::PhantomData;

/// A condition on one lane that becomes a predicate (`testp`).
pub(super) trait TestFn {
    type A: Lane;
    fn holds(a: Self::A) -> bool;
}

pub(super) struct Test<F>(PhantomData<F>);

impl<F: TestFn> Operation for Test<F> {
    const DST: Option<Class> = Some(Class::Pred);
    const SRCS: &'static [Class] = &[F::A::CLASS];

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`.
            unsafe {
                let a = lanes.reg::<<F::A as Lane>::Raw>(operands.a, warp);
                let holds = bits_where(|lane| F::holds(F::A::read((*a)[lane])));
                store_bits(&mut (*lanes.pred(operands.d))[warp], mask, holds);
            }
        }
    }
}

/// `selp`: `a` where the predicate is set, else `b`.
pub(super) struct Select<T>(PhantomData<T>);

impl<T: Lane> Operation for Select<T> {
    const DST: Option<Class> = Some(T::CLASS);
    const SRCS: &'static [Class] = &[T::CLASS, T::CLASS, Class::Pred];

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`.
            unsafe {
                let a = lanes.reg::<T::Raw>(operands.a, warp);
                let b = lanes.reg::<T::Raw>(operands.b, warp);
                let choice = (*lanes.pred(operands.c))[warp];
                let mut result = [T::Raw::default(); LANES];
                for (lane, result) in result.iter_mut().enumerate() {
                    *result = T::Raw::choose(choice, lane, (*a)[lane], (*b)[lane]);
                }
                store(lanes.reg(operands.d, warp), mask, &result);
            }
        }
    }
}

/// Logic on predicates, a warp's lanes at once; a one-operand function has `b` ignored.
pub(super) trait PredicateFn {
    const SRCS: &'static [Class];
    fn apply(a: u32, b: u32) -> u32;
}

pub(super) struct Predicate<F>(PhantomData<F>);

impl<F: PredicateFn> Operation for Predicate<F> {
    const DST: Option<Class> = Some(Class::Pred);
    const SRCS: &'static [Class] = F::SRCS;

    #[inline(always)]
    unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
        for (warp, mask) in active_warps(lanes) {
            // SAFETY: see the head of `run.rs`.
            unsafe {
                let a = (*lanes.pred(operands.a))[warp];
                let b = if F::SRCS.len() > 1 {
                    (*lanes.pred(operands.b))[warp]
                } else {
                    0
                };
                store_bits(&mut (*lanes.pred(operands.d))[warp], mask, F::apply(a, b));
            }
        }
    }
}
