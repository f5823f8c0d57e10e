//! Moves between registers: copies, packing and unpacking, clocks.
//!
//! Unsafe by nature: every function here reads and writes raw lanes of slots that the decoder
//! checked (see [`lanes`](super::lanes)). Each copies its sources of one warp before it writes.

use std::time::{SystemTime, UNIX_EPOCH};

use super::inst::Inst;
use super::lanes::{Lanes, Operands, LANES};
use super::machine::Machine;
use super::windows;

/// Writes `value` to the lanes of `mask`.
#[inline(always)]
pub fn blend<T: Copy>(destination: &mut [T; LANES], value: &[T; LANES], mask: u32) {
    if mask == !0 {
        *destination = *value;
        return;
    }
    for lane in 0..LANES {
        if mask >> lane & 1 == 1 {
            destination[lane] = value[lane];
        }
    }
}

/// Runs `f` on each lane of `a`, writing `d`.
#[inline(always)]
unsafe fn map<A: Copy, D: Copy>(lanes: &mut Lanes, d: u32, a: u32, f: impl Fn(A) -> D) {
    for warp in 0..lanes.warps {
        let mask = lanes.exec[warp];
        if mask != 0 {
            // SAFETY: the decoder's promise for the slots; references do not outlive the statement.
            unsafe {
                let value = (*lanes.reg::<A>(a, warp)).map(&f);
                blend(&mut *lanes.reg::<D>(d, warp), &value, mask);
            }
        }
    }
}

macro_rules! moves {
    ($($(#[$doc:meta])* $name:ident: $from:ty => $to:ty, $f:expr;)*) => {$(
        $(#[$doc])*
        pub unsafe fn $name(lanes: &mut Lanes, o: &Operands) {
            let imm = o.imm;
            let f: fn($from, i64) -> $to = $f;
            // SAFETY: passed on.
            unsafe { map(lanes, o.d, o.a, |a: $from| f(a, imm)) }
        }
    )*};
}

moves! {
    /// `d = a`, 32 bits.
    copy_word: u32 => u32, |a, _| a;
    /// `d = a`, 64 bits.
    copy_double: u64 => u64, |a, _| a;
    /// `d = a + imm`, 64 bits.
    add_double: u64 => u64, |a, imm| a.wrapping_add_signed(imm);
    /// `d = a + imm`, 32 bits.
    add_word: u32 => u32, |a, imm| a.wrapping_add(imm as u32);
    /// The low half.
    truncate: u64 => u32, |a, _| a as u32;
    /// 32 bits to 64.
    zero_extend: u32 => u64, |a, _| u64::from(a);
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
                    let value = whole.map(|a| part(a, index));
                    blend(&mut *lanes.reg::<u32>(slot, warp), &value, mask);
                }
            }
        }
    }
}

/// Joins the parts `a`, `b`, `c`, `e` into `d`.
#[inline(always)]
unsafe fn join<D: Copy + Default, const N: usize>(
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
                let value = std::array::from_fn(|lane| {
                    whole(std::array::from_fn(|index| parts[index][lane]))
                });
                blend(&mut *lanes.reg::<D>(o.d, warp), &value, mask);
            }
        }
    }
}

macro_rules! packing {
    ($($unpack:ident, $pack:ident: $whole:ty = $count:literal x $bits:literal;)*) => {$(
        #[doc = concat!("Splits ", stringify!($whole), " into ", $count, " parts, lowest first.")]
        pub unsafe fn $unpack(lanes: &mut Lanes, o: &Operands) {
            const MASK: u64 = (1 << $bits) - 1;
            // SAFETY: passed on.
            unsafe {
                split::<$whole, $count>(lanes, o, |a, index| {
                    ((u64::from(a) >> ($bits * index)) & MASK) as u32
                })
            }
        }

        #[doc = concat!("Joins ", $count, " parts, lowest first, into ", stringify!($whole), ".")]
        pub unsafe fn $pack(lanes: &mut Lanes, o: &Operands) {
            const MASK: u64 = (1 << $bits) - 1;
            // SAFETY: passed on.
            unsafe {
                join::<$whole, $count>(lanes, o, |parts| {
                    let mut whole = 0;
                    for (index, part) in parts.into_iter().enumerate() {
                        whole |= (u64::from(part) & MASK) << ($bits * index);
                    }
                    whole as $whole
                })
            }
        }
    )*};
}

packing! {
    unpack_double_words, pack_double_words: u64 = 2 x 32;
    unpack_double_halves, pack_double_halves: u64 = 4 x 16;
    unpack_word_halves, pack_word_halves: u32 = 2 x 16;
    unpack_word_bytes, pack_word_bytes: u32 = 4 x 8;
    unpack_half_bytes, pack_half_bytes: u32 = 2 x 8;
}

/// `d = a` lies in the window that starts at `imm`; 0 stands for global memory.
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
pub unsafe fn frame_address(machine: &mut Machine<'_>, inst: &Inst) -> bool {
    let frame = machine.frame;
    // SAFETY: passed on.
    unsafe { fill(machine, inst, frame) }
}

unsafe fn fill<T: Copy>(machine: &mut Machine<'_>, inst: &Inst, value: T) -> bool {
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
