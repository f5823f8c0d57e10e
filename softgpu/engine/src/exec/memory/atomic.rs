//! Atomic read-modify-write operations.
//!
//! A block runs on one OS thread, so that its shared memory needs no atomicity; global memory uses
//! the machine's atomic instructions, sequentially consistent whatever the qualifiers ask for.
//! Lanes go one after the other, lowest first.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};

use half::{bf16, f16};

use super::super::inst::{BlockFn, Inst, NONE};
use super::super::machine::Machine;
use super::place::{lanes_of, Generic, Global, Place, Shared};
use super::Area;

/// What to do with the old value and the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    Increment,
    Decrement,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
}

impl AtomicOp {
    /// The operation named in an opcode.
    pub fn from_name(name: &str) -> Option<AtomicOp> {
        Some(match name {
            "add" => AtomicOp::Add,
            "min" => AtomicOp::Min,
            "max" => AtomicOp::Max,
            "inc" => AtomicOp::Increment,
            "dec" => AtomicOp::Decrement,
            "and" => AtomicOp::And,
            "or" => AtomicOp::Or,
            "xor" => AtomicOp::Xor,
            "exch" => AtomicOp::Exchange,
            "cas" => AtomicOp::CompareSwap,
            _ => return None,
        })
    }
}

/// The type that an atomic operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicType {
    B16,
    B32,
    B64,
    U32,
    U64,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
}

impl AtomicType {
    /// The type at the end of an opcode.
    pub fn from_name(name: &str) -> Option<AtomicType> {
        Some(match name {
            "b16" => AtomicType::B16,
            "b32" => AtomicType::B32,
            "b64" => AtomicType::B64,
            "u32" => AtomicType::U32,
            "u64" => AtomicType::U64,
            "s32" => AtomicType::S32,
            "s64" => AtomicType::S64,
            "f16" => AtomicType::F16,
            "f16x2" => AtomicType::F16x2,
            "bf16" => AtomicType::Bf16,
            "bf16x2" => AtomicType::Bf16x2,
            "f32" => AtomicType::F32,
            "f64" => AtomicType::F64,
            _ => return None,
        })
    }

    /// Bytes in memory.
    pub fn bytes(self) -> usize {
        match self {
            AtomicType::B16 | AtomicType::F16 | AtomicType::Bf16 => 2,
            AtomicType::B64 | AtomicType::U64 | AtomicType::S64 | AtomicType::F64 => 8,
            _ => 4,
        }
    }

    /// Whether registers of this type have 64 bits.
    pub fn is_wide(self) -> bool {
        self.bytes() == 8
    }

    /// Bits of the floating-point type that literals are, 0 if none.
    pub fn float_bits(self) -> u8 {
        match self {
            AtomicType::F32 => 32,
            AtomicType::F64 => 64,
            _ => 0,
        }
    }
}

/// Memory that can be updated as one.
trait Cell: Copy + PartialEq {
    type Register: Copy;
    fn from_register(value: Self::Register) -> Self;
    fn to_register(self) -> Self::Register;
    /// Replaces the value at `at` by `f` of it, as one step for all OS threads; the old value.
    ///
    /// # Safety
    /// `at` must be aligned and valid.
    unsafe fn update(at: *mut u8, f: impl Fn(Self) -> Self) -> Self;
    /// The same where no other OS thread looks.
    ///
    /// # Safety
    /// `at` must be aligned and valid.
    #[inline(always)]
    unsafe fn update_alone(at: *mut u8, f: impl Fn(Self) -> Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let old = at.cast::<Self>().read();
            at.cast::<Self>().write(f(old));
            old
        }
    }
}

macro_rules! cells {
    ($($cell:ty, $register:ty, $atomic:ty;)*) => {$(
        impl Cell for $cell {
            type Register = $register;
            #[inline(always)]
            fn from_register(value: $register) -> $cell {
                value as $cell
            }
            #[inline(always)]
            fn to_register(self) -> $register {
                self as $register
            }
            #[inline(always)]
            unsafe fn update(at: *mut u8, f: impl Fn($cell) -> $cell) -> $cell {
                // SAFETY: the caller's promise; plain accesses of other lanes are the program's race.
                let cell = unsafe { <$atomic>::from_ptr(at.cast()) };
                let mut old = cell.load(SeqCst);
                loop {
                    match cell.compare_exchange_weak(old, f(old), SeqCst, SeqCst) {
                        Ok(old) => return old,
                        Err(now) => old = now,
                    }
                }
            }
        }
    )*};
}

cells! {
    u16, u32, AtomicU16;
    u32, u32, AtomicU32;
    u64, u64, AtomicU64;
}

/// What the new value is.
trait Rule<C: Cell> {
    fn apply(old: C, operand: C, second: C) -> C;
}

macro_rules! rules {
    ($($name:ident: $cell:ty, |$old:ident, $b:ident, $c:pat_param| $new:expr;)*) => {$(
        struct $name;
        impl Rule<$cell> for $name {
            #[inline(always)]
            fn apply($old: $cell, $b: $cell, $c: $cell) -> $cell {
                $new
            }
        }
    )*};
}

rules! {
    AddU32: u32, |old, b, _| old.wrapping_add(b);
    AddU64: u64, |old, b, _| old.wrapping_add(b);
    MinU32: u32, |old, b, _| old.min(b);
    MinU64: u64, |old, b, _| old.min(b);
    MinS32: u32, |old, b, _| (old as i32).min(b as i32) as u32;
    MinS64: u64, |old, b, _| (old as i64).min(b as i64) as u64;
    MaxU32: u32, |old, b, _| old.max(b);
    MaxU64: u64, |old, b, _| old.max(b);
    MaxS32: u32, |old, b, _| (old as i32).max(b as i32) as u32;
    MaxS64: u64, |old, b, _| (old as i64).max(b as i64) as u64;
    IncU32: u32, |old, b, _| if old >= b { 0 } else { old + 1 };
    DecU32: u32, |old, b, _| if old == 0 || old > b { b } else { old - 1 };
    And32: u32, |old, b, _| old & b;
    And64: u64, |old, b, _| old & b;
    Or32: u32, |old, b, _| old | b;
    Or64: u64, |old, b, _| old | b;
    Xor32: u32, |old, b, _| old ^ b;
    Xor64: u64, |old, b, _| old ^ b;
    Exchange16: u16, |_old, b, _| b;
    Exchange32: u32, |_old, b, _| b;
    Exchange64: u64, |_old, b, _| b;
    Cas16: u16, |old, b, c| if old == b { c } else { old };
    Cas32: u32, |old, b, c| if old == b { c } else { old };
    Cas64: u64, |old, b, c| if old == b { c } else { old };
    AddF32: u32, |old, b, _| add_f32(old, b);
    AddF64: u64, |old, b, _| canonical64(f64::from_bits(old) + f64::from_bits(b));
    AddF16: u16, |old, b, _| half_op(old, b, |x, y| x + y);
    AddBf16: u16, |old, b, _| bfloat_op(old, b, |x, y| x + y);
    AddF16x2: u32, |old, b, _| pairwise(old, b, |x, y| half_op(x, y, |x, y| x + y));
    AddBf16x2: u32, |old, b, _| pairwise(old, b, |x, y| bfloat_op(x, y, |x, y| x + y));
    MinF16x2: u32, |old, b, _| pairwise(old, b, |x, y| half_op(x, y, f32::min));
    MaxF16x2: u32, |old, b, _| pairwise(old, b, |x, y| half_op(x, y, f32::max));
    MinBf16x2: u32, |old, b, _| pairwise(old, b, |x, y| bfloat_op(x, y, f32::min));
    MaxBf16x2: u32, |old, b, _| pairwise(old, b, |x, y| bfloat_op(x, y, f32::max));
    MinF16: u16, |old, b, _| half_op(old, b, f32::min);
    MaxF16: u16, |old, b, _| half_op(old, b, f32::max);
    MinBf16: u16, |old, b, _| bfloat_op(old, b, f32::min);
    MaxBf16: u16, |old, b, _| bfloat_op(old, b, f32::max);
}

/// `a + b` of single-precision bits; a result that is no number has the device's bits.
fn add_f32(a: u32, b: u32) -> u32 {
    let sum = f32::from_bits(a) + f32::from_bits(b);
    if sum.is_nan() {
        0x7fff_ffff
    } else {
        sum.to_bits()
    }
}

fn canonical64(value: f64) -> u64 {
    if value.is_nan() {
        0x7fff_ffff_ffff_ffff
    } else {
        value.to_bits()
    }
}

/// An operation on half floats, exact in single precision and then rounded once.
fn half_op(a: u16, b: u16, f: impl Fn(f32, f32) -> f32) -> u16 {
    let value = f16::from_f32(f(f16::from_bits(a).to_f32(), f16::from_bits(b).to_f32()));
    if value.is_nan() {
        0x7fff
    } else {
        value.to_bits()
    }
}

/// The same for bfloats.
fn bfloat_op(a: u16, b: u16, f: impl Fn(f32, f32) -> f32) -> u16 {
    let value = bf16::from_f32(f(bf16::from_bits(a).to_f32(), bf16::from_bits(b).to_f32()));
    if value.is_nan() {
        0x7fff
    } else {
        value.to_bits()
    }
}

/// `f` on both halves of packed values.
fn pairwise(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    let low = f(a as u16, b as u16);
    let high = f((a >> 16) as u16, (b >> 16) as u16);
    u32::from(high) << 16 | u32::from(low)
}

unsafe fn run<P: Place, C: Cell, R: Rule<C>, const RETURNS: bool, const ALONE: bool>(
    machine: &mut Machine<'_>,
    inst: &Inst,
) -> bool {
    let o = &inst.operands;
    let second = if o.c == NONE { o.b } else { o.c };
    for warp in 0..machine.lanes.warps {
        for lane in lanes_of(machine.lanes.exec[warp]) {
            // SAFETY: passed on.
            unsafe {
                let bytes = size_of::<C>() as u32;
                let Some(to) = P::pointer(machine, inst, (warp, lane), bytes) else {
                    return false;
                };
                let read =
                    |slot| C::from_register((*machine.lanes.reg::<C::Register>(slot, warp))[lane]);
                let (operand, second) = (read(o.b), read(second));
                let f = |old| R::apply(old, operand, second);
                let old = match ALONE {
                    true => C::update_alone(to, f),
                    false => C::update(to, f),
                };
                if RETURNS {
                    (*machine.lanes.reg::<C::Register>(o.d, warp))[lane] = old.to_register();
                }
            }
        }
    }
    true
}

fn place<C: Cell, R: Rule<C>>(area: Area, returns: bool) -> Option<BlockFn> {
    Some(match (area, returns) {
        (Area::Global, true) => run::<Global, C, R, true, false>,
        (Area::Global, false) => run::<Global, C, R, false, false>,
        (Area::Shared, true) => run::<Shared, C, R, true, true>,
        (Area::Shared, false) => run::<Shared, C, R, false, true>,
        (Area::Generic, true) => run::<Generic, C, R, true, false>,
        (Area::Generic, false) => run::<Generic, C, R, false, false>,
        (Area::Local, _) => return None,
    })
}

/// The operation; `None` where PTX has no such combination.
pub fn atomic(area: Area, op: AtomicOp, ty: AtomicType, returns: bool) -> Option<BlockFn> {
    use AtomicOp::*;
    use AtomicType::*;
    match (op, ty) {
        (Add, U32 | S32) => place::<u32, AddU32>(area, returns),
        (Add, U64 | S64) => place::<u64, AddU64>(area, returns),
        (Add, F32) => place::<u32, AddF32>(area, returns),
        (Add, F64) => place::<u64, AddF64>(area, returns),
        (Add, F16) => place::<u16, AddF16>(area, returns),
        (Add, Bf16) => place::<u16, AddBf16>(area, returns),
        (Add, F16x2) => place::<u32, AddF16x2>(area, returns),
        (Add, Bf16x2) => place::<u32, AddBf16x2>(area, returns),
        (Min, U32) => place::<u32, MinU32>(area, returns),
        (Min, U64) => place::<u64, MinU64>(area, returns),
        (Min, S32) => place::<u32, MinS32>(area, returns),
        (Min, S64) => place::<u64, MinS64>(area, returns),
        (Max, U32) => place::<u32, MaxU32>(area, returns),
        (Max, U64) => place::<u64, MaxU64>(area, returns),
        (Max, S32) => place::<u32, MaxS32>(area, returns),
        (Max, S64) => place::<u64, MaxS64>(area, returns),
        (Min, F16) => place::<u16, MinF16>(area, returns),
        (Max, F16) => place::<u16, MaxF16>(area, returns),
        (Min, Bf16) => place::<u16, MinBf16>(area, returns),
        (Max, Bf16) => place::<u16, MaxBf16>(area, returns),
        (Min, F16x2) => place::<u32, MinF16x2>(area, returns),
        (Max, F16x2) => place::<u32, MaxF16x2>(area, returns),
        (Min, Bf16x2) => place::<u32, MinBf16x2>(area, returns),
        (Max, Bf16x2) => place::<u32, MaxBf16x2>(area, returns),
        (Increment, U32) => place::<u32, IncU32>(area, returns),
        (Decrement, U32) => place::<u32, DecU32>(area, returns),
        (And, B32) => place::<u32, And32>(area, returns),
        (And, B64) => place::<u64, And64>(area, returns),
        (Or, B32) => place::<u32, Or32>(area, returns),
        (Or, B64) => place::<u64, Or64>(area, returns),
        (Xor, B32) => place::<u32, Xor32>(area, returns),
        (Xor, B64) => place::<u64, Xor64>(area, returns),
        (Exchange, B16) => place::<u16, Exchange16>(area, returns),
        (Exchange, B32) => place::<u32, Exchange32>(area, returns),
        (Exchange, B64) => place::<u64, Exchange64>(area, returns),
        (CompareSwap, B16) => place::<u16, Cas16>(area, returns),
        (CompareSwap, B32) => place::<u32, Cas32>(area, returns),
        (CompareSwap, B64) => place::<u64, Cas64>(area, returns),
        _ => None,
    }
}
