//! From the addresses in registers to addresses of this process, checked.

use super::super::fault::Violation;
use super::super::inst::{Flags, Inst};
use super::super::lanes::LANES;
use super::super::machine::Machine;
use super::super::windows;
use super::chunk::{Level, Pattern};

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

/// Where accesses of some size may begin.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first address.
    pub start: u64,
    /// How far above it the last one lies.
    pub room: u64,
    /// What to add to an address to have one of this process.
    pub base: usize,
}

/// An area of memory that instructions name.
pub trait Place {
    type Word: Word;

    /// The address of this process that a lane may access `bytes` at, a power of two: operand `a`
    /// and the displacement give it. `None` if it may not; the violation is in the machine.
    ///
    /// # Safety
    /// The instruction must come from the machine's kernel, warp and lane (`at`) from its group.
    unsafe fn pointer(
        machine: &mut Machine<'_>,
        inst: &Inst,
        at: (usize, usize),
        bytes: u32,
    ) -> Option<*mut u8>;

    /// Where accesses of `bytes` may begin; `None` where only [`Place::pointer`] knows.
    fn limits(_machine: &Machine<'_>, _inst: &Inst, _bytes: usize) -> Option<Limits> {
        None
    }

    /// How the addresses of a chunk of lanes relate, less displacement and wherever they are.
    ///
    /// # Safety
    /// As for `pointer`, where `at` is the chunk's first lane; and `limits` has given some.
    unsafe fn relate<L: Level>(
        _machine: &Machine<'_>,
        _inst: &Inst,
        _at: (usize, usize),
        _bytes: usize,
    ) -> Pattern<Self::Word> {
        Pattern::Other
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

/// The 64-bit address of a lane.
#[inline(always)]
unsafe fn wide_address(machine: &Machine<'_>, inst: &Inst, (warp, lane): (usize, usize)) -> u64 {
    // SAFETY: the caller's promise; the decoder made sure that operand `a` has 64 bits.
    let base = unsafe { (*machine.lanes.reg::<u64>(inst.operands.a, warp))[lane] };
    base.wrapping_add_signed(inst.operands.imm)
}

/// The offset of a lane in a small area; one that exceeds 32 bits becomes the largest.
#[inline(always)]
unsafe fn narrow_address(machine: &Machine<'_>, inst: &Inst, at: (usize, usize)) -> u32 {
    if inst.flags.has(Flags::WIDE_ADDRESS) {
        // SAFETY: as above.
        let wide = unsafe { wide_address(machine, inst, at) };
        return u32::try_from(wide).unwrap_or(u32::MAX);
    }
    // SAFETY: as above, with 32 bits.
    let base = unsafe { (*machine.lanes.reg::<u32>(inst.operands.a, at.0))[at.1] };
    base.wrapping_add(inst.operands.imm as u32)
}

/// Notes that a lane's address is wrong.
#[cold]
#[inline(never)]
fn refuse(machine: &mut Machine<'_>, address: u64, (warp, lane): (usize, usize), bytes: u32) {
    let violation = match address % u64::from(bytes) {
        0 => Violation::Address { address, bytes },
        _ => Violation::Misaligned { address, bytes },
    };
    machine.fail(violation, warp, lane);
}

/// An address in global memory.
#[inline(always)]
fn global_pointer(
    machine: &mut Machine<'_>,
    inst: &Inst,
    address: u64,
    at: (usize, usize),
    bytes: u32,
) -> Option<*mut u8> {
    let CachedRange { start, size } = machine.ranges[inst.site as usize];
    let above = address.wrapping_sub(start);
    let fits = above < size && size - above >= u64::from(bytes);
    let is_aligned = address & u64::from(bytes - 1) == 0;
    let is_known = fits && is_aligned || look_up(machine, inst, address, bytes);
    if !is_known {
        refuse(machine, address, at, bytes);
        return None;
    }
    Some(std::ptr::with_exposed_provenance_mut(address as usize))
}

/// Finds the allocation of an address that is not in the one used last, and remembers it.
#[cold]
#[inline(never)]
fn look_up(machine: &mut Machine<'_>, inst: &Inst, address: u64, bytes: u32) -> bool {
    match machine.find_range(address) {
        Some(range)
            if range.end - address >= bytes.into() && address.is_multiple_of(u64::from(bytes)) =>
        {
            let size = range.end - range.start;
            machine.ranges[inst.site as usize] = CachedRange {
                start: range.start,
                size,
            };
            true
        }
        _ => false,
    }
}

/// The limits of the allocation that the instruction used last.
#[inline(always)]
fn global_limits(machine: &Machine<'_>, inst: &Inst, bytes: usize) -> Option<Limits> {
    let CachedRange { start, size } = *machine.ranges.get(inst.site as usize)?;
    Some(Limits {
        start,
        room: size.checked_sub(bytes as u64)?,
        base: 0,
    })
}

/// How the 64-bit addresses of a chunk relate.
#[inline(always)]
unsafe fn relate_wide<L: Level>(
    machine: &Machine<'_>,
    inst: &Inst,
    (warp, first): (usize, usize),
    bytes: usize,
) -> Pattern<u64> {
    // SAFETY: the decoder made sure that operand `a` has 64 bits.
    unsafe {
        let at = machine
            .lanes
            .reg::<u64>(inst.operands.a, warp)
            .cast::<u64>();
        L::wide(at.add(first), bytes as u64)
    }
}

impl Place for Global {
    type Word = u64;

    #[inline(always)]
    unsafe fn pointer(
        machine: &mut Machine<'_>,
        inst: &Inst,
        at: (usize, usize),
        bytes: u32,
    ) -> Option<*mut u8> {
        // SAFETY: passed on.
        let address = unsafe { wide_address(machine, inst, at) };
        global_pointer(machine, inst, address, at, bytes)
    }

    #[inline(always)]
    fn limits(machine: &Machine<'_>, inst: &Inst, bytes: usize) -> Option<Limits> {
        global_limits(machine, inst, bytes)
    }

    #[inline(always)]
    unsafe fn relate<L: Level>(
        machine: &Machine<'_>,
        inst: &Inst,
        at: (usize, usize),
        bytes: usize,
    ) -> Pattern<u64> {
        // SAFETY: passed on.
        unsafe { relate_wide::<L>(machine, inst, at, bytes) }
    }
}

/// The offset of a lane in an area of `size` bytes.
#[inline(always)]
unsafe fn checked_offset(
    machine: &mut Machine<'_>,
    inst: &Inst,
    at: (usize, usize),
    (size, bytes): (u32, u32),
) -> Option<usize> {
    // SAFETY: passed on.
    let offset = unsafe { narrow_address(machine, inst, at) };
    if size < bytes || offset > size - bytes || offset & (bytes - 1) != 0 {
        refuse(machine, offset.into(), at, bytes);
        return None;
    }
    Some(offset as usize)
}

impl Place for Shared {
    type Word = u32;

    #[inline(always)]
    unsafe fn pointer(
        machine: &mut Machine<'_>,
        inst: &Inst,
        at: (usize, usize),
        bytes: u32,
    ) -> Option<*mut u8> {
        let sizes = (machine.shared_bytes, bytes);
        // SAFETY: passed on.
        let offset = unsafe { checked_offset(machine, inst, at, sizes) };
        offset.map(|offset| machine.shared.wrapping_add(offset))
    }

    #[inline(always)]
    fn limits(machine: &Machine<'_>, inst: &Inst, bytes: usize) -> Option<Limits> {
        let room = machine.shared_bytes.checked_sub(bytes as u32)?;
        let narrow = !inst.flags.has(Flags::WIDE_ADDRESS);
        let base = machine.shared.expose_provenance();
        narrow.then_some(Limits {
            start: 0,
            room: room.into(),
            base,
        })
    }

    #[inline(always)]
    unsafe fn relate<L: Level>(
        machine: &Machine<'_>,
        inst: &Inst,
        (warp, first): (usize, usize),
        bytes: usize,
    ) -> Pattern<u32> {
        // SAFETY: passed on; where there are limits the operand has 32 bits.
        unsafe {
            let at = machine
                .lanes
                .reg::<u32>(inst.operands.a, warp)
                .cast::<u32>();
            L::narrow(at.add(first), bytes as u32)
        }
    }
}

impl Place for Local {
    type Word = u32;

    #[inline(always)]
    unsafe fn pointer(
        machine: &mut Machine<'_>,
        inst: &Inst,
        at: (usize, usize),
        bytes: u32,
    ) -> Option<*mut u8> {
        let sizes = (machine.local_bytes, bytes);
        // SAFETY: passed on.
        let offset = unsafe { checked_offset(machine, inst, at, sizes) };
        offset.map(|offset| machine.local_of(at).wrapping_add(offset))
    }
}

impl Place for Generic {
    type Word = u64;

    #[inline(always)]
    unsafe fn pointer(
        machine: &mut Machine<'_>,
        inst: &Inst,
        at: (usize, usize),
        bytes: u32,
    ) -> Option<*mut u8> {
        // SAFETY: passed on.
        let address = unsafe { wide_address(machine, inst, at) };
        if !windows::contain(address) {
            return global_pointer(machine, inst, address, at, bytes);
        }
        let found = machine.windowed(address, at);
        match found.filter(|(_, room)| *room >= bytes.into() && address % u64::from(bytes) == 0) {
            Some((pointer, _)) => Some(pointer),
            None => {
                refuse(machine, address, at, bytes);
                None
            }
        }
    }

    // Addresses in the windows are in no allocation, so that only `pointer` accepts them.
    #[inline(always)]
    fn limits(machine: &Machine<'_>, inst: &Inst, bytes: usize) -> Option<Limits> {
        global_limits(machine, inst, bytes)
    }

    #[inline(always)]
    unsafe fn relate<L: Level>(
        machine: &Machine<'_>,
        inst: &Inst,
        at: (usize, usize),
        bytes: usize,
    ) -> Pattern<u64> {
        // SAFETY: passed on.
        unsafe { relate_wide::<L>(machine, inst, at, bytes) }
    }
}

/// The memory at a generic address: a pointer, and the bytes from there to the allocation's end.
pub fn bytes_at(machine: &Machine<'_>, address: u64, at: (usize, usize)) -> Option<(*mut u8, u64)> {
    if windows::contain(address) {
        return machine.windowed(address, at);
    }
    let range = machine.find_range(address)?;
    let pointer = std::ptr::with_exposed_provenance_mut(address as usize);
    Some((pointer, range.end - address))
}

/// Copies `out.len()` bytes from a generic address; false if they are not all there.
pub fn copy_out(machine: &Machine<'_>, address: u64, at: (usize, usize), out: &mut [u8]) -> bool {
    match bytes_at(machine, address, at) {
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
pub fn text_at(machine: &Machine<'_>, address: u64, at: (usize, usize)) -> Option<Vec<u8>> {
    let (pointer, room) = bytes_at(machine, address, at)?;
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
