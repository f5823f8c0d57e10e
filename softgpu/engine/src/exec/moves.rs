//! Moves between registers: copies, packing and unpacking, clocks.
//!
//! Unsafe by nature: every function here reads and writes raw lanes of slots that the decoder
//! checked (see [`lanes`](super::lanes)). Each copies its sources of one warp before it writes.

use std::sync::atomic::{compiler_fence, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::inst::Inst;
use super::lanes::{Lanes, OpFn, Operands, LANES};
use super::machine::Machine;
use super::windows;

/// A lane's bits.
pub trait Bits: Copy + Default {
    /// `yes` where bit `lane` of `mask` is set, else `no`: in a form that vectors have.
    fn choose(mask: u32, lane: usize, yes: Self, no: Self) -> Self;
}

macro_rules! bits {
    ($($type:ty, $signed:ty;)*) => {$(
        impl Bits for $type {
            #[inline(always)]
            fn choose(mask: u32, lane: usize, yes: $type, no: $type) -> $type {
                let on_top = (mask as $type) << (<$type>::BITS as usize - 1 - lane);
                let all = (on_top as $signed >> (<$type>::BITS - 1)) as $type;
                no ^ (no ^ yes) & all
            }
        }
    )*};
}

bits! {
    u32, i32;
    u64, i64;
}

/// Writes `value` to the lanes of `mask`.
#[inline(always)]
pub fn blend<T: Bits>(destination: &mut [T; LANES], value: &[T; LANES], mask: u32) {
    if mask == !0 {
        *destination = *value;
        return;
    }
    let old = *destination;
    let mut blended = [T::default(); LANES];
    for lane in 0..LANES {
        blended[lane] = T::choose(mask, lane, value[lane], old[lane]);
    }
    // Keeps this a blend and a plain store: masked stores are slow on some processors.
    compiler_fence(Ordering::SeqCst);
    *destination = blended;
}

/// Writes `f` of the lanes of `a` to `d`.
#[inline(always)]
unsafe fn map<A: Copy, D: Bits>(lanes: &mut Lanes, o: &Operands, f: impl Fn(A, i64) -> D) {
    for warp in 0..lanes.warps {
        let mask = lanes.exec[warp];
        if mask != 0 {
            // SAFETY: the decoder's promise for the slots; references do not outlive the block.
            unsafe {
                let a = *lanes.reg::<A>(o.a, warp);
                let mut value = [D::default(); LANES];
                for lane in 0..LANES {
                    value[lane] = f(a[lane], o.imm);
                }
                blend(&mut *lanes.reg::<D>(o.d, warp), &value, mask);
            }
        }
    }
}

/// Splits `a` into parts, written to `d`, `b`, `c`, `e`.
#[inline(always)]
unsafe fn split<A: Copy, const N: usize>(
    lanes: &mut Lanes,
    o: &Operands,
    part: impl Fn(A, usize) -> u32,
) {
    for warp in 0..lanes.warps {
        let mask = lanes.exec[warp];
        if mask != 0 {
            // SAFETY: as in `map`.
            unsafe {
                let whole = *lanes.reg::<A>(o.a, warp);
                for (index, slot) in [o.d, o.b, o.c, o.e].into_iter().take(N).enumerate() {
                    let mut value = [0; LANES];
                    for lane in 0..LANES {
                        value[lane] = part(whole[lane], index);
                    }
                    blend(&mut *lanes.reg::<u32>(slot, warp), &value, mask);
                }
            }
        }
    }
}

/// Joins the parts `a`, `b`, `c`, `e` into `d`.
#[inline(always)]
unsafe fn join<D: Bits, const N: usize>(
    lanes: &mut Lanes,
    o: &Operands,
    whole: impl Fn([u32; N]) -> D,
) {
    for warp in 0..lanes.warps {
        let mask = lanes.exec[warp];
        if mask != 0 {
            // SAFETY: as in `map`.
            unsafe {
                let slots = [o.a, o.b, o.c, o.e];
                let parts: [[u32; LANES]; N] =
                    std::array::from_fn(|index| *lanes.reg::<u32>(slots[index], warp));
                let mut value = [D::default(); LANES];
                for lane in 0..LANES {
                    value[lane] = whole(std::array::from_fn(|index| parts[index][lane]));
                }
                blend(&mut *lanes.reg::<D>(o.d, warp), &value, mask);
            }
        }
    }
}

/// Declares moves: each is compiled for machines with AVX2 and for all others, and the function of
/// its name picks one.
macro_rules! moves {
    ($($(#[$doc:meta])* $name:ident: |$lanes:ident, $operands:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name() -> OpFn {
            unsafe fn baseline($lanes: &mut Lanes, $operands: &Operands) {
                // SAFETY: passed on.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            unsafe fn avx2($lanes: &mut Lanes, $operands: &Operands) {
                // SAFETY: passed on.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                return avx2;
            }
            baseline
        }
    )*};
}

moves! {
    /// `d = a`, 32 bits.
    copy_word: |lanes, o| map(lanes, o, |a: u32, _| a);
    /// `d = a`, 64 bits.
    copy_double: |lanes, o| map(lanes, o, |a: u64, _| a);
    /// `d = a + imm`, 32 bits.
    add_word: |lanes, o| map(lanes, o, |a: u32, imm| a.wrapping_add(imm as u32));
    /// `d = a + imm`, 64 bits.
    add_double: |lanes, o| map(lanes, o, |a: u64, imm| a.wrapping_add_signed(imm));
    /// The low half.
    truncate: |lanes, o| map(lanes, o, |a: u64, _| a as u32);
    /// 32 bits to 64.
    zero_extend: |lanes, o| map(lanes, o, |a: u32, _| u64::from(a));
    /// A 64-bit register into two 32-bit ones, low half first.
    unpack_double_words: |lanes, o| split::<u64, 2>(lanes, o, |a, part| (a >> (32 * part)) as u32);
    /// A 64-bit register into four 16-bit ones.
    unpack_double_halves: |lanes, o| {
        split::<u64, 4>(lanes, o, |a, part| (a >> (16 * part)) as u32 & 0xffff)
    };
    /// A 32-bit register into two 16-bit ones.
    unpack_word_halves: |lanes, o| split::<u32, 2>(lanes, o, |a, part| a >> (16 * part) & 0xffff);
    /// A 32-bit register into four 8-bit ones.
    unpack_word_bytes: |lanes, o| split::<u32, 4>(lanes, o, |a, part| a >> (8 * part) & 0xff);
    /// A 16-bit register into two 8-bit ones.
    unpack_half_bytes: |lanes, o| split::<u32, 2>(lanes, o, |a, part| a >> (8 * part) & 0xff);
    /// Two 32-bit registers into a 64-bit one.
    pack_double_words: |lanes, o| {
        join::<u64, 2>(lanes, o, |[a, b]| u64::from(b) << 32 | u64::from(a))
    };
    /// Four 16-bit registers into a 64-bit one.
    pack_double_halves: |lanes, o| {
        join::<u64, 4>(lanes, o, |parts| {
            parts.into_iter().rev().fold(0, |whole, part| whole << 16 | u64::from(part & 0xffff))
        })
    };
    /// Two 16-bit registers into a 32-bit one.
    pack_word_halves: |lanes, o| join::<u32, 2>(lanes, o, |[a, b]| b << 16 | a & 0xffff);
    /// Four 8-bit registers into a 32-bit one.
    pack_word_bytes: |lanes, o| {
        join::<u32, 4>(lanes, o, |parts| {
            parts.into_iter().rev().fold(0, |whole, part| whole << 8 | part & 0xff)
        })
    };
    /// Two 8-bit registers into a 16-bit one.
    pack_half_bytes: |lanes, o| join::<u32, 2>(lanes, o, |[a, b]| (b & 0xff) << 8 | a & 0xff);
}

/// `d = a` lies in the window that starts at `imm`; 0 stands for global memory.
///
/// # Safety
/// As for [`OpFn`].
pub unsafe fn is_in_window(lanes: &mut Lanes, o: &Operands) {
    let start = o.imm as u64;
    for warp in 0..lanes.warps {
        let mask = lanes.exec[warp];
        // SAFETY: as in `map`.
        unsafe {
            let mut inside = 0;
            for (lane, &a) in (*lanes.reg::<u64>(o.a, warp)).iter().enumerate() {
                let is_inside = match start {
                    0 => !windows::contain(a),
                    start => a.wrapping_sub(start) < windows::SIZE,
                };
                inside |= u32::from(is_inside) << lane;
            }
            let d = &mut (*lanes.pred(o.d))[warp];
            *d = *d & !mask | inside & mask;
        }
    }
}

/// `d` = the start of the function's frame in local memory.
///
/// # Safety
/// As for [`BlockFn`](super::inst::BlockFn).
pub unsafe fn frame_address(machine: &mut Machine<'_>, inst: &Inst) -> bool {
    let frame = machine.frame;
    // SAFETY: passed on.
    unsafe { fill(machine, inst, frame) }
}

unsafe fn fill<T: Bits>(machine: &mut Machine<'_>, inst: &Inst, value: T) -> bool {
    let lanes = &mut machine.lanes;
    for warp in 0..lanes.warps {
        // SAFETY: as in `map`.
        unsafe {
            let d = &mut *lanes.reg::<T>(inst.operands.d, warp);
            blend(d, &[value; LANES], lanes.exec[warp]);
        }
    }
    true
}

/// Nanoseconds of the wall clock: what `%globaltimer` counts.
fn nanoseconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64)
}

macro_rules! timers {
    ($($(#[$doc:meta])* $name:ident: $ty:ty = $value:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As for [`BlockFn`](super::inst::BlockFn).
        pub unsafe fn $name(machine: &mut Machine<'_>, inst: &Inst) -> bool {
            // SAFETY: passed on.
            unsafe { fill::<$ty>(machine, inst, $value as $ty) }
        }
    )*};
}

timers! {

    /// `%clock64`
    read_clock_double: u64 = nanoseconds();
    /// `%clock`
    read_clock_word: u32 = nanoseconds();
    /// `%clock_hi`
    read_clock_high: u32 = nanoseconds() >> 32;
    /// `%globaltimer`
    read_nanoseconds_double: u64 = nanoseconds();
    /// `%globaltimer_lo`
    read_nanoseconds_word: u32 = nanoseconds();
    /// `%globaltimer_hi`
    read_nanoseconds_high: u32 = nanoseconds() >> 32;
}
