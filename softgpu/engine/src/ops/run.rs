//! The loops: one operation over the lanes of a warp group.
//!
//! Each kind of operation ([`Unary`], [`Binary`], ...) wraps a function of one lane, which the
//! macros `unary!`, `binary!`, ... declare on the spot, and implements [`Operation`]. [`Op::new`]
//! compiles it twice, see [`Copies`].
//!
//! This file is unsafe by nature: it follows the slot numbers that the decoder resolved. What
//! makes that sound is said in `exec/lanes.rs`; every `unsafe` here rests on the promise of
//! [`OpFn`]'s caller and on reading each operand with the class that its `OpDesc` declares.

use super::lane::{Lane, Raw};
use super::modifiers::Modifiers;
use super::{Class, Level, OpDesc};
use crate::exec::lanes::{Lanes, OpFn, Operands, LANES, WARPS};
use std::marker::PhantomData;
use std::sync::atomic::{compiler_fence, Ordering};

/// A kind of loop around a function of one lane.
pub(super) trait Operation {
    const DST: Option<Class>;
    const SRCS: &'static [Class];
    /// Runs it over all active lanes.
    ///
    /// # Safety
    /// As for [`OpFn`].
    unsafe fn run(lanes: &mut Lanes, operands: &Operands);
}

/// The compiled copies of one operation.
#[derive(Clone, Copy)]
struct Copies {
    baseline: OpFn,
    #[cfg(target_arch = "x86_64")]
    avx2: OpFn,
}

unsafe fn baseline<O: Operation>(lanes: &mut Lanes, operands: &Operands) {
    // SAFETY: the caller's promise is the same.
    unsafe { O::run(lanes, operands) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx2<O: Operation>(lanes: &mut Lanes, operands: &Operands) {
    // SAFETY: the caller's promise is the same.
    unsafe { O::run(lanes, operands) }
}

/// One operation as a family declares it.
pub(super) struct Op {
    copies: Copies,
    dst: Option<Class>,
    dst2: bool,
    srcs: &'static [Class],
    imm_last: bool,
    imm: i64,
}

impl Op {
    pub fn new<O: Operation>() -> Op {
        Op {
            copies: Copies {
                baseline: baseline::<O>,
                #[cfg(target_arch = "x86_64")]
                avx2: avx2::<O>,
            },
            dst: O::DST,
            dst2: false,
            srcs: O::SRCS,
            imm_last: false,
            imm: 0,
        }
    }

    /// An operation too rare or too branchy for a second copy.
    pub fn rare<O: Operation>() -> Op {
        Op {
            copies: Copies {
                baseline: baseline::<O>,
                #[cfg(target_arch = "x86_64")]
                avx2: baseline::<O>,
            },
            ..Op::new::<O>()
        }
    }

    /// The same with an optional second destination predicate.
    pub fn with_second_destination(self) -> Op {
        Op { dst2: true, ..self }
    }

    /// The same with modifiers that it looks at while it runs.
    pub fn with(self, modifiers: Modifiers) -> Op {
        Op {
            imm: modifiers.pack(),
            ..self
        }
    }

    /// The same with operands declared of other classes that lie the same way in a register.
    pub fn of_classes(self, dst: Class, srcs: &'static [Class]) -> Op {
        Op {
            dst: Some(dst),
            srcs,
            ..self
        }
    }

    /// The same with a last literal operand.
    pub fn with_literal(self) -> Op {
        Op {
            imm_last: true,
            ..self
        }
    }

    pub fn describe(&self, level: Level, float: Option<u8>) -> OpDesc {
        OpDesc {
            f: match level {
                Level::Baseline => self.copies.baseline,
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => self.copies.avx2,
            },
            dst: self.dst,
            dst2: self.dst2,
            srcs: self.srcs,
            float,
            imm_last: self.imm_last,
            imm: self.imm,
        }
    }
}

/// Every warp that has active lanes, with them. A loop over these is compiled with the features of
/// the copy that it is in; a closure would be a function of its own, without them.
#[inline(always)]
pub(super) fn active_warps(lanes: &Lanes) -> impl Iterator<Item = (usize, u32)> {
    let exec = lanes.exec;
    (0..lanes.warps.min(WARPS))
        .map(move |warp| (warp, exec[warp]))
        .filter(|(_, mask)| *mask != 0)
}

/// Writes the active lanes of a result.
///
/// # Safety
/// `to` is a live register.
#[inline(always)]
pub(super) unsafe fn store<R: Raw>(to: *mut [R; LANES], mask: u32, result: &[R; LANES]) {
    // SAFETY: the caller's promise; the reference ends with this function.
    let to = unsafe { &mut *to };
    if mask == u32::MAX {
        *to = *result;
    } else {
        let old = *to;
        let mut blend = [R::default(); LANES];
        for (lane, blend) in blend.iter_mut().enumerate() {
            *blend = R::choose(mask, lane, result[lane], old[lane]);
        }
        // Without the fence the blend becomes a masked store, which some processors (Zen) take
        // four times as long for. It costs no instruction.
        compiler_fence(Ordering::SeqCst);
        *to = blend;
    }
}

/// Writes the active bits of a predicate.
#[inline(always)]
pub(super) fn store_bits(to: &mut u32, mask: u32, result: u32) {
    *to = (*to & !mask) | (result & mask);
}

/// One bit a lane where `f` holds.
#[inline(always)]
pub(super) fn bits_where(f: impl Fn(usize) -> bool) -> u32 {
    let mut bits = 0;
    for lane in 0..LANES {
        bits |= u32::from(f(lane)) << lane;
    }
    bits
}

/// Calls `f` with each set bit's number.
#[inline(always)]
pub(super) fn each_bit(mut bits: u32, mut f: impl FnMut(usize)) {
    while bits != 0 {
        f(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// Declares a kind of operation: sources in registers, one register as the destination.
macro_rules! register_kind {
    ($(#[$doc:meta])* $Kind:ident of $Function:ident($($arg:ident: $Arg:ident = $slot:ident),*)) => {
        $(#[$doc])*
        pub(super) trait $Function {
            $(type $Arg: Lane;)*
            type R: Lane;
            /// Whether inactive lanes are better skipped: where a lane costs so much that the
            /// compiler's vector of all lanes does not pay.
            const SPARSE: bool;
            fn apply($($arg: Self::$Arg,)* modifiers: Modifiers) -> Self::R;
        }

        pub(super) struct $Kind<F>(PhantomData<F>);

        impl<F: $Function> Operation for $Kind<F> {
            const DST: Option<Class> = Some(F::R::CLASS);
            const SRCS: &'static [Class] = &[$(F::$Arg::CLASS),*];

            #[inline(always)]
            unsafe fn run(lanes: &mut Lanes, operands: &Operands) {
                let modifiers = Modifiers::unpack(operands.imm);
                for (warp, mask) in active_warps(lanes) {
                    // SAFETY: see the head of this file. `result` is apart from all registers, so
                    // a destination may also be a source.
                    unsafe {
                        let to = lanes.reg::<<F::R as Lane>::Raw>(operands.d, warp);
                        $(let $arg = *lanes.reg::<<F::$Arg as Lane>::Raw>(operands.$slot, warp);)*
                        if F::SPARSE && mask != u32::MAX {
                            each_bit(mask, |lane| {
                                (*to)[lane] =
                                    F::apply($(F::$Arg::read($arg[lane]),)* modifiers).write();
                            });
                            continue;
                        }
                        let mut result = [<F::R as Lane>::Raw::default(); LANES];
                        for lane in 0..LANES {
                            result[lane] =
                                F::apply($(F::$Arg::read($arg[lane]),)* modifiers).write();
                        }
                        store(to, mask, &result);
                    }
                }
            }
        }
    };
}

register_kind! {
    /// A function of one lane of one source.
    Unary of UnaryFn(a: A = a)
}
register_kind! {
    /// A function of one lane of two sources.
    Binary of BinaryFn(a: A = a, b: B = b)
}
register_kind! {
    /// A function of one lane of three sources.
    Ternary of TernaryFn(a: A = a, b: B = b, c: C = c)
}
register_kind! {
    /// A function of one lane of four sources.
    Quaternary of QuaternaryFn(a: A = a, b: B = b, c: C = c, e: E = e)
}

/// Declares the function of one lane and wraps it into its kind.
///
/// The macros below are used as `binary!(|a: u32, b: u32| -> u32 { a & b })`. A first word says
/// how it is compiled: `sparse` skips inactive lanes, `rare` also makes one copy only. A second
/// names the [`Modifiers`] that it looks at while it runs.
macro_rules! lane_op {
    (sparse $($rest:tt)*) => { lane_op!(@ new true $($rest)*) };
    (rare $($rest:tt)*) => { lane_op!(@ rare true $($rest)*) };
    (dense $($rest:tt)*) => { lane_op!(@ new false $($rest)*) };
    (@ $new:ident $sparse:literal $Kind:ident $Function:ident $modifiers:ident
     ($($arg:ident: $Type:ty = $Arg:ident),*) -> $R:ty $body:block) => {{
        struct F;
        impl $crate::ops::run::$Function for F {
            $(type $Arg = $Type;)*
            type R = $R;
            const SPARSE: bool = $sparse;
            #[inline(always)]
            fn apply($($arg: $Type,)* $modifiers: $crate::ops::modifiers::Modifiers) -> $R $body
        }
        $crate::ops::run::Op::$new::<$crate::ops::run::$Kind<F>>()
    }};
}

macro_rules! unary {
    (|$($rest:tt)*) => { unary!(dense, _modifiers, |$($rest)*) };
    ($how:ident, |$($rest:tt)*) => { unary!($how, _modifiers, |$($rest)*) };
    ($how:ident, $modifiers:ident, |$a:ident: $A:ty| -> $R:ty $body:block) => {
        lane_op!($how Unary UnaryFn $modifiers ($a: $A = A) -> $R $body)
    };
}

macro_rules! binary {
    (|$($rest:tt)*) => { binary!(dense, _modifiers, |$($rest)*) };
    ($how:ident, |$($rest:tt)*) => { binary!($how, _modifiers, |$($rest)*) };
    ($how:ident, $modifiers:ident,
     |$a:ident: $A:ty, $b:ident: $B:ty| -> $R:ty $body:block) => {
        lane_op!($how Binary BinaryFn $modifiers ($a: $A = A, $b: $B = B) -> $R $body)
    };
}

macro_rules! ternary {
    (|$($rest:tt)*) => { ternary!(dense, _modifiers, |$($rest)*) };
    ($how:ident, |$($rest:tt)*) => { ternary!($how, _modifiers, |$($rest)*) };
    ($how:ident, $modifiers:ident,
     |$a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty| -> $R:ty $body:block) => {
        lane_op!($how Ternary TernaryFn $modifiers ($a: $A = A, $b: $B = B, $c: $C = C) -> $R $body)
    };
}

macro_rules! quaternary {
    (|$a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty, $e:ident: $E:ty| -> $R:ty $body:block) => {
        lane_op!(dense Quaternary QuaternaryFn _modifiers
                 ($a: $A = A, $b: $B = B, $c: $C = C, $e: $E = E) -> $R $body)
    };
}
