//! From the addresses in registers to addresses of this process, checked.

use super::super::fault::Violation;
use super::super::inst::{Flags, Inst};
use super::super::lanes::LANES;
use super::super::machine::Machine;
use super::super::windows;
use super::chunk::{Level, Limits, Pattern};

/// The allocation that an instruction used last.
#[derive(Clone, Copy, Debug, Default)]
pub struct CachedRange {
    start: u64,
    /// Bytes.
    size: u64,
}

/// The unit in which an area counts addresses.
pub trait Word: Copy {
    fn offset(self) -> usize;
}

impl Word for u32 {
    #[inline(always)]
    fn offset(self) -> usize {
        self as usize
    }
}

impl Word for u64 {
    #[inline(always)]
    fn offset(self) -> usize {
        self as usize
    }
}

/// The checked addresses of a warp: lane `l`'s is `base + at[l]`. Lanes outside the mask that was
/// checked hold anything.
pub struct Addresses<W> {
    pub base: usize,
    pub at: [W; LANES],
}

impl<W: Word> Addresses<W> {
    /// The address of one lane.
    ///
    /// # Safety
    /// The lane must be in the mask that was checked.
    #[inline(always)]
    pub unsafe fn pointer(&self, lane: usize) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.base.wrapping_add(self.at[lane].offset()))
    }
}

/// An area of memory that instructions name.
pub trait Place {
    type Word: Word;

    /// Checks that each lane of `mask` may access `bytes` (a power of two) at its address, which
    /// operand `a` and the displacement give. On failure the violation is in the machine.
    ///
    /// # Safety
    /// The instruction must come from the machine's kernel, `warp` from its group.
    unsafe fn resolve(
        machine: &mut Machine<'_>,
        inst: &Inst,
        warp: usize,
        mask: u32,
        bytes: u32,
    ) -> Option<Addresses<Self::Word>>;

    /// Classifies a chunk of lanes whose elements have `bytes`; with it comes what to add to an
    /// address to have one of this process. `Other` where only [`Place::resolve`] knows.
    ///
    /// # Safety
    /// As for `resolve`; `first` is the chunk's first lane.
    #[inline(always)]
    unsafe fn chunk<L: Level>(
        _machine: &Machine<'_>,
        _inst: &Inst,
        _warp: usize,
        _first: usize,
        _bytes: usize,
    ) -> (Pattern<Self::Word>, usize) {
        (Pattern::Other, 0)
    }
}

/// See [`Area::Global`](super::Area::Global).
pub struct Global;
/// See [`Area::Shared`](super::Area::Shared).
pub struct Shared;
/// See [`Area::Local`](super::Area::Local).
pub struct Local;
/// See [`Area::Generic`](super::Area::Generic).
pub struct Generic;

/// The lanes of `mask` whose address is not a multiple of `bytes`.
#[cold]
#[inline(never)]
fn misaligned(machine: &mut Machine<'_>, at: &[u64; LANES], warp: usize, mask: u32, bytes: u32) {
    for lane in lanes_of(mask) {
        if at[lane] % u64::from(bytes) != 0 {
            let violation = Violation::Misaligned {
                address: at[lane],
                bytes,
            };
            machine.fail(violation, warp, lane);
            return;
        }
    }
}

/// The lanes of a mask, lowest first.
#[inline(always)]
pub fn lanes_of(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros() as usize;
        rest &= rest.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// Gives lanes outside `mask` the address of one inside, so that the checks of whole warps hold
/// for the others' sake alone.
#[inline(always)]
fn fill_inactive<W: Copy>(at: &mut [W; LANES], mask: u32) {
    if mask != !0 {
        let any = at[mask.trailing_zeros() as usize % LANES];
        for lane in 0..LANES {
            at[lane] = if mask >> lane & 1 == 1 { at[lane] } else { any };
        }
    }
}

/// The 64-bit addresses of a warp.
#[inline(always)]
unsafe fn fetch_wide(machine: &Machine<'_>, inst: &Inst, warp: usize, mask: u32) -> [u64; LANES] {
    // SAFETY: the caller's promise; the decoder made sure that operand `a` has 64 bits.
    let mut at = unsafe { *machine.lanes.reg::<u64>(inst.operands.a, warp) };
    for address in &mut at {
        *address = address.wrapping_add(inst.operands.imm as u64);
    }
    fill_inactive(&mut at, mask);
    at
}

/// The offsets of a warp in a small area; those that exceed 32 bits become the largest.
#[inline(always)]
unsafe fn fetch_narrow(machine: &Machine<'_>, inst: &Inst, warp: usize, mask: u32) -> [u32; LANES] {
    if inst.flags.has(Flags::WIDE_ADDRESS) {
        // SAFETY: as above.
        let wide = unsafe { fetch_wide(machine, inst, warp, mask) };
        return wide.map(|address| u32::try_from(address).unwrap_or(u32::MAX));
    }
    // SAFETY: as above, with 32 bits.
    let mut at = unsafe { *machine.lanes.reg::<u32>(inst.operands.a, warp) };
    for offset in &mut at {
        *offset = offset.wrapping_add(inst.operands.imm as u32);
    }
    fill_inactive(&mut at, mask);
    at
}

/// Checks addresses in global memory.
#[inline(always)]
fn check_global(
    machine: &mut Machine<'_>,
    inst: &Inst,
    at: &[u64; LANES],
    warp: usize,
    mask: u32,
    bytes: u32,
) -> bool {
    let CachedRange { start, size } = machine.ranges[inst.site as usize];
    let room = size.wrapping_sub(u64::from(bytes));
    let (mut outside, mut low_bits) = (size < u64::from(bytes), 0);
    for &address in at {
        outside |= address.wrapping_sub(start) > room;
        low_bits |= address;
    }
    if !outside && low_bits & u64::from(bytes - 1) == 0 {
        return true;
    }
    check_each(machine, inst, at, warp, mask, bytes)
}

/// Checks addresses one by one, looking up allocations.
#[cold]
#[inline(never)]
fn check_each(
    machine: &mut Machine<'_>,
    inst: &Inst,
    at: &[u64; LANES],
    warp: usize,
    mask: u32,
    bytes: u32,
) -> bool {
    for lane in lanes_of(mask) {
        let CachedRange { start, size } = machine.ranges[inst.site as usize];
        let (address, bytes) = (at[lane], u64::from(bytes));
        if address % bytes != 0 {
            misaligned(machine, at, warp, mask, bytes as u32);
            return false;
        }
        let from_start = address.wrapping_sub(start);
        if from_start < size && size - from_start >= bytes {
            continue;
        }
        match machine.find_range(address) {
            Some(range) if range.end - address >= bytes => {
                machine.ranges[inst.site as usize] = CachedRange {
                    start: range.start,
                    size: range.end - range.start,
                };
            }
            _ => {
                machine.fail(
                    Violation::Address {
                        address,
                        bytes: bytes as u32,
                    },
                    warp,
                    lane,
                );
                return false;
            }
        }
    }
    true
}

impl Place for Global {
    type Word = u64;

    #[inline(always)]
    unsafe fn resolve(
        machine: &mut Machine<'_>,
        inst: &Inst,
        warp: usize,
        mask: u32,
        bytes: u32,
    ) -> Option<Addresses<u64>> {
        // SAFETY: passed on.
        let at = unsafe { fetch_wide(machine, inst, warp, mask) };
        check_global(machine, inst, &at, warp, mask, bytes).then_some(Addresses { base: 0, at })
    }

    #[inline(always)]
    unsafe fn chunk<L: Level>(
        machine: &Machine<'_>,
        inst: &Inst,
        warp: usize,
        first: usize,
        bytes: usize,
    ) -> (Pattern<u64>, usize) {
        // SAFETY: passed on.
        unsafe { (global_chunk::<L>(machine, inst, warp, first, bytes), 0) }
    }
}

/// Classifies a chunk against the allocation that the instruction used last.
#[inline(always)]
unsafe fn global_chunk<L: Level>(
    machine: &Machine<'_>,
    inst: &Inst,
    warp: usize,
    first: usize,
    bytes: usize,
) -> Pattern<u64> {
    // SAFETY: the decoder numbered the sites, and made sure that operand `a` has 64 bits.
    unsafe {
        let CachedRange { start, size } = *machine.ranges.get_unchecked(inst.site as usize);
        let step = bytes as u64;
        if size < step {
            return Pattern::Other;
        }
        let limits = Limits {
            add: inst.operands.imm as u64,
            start,
            room: size - step,
            step,
        };
        let at = machine
            .lanes
            .reg::<u64>(inst.operands.a, warp)
            .cast::<u64>()
            .add(first);
        L::wide(at, limits)
    }
}

/// Checks offsets against the size of a small area.
#[inline(always)]
fn check_narrow(
    machine: &mut Machine<'_>,
    at: &[u32; LANES],
    warp: usize,
    mask: u32,
    (size, bytes): (u32, u32),
) -> bool {
    let (mut highest, mut low_bits) = (0, 0);
    for &offset in at {
        highest = highest.max(offset);
        low_bits |= offset;
    }
    if size >= bytes && highest <= size - bytes && low_bits & (bytes - 1) == 0 {
        return true;
    }
    check_narrow_each(machine, at, warp, mask, (size, bytes))
}

#[cold]
#[inline(never)]
fn check_narrow_each(
    machine: &mut Machine<'_>,
    at: &[u32; LANES],
    warp: usize,
    mask: u32,
    (size, bytes): (u32, u32),
) -> bool {
    for lane in lanes_of(mask) {
        let address = u64::from(at[lane]);
        if at[lane] % bytes != 0 {
            machine.fail(Violation::Misaligned { address, bytes }, warp, lane);
            return false;
        }
        if size < bytes || at[lane] > size - bytes {
            machine.fail(Violation::Address { address, bytes }, warp, lane);
            return false;
        }
    }
    true
}

impl Place for Shared {
    type Word = u32;

    #[inline(always)]
    unsafe fn resolve(
        machine: &mut Machine<'_>,
        inst: &Inst,
        warp: usize,
        mask: u32,
        bytes: u32,
    ) -> Option<Addresses<u32>> {
        // SAFETY: passed on.
        let at = unsafe { fetch_narrow(machine, inst, warp, mask) };
        let size = machine.shared_bytes;
        check_narrow(machine, &at, warp, mask, (size, bytes)).then_some(Addresses {
            base: machine.shared.expose_provenance(),
            at,
        })
    }

    #[inline(always)]
    unsafe fn chunk<L: Level>(
        machine: &Machine<'_>,
        inst: &Inst,
        warp: usize,
        first: usize,
        bytes: usize,
    ) -> (Pattern<u32>, usize) {
        let step = bytes as u32;
        if inst.flags.has(Flags::WIDE_ADDRESS) || machine.shared_bytes < step {
            return (Pattern::Other, 0);
        }
        let room = machine.shared_bytes - step;
        let limits = Limits {
            add: inst.operands.imm as u32,
            start: 0,
            room,
            step,
        };
        // SAFETY: passed on; without the flag the operand has 32 bits.
        let pattern = unsafe {
            let at = machine
                .lanes
                .reg::<u32>(inst.operands.a, warp)
                .cast::<u32>()
                .add(first);
            L::narrow(at, limits)
        };
        (pattern, machine.shared.expose_provenance())
    }
}

impl Place for Local {
    type Word = u64;

    #[inline(always)]
    unsafe fn resolve(
        machine: &mut Machine<'_>,
        inst: &Inst,
        warp: usize,
        mask: u32,
        bytes: u32,
    ) -> Option<Addresses<u64>> {
        // SAFETY: passed on.
        let at = unsafe { fetch_narrow(machine, inst, warp, mask) };
        let size = machine.local_bytes;
        if !check_narrow(machine, &at, warp, mask, (size, bytes)) {
            return None;
        }
        let mut out = [0; LANES];
        for lane in 0..LANES {
            out[lane] = u64::from(at[lane]) + (warp * LANES + lane) as u64 * u64::from(size);
        }
        Some(Addresses {
            base: machine.local.expose_provenance(),
            at: out,
        })
    }
}

impl Place for Generic {
    type Word = u64;

    #[inline(always)]
    unsafe fn resolve(
        machine: &mut Machine<'_>,
        inst: &Inst,
        warp: usize,
        mask: u32,
        bytes: u32,
    ) -> Option<Addresses<u64>> {
        // SAFETY: passed on.
        let mut at = unsafe { fetch_wide(machine, inst, warp, mask) };
        let mut windowed = false;
        for &address in &at {
            windowed |= windows::contain(address);
        }
        let fits = match windowed {
            false => check_global(machine, inst, &at, warp, mask, bytes),
            true => translate(machine, inst, &mut at, warp, mask, bytes),
        };
        fits.then_some(Addresses { base: 0, at })
    }

    #[inline(always)]
    unsafe fn chunk<L: Level>(
        machine: &Machine<'_>,
        inst: &Inst,
        warp: usize,
        first: usize,
        bytes: usize,
    ) -> (Pattern<u64>, usize) {
        // Addresses in the windows are in no allocation, so that they become `Other`.
        // SAFETY: passed on.
        unsafe { (global_chunk::<L>(machine, inst, warp, first, bytes), 0) }
    }
}

/// Replaces generic addresses in the windows by addresses of this process.
#[inline(never)]
fn translate(
    machine: &mut Machine<'_>,
    inst: &Inst,
    at: &mut [u64; LANES],
    warp: usize,
    mask: u32,
    bytes: u32,
) -> bool {
    for lane in lanes_of(mask) {
        if at[lane] % u64::from(bytes) != 0 {
            machine.fail(
                Violation::Misaligned {
                    address: at[lane],
                    bytes,
                },
                warp,
                lane,
            );
            return false;
        }
        if !windows::contain(at[lane]) {
            if !check_each(machine, inst, at, warp, 1 << lane, bytes) {
                return false;
            }
            continue;
        }
        match machine.windowed(at[lane], warp, lane) {
            Some((pointer, room)) if room >= u64::from(bytes) => {
                at[lane] = pointer.expose_provenance() as u64
            }
            _ => {
                machine.fail(
                    Violation::Address {
                        address: at[lane],
                        bytes,
                    },
                    warp,
                    lane,
                );
                return false;
            }
        }
    }
    true
}

/// The bytes from a generic address to the end of its allocation: pointer and count.
pub fn bytes_at(
    machine: &Machine<'_>,
    address: u64,
    warp: usize,
    lane: usize,
) -> Option<(*mut u8, u64)> {
    if windows::contain(address) {
        return machine.windowed(address, warp, lane);
    }
    let range = machine.find_range(address)?;
    Some((
        std::ptr::with_exposed_provenance_mut(address as usize),
        range.end - address,
    ))
}

/// Copies `out.len()` bytes from a generic address; false if they are not all there.
pub fn copy_out(
    machine: &Machine<'_>,
    address: u64,
    (warp, lane): (usize, usize),
    out: &mut [u8],
) -> bool {
    match bytes_at(machine, address, warp, lane) {
        Some((pointer, room)) if room >= out.len() as u64 => {
            // SAFETY: `room` bytes at `pointer` are the device's.
            unsafe { std::ptr::copy_nonoverlapping(pointer, out.as_mut_ptr(), out.len()) };
            true
        }
        _ => false,
    }
}

/// Longest text that device code may hand to the host.
const TEXT_MAX: u64 = 1 << 16;

/// The zero-terminated text at a generic address, cut at 64 KiB.
pub fn text_at(
    machine: &Machine<'_>,
    address: u64,
    (warp, lane): (usize, usize),
) -> Option<Vec<u8>> {
    let (pointer, room) = bytes_at(machine, address, warp, lane)?;
    let mut text = vec![];
    for index in 0..room.min(TEXT_MAX) as usize {
        // SAFETY: `room` bytes at `pointer` are the device's.
        match unsafe { pointer.add(index).read_volatile() } {
            0 => break,
            byte => text.push(byte),
        }
    }
    Some(text)
}
