//! Registers of one warp group as plain data: the contract between the scheduler (`exec`) and the
//! lane arithmetic (`ops`).
//!
//! A *warp group* is up to [`WARPS`] warps of [`LANES`] lanes that share a program counter. Every
//! register is a struct-of-arrays: one *slot* holds 4 bytes for each lane of each warp, so that one
//! dispatched operation runs over all of them. A 64-bit register takes two consecutive slots whose
//! storage it uses as one array of 8-byte lanes; 128-bit takes four. Registers narrower than 32
//! bits live in the low bits of a 32-bit lane; what is above them is unspecified, so an operation
//! reads `as u16` and may write any upper bits. Predicates are bit masks, one `u32` a warp.
//!
//! This file is unsafe by nature: it hands out references into storage that the scheduler sized at
//! decode time. The decoder is what makes it sound: it only emits slot numbers below the kernel's
//! slot count, and a 64-bit operand only where two slots were allocated.

/// Lanes of a warp (PTX `WARP_SZ`).
pub const LANES: usize = 32;
/// Most warps that one dispatch covers.
pub const WARPS: usize = 8;

/// A lane mask for each warp of a group.
pub type Masks = [u32; WARPS];

/// What an operation may touch while it runs.
#[repr(C)]
pub struct Lanes {
    /// Slot storage: slot `s` starts at word `s * WARPS * LANES`; warp `w` follows `w` register widths on.
    pub regs: *mut u32,
    /// Predicate registers.
    pub preds: *mut Masks,
    /// Lanes that execute this operation (already narrowed by the guard), per warp.
    pub exec: Masks,
    /// Warps of this group that exist: operations loop over `0..warps` and skip `exec[w] == 0`.
    pub warps: usize,
    /// The condition code (carry) of every lane, for `add.cc`, `addc`, `madc`, ...
    pub carry: Masks,
}

/// Slots of one operation as the decoder resolved them; immediates became constant slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operands {
    /// Destination: a slot, or a predicate number where the operation's class says so.
    pub d: u32,
    /// Second destination (`setp p|q`), `u32::MAX` when absent: always a predicate number.
    pub d2: u32,
    /// Sources in PTX order; a slot or a predicate number by the operation's classes.
    pub a: u32,
    pub b: u32,
    pub c: u32,
    /// Fourth source (`bfi`, the predicate of `setp.and`, `lop3`'s immediate is in `imm`).
    pub e: u32,
    /// A literal that the operation itself interprets (`lop3` table, `prmt` mode needs none).
    pub imm: i64,
}

/// One operation over all active lanes of a warp group.
///
/// # Safety
/// `Operands` must come from the decoder that sized the storage behind `Lanes`.
pub type OpFn = unsafe fn(&mut Lanes, &Operands);

impl Lanes {
    /// The lanes of register `slot` in `warp`, seen as `T` (4 or 8 bytes wide).
    ///
    /// # Safety
    /// `slot` must be a slot of this kernel wide enough for `T`, `warp < self.warps`.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // operands may alias by design: `add r1, r1, r1`
    pub unsafe fn reg<T>(&self, slot: u32, warp: usize) -> *mut [T; LANES] {
        assert!(matches!(size_of::<T>(), 4 | 8));
        // SAFETY: the caller's promise; see the layout in the module's head.
        unsafe { (self.regs.add(slot as usize * LANES * WARPS) as *mut [T; LANES]).add(warp) }
    }

    /// The masks of predicate register `index`.
    ///
    /// # Safety
    /// `index` must be a predicate of this kernel.
    #[inline(always)]
    pub unsafe fn pred(&self, index: u32) -> *mut Masks {
        // SAFETY: the caller's promise.
        unsafe { self.preds.add(index as usize) }
    }
}
