//! Loads and stores.

use super::super::inst::{BlockFn, Flags, Inst};
use super::super::lanes::LANES;
use super::super::machine::Machine;
use super::chunk::{Baseline, Level, Pattern, CHUNK};
use super::known::{each_part, Part};
use super::place::{lanes_of, Generic, Global, Limits, Local, Place, Shared, Word};
use super::{Area, Element};

/// Which way an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Load,
    Store,
}

/// A register's lane.
trait Register: Copy {
    /// Writes `self` to eight lanes.
    ///
    /// # Safety
    /// `to` must point to eight lanes, and the machine must have what `L` needs.
    unsafe fn repeat<L: Level>(self, to: *mut Self);
}

impl Register for u32 {
    #[inline(always)]
    unsafe fn repeat<L: Level>(self, to: *mut u32) {
        // SAFETY: passed on.
        unsafe { L::repeat_word(to, self) }
    }
}

impl Register for u64 {
    #[inline(always)]
    unsafe fn repeat<L: Level>(self, to: *mut u64) {
        // SAFETY: passed on.
        unsafe { L::repeat_double(to, self) }
    }
}

/// How an element in memory corresponds to a register.
trait Transfer {
    type Memory: Copy;
    type Register: Register;
    fn widen(value: Self::Memory) -> Self::Register;
    fn narrow(value: Self::Register) -> Self::Memory;
}

/// Memory type `M` in a register of type `R`.
struct As<M, R>(std::marker::PhantomData<(M, R)>);

macro_rules! transfers {
    ($($memory:ty => $register:ty, $via:ty;)*) => {$(
        impl Transfer for As<$memory, $register> {
            type Memory = $memory;
            type Register = $register;
            #[inline(always)]
            fn widen(value: $memory) -> $register {
                value as $via as $register
            }
            #[inline(always)]
            fn narrow(value: $register) -> $memory {
                value as $memory
            }
        }
    )*};
}

transfers! {
    u8 => u32, u32;
    i8 => u32, i32;
    u16 => u32, u32;
    i16 => u32, i32;
    u32 => u32, u32;
    u8 => u64, u64;
    i8 => u64, i64;
    u16 => u64, u64;
    i16 => u64, i64;
    u32 => u64, u64;
    i32 => u64, i64;
    u64 => u64, u64;
}

/// A pointer to checked device memory.
#[inline(always)]
fn pointer(at: usize) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(at)
}

/// Loads one chunk.
#[inline(always)]
unsafe fn load_part<L: Level, T: Transfer>(
    machine: &Machine<'_>,
    inst: &Inst,
    (warp, first): (usize, usize),
    part: Part,
) {
    // SAFETY: the caller checked the part's addresses.
    unsafe {
        let d = machine
            .lanes
            .reg::<T::Register>(inst.operands.d, warp)
            .cast::<T::Register>();
        match part {
            Part::Consecutive(at) => {
                let from = pointer(at).cast::<[T::Memory; CHUNK]>().read_unaligned();
                d.add(first)
                    .cast::<[T::Register; CHUNK]>()
                    .write(from.map(T::widen));
            }
            Part::Equal(at) => {
                let value = T::widen(pointer(at).cast::<T::Memory>().read());
                value.repeat::<L>(d.add(first));
            }
        }
    }
}

/// Stores one chunk.
#[inline(always)]
unsafe fn store_part<T: Transfer>(
    machine: &Machine<'_>,
    inst: &Inst,
    (warp, first): (usize, usize),
    part: Part,
) {
    // SAFETY: the caller checked the part's addresses.
    unsafe {
        let d = machine
            .lanes
            .reg::<T::Register>(inst.operands.d, warp)
            .cast::<T::Register>();
        let values = d
            .add(first)
            .cast::<[T::Register; CHUNK]>()
            .read()
            .map(T::narrow);
        match part {
            Part::Consecutive(at) => {
                pointer(at)
                    .cast::<[T::Memory; CHUNK]>()
                    .write_unaligned(values);
            }
            // The last lane's value is the one that stays.
            Part::Equal(at) => pointer(at).cast::<T::Memory>().write(values[CHUNK - 1]),
        }
    }
}

/// The chunk of lanes that starts at `at`, if its addresses are in a simple order and in range.
#[inline(always)]
unsafe fn find_part<L: Level, P: Place>(
    machine: &Machine<'_>,
    inst: &Inst,
    at: (usize, usize),
    bytes: usize,
) -> Option<Part> {
    let Limits { start, room, base } = P::limits(machine, inst, bytes)?;
    // SAFETY: passed on.
    let (first, extent) = match unsafe { P::relate::<L>(machine, inst, at, bytes) } {
        Pattern::Consecutive(first) => (first, (CHUNK - 1) * bytes),
        Pattern::Equal(first) => (first, 0),
        Pattern::Other => return None,
    };
    let first = (first.offset() as u64).wrapping_add_signed(inst.operands.imm);
    let above = first.wrapping_sub(start);
    if above > room || room - above < extent as u64 || first & (bytes as u64 - 1) != 0 {
        return None;
    }
    let first = base.wrapping_add(first as usize);
    Some(if extent > 0 {
        Part::Consecutive(first)
    } else {
        Part::Equal(first)
    })
}

/// Moves one element of each active lane: `part` does it for a chunk whose addresses are in a simple
/// order, `lanes` for the lanes of a mask, one after the other.
#[inline(always)]
unsafe fn move_one<L: Level, P: Place>(
    machine: &mut Machine<'_>,
    inst: &Inst,
    bytes: usize,
    part: impl Fn(&Machine<'_>, (usize, usize), Part),
    lanes: impl Fn(&mut Machine<'_>, usize, u32) -> bool,
) -> bool {
    // SAFETY: passed on.
    unsafe {
        if inst.flags.has(Flags::RUN) && each_part::<L, P>(machine, inst, bytes, &part) {
            return true;
        }
        for warp in 0..machine.lanes.warps {
            let mut mask = machine.lanes.exec[warp];
            if mask == !0 {
                let mut first = 0;
                while first < LANES {
                    let at = (warp, first);
                    let Some(found) = find_part::<L, P>(machine, inst, at, bytes) else {
                        break;
                    };
                    part(machine, at, found);
                    first += CHUNK;
                }
                mask = u32::MAX.checked_shl(first as u32).unwrap_or(0);
            }
            if mask != 0 && !lanes(machine, warp, mask) {
                return false;
            }
        }
    }
    true
}

#[inline(always)]
unsafe fn load_one<L: Level, P: Place, T: Transfer>(
    machine: &mut Machine<'_>,
    inst: &Inst,
) -> bool {
    // SAFETY: passed on.
    unsafe {
        move_one::<L, P>(
            machine,
            inst,
            size_of::<T::Memory>(),
            |machine, at, part| load_part::<L, T>(machine, inst, at, part),
            |machine, warp, mask| load_lanes::<P, T>(machine, inst, warp, mask),
        )
    }
}

#[inline(always)]
unsafe fn store_one<L: Level, P: Place, T: Transfer>(
    machine: &mut Machine<'_>,
    inst: &Inst,
) -> bool {
    // SAFETY: passed on.
    unsafe {
        move_one::<L, P>(
            machine,
            inst,
            size_of::<T::Memory>(),
            |machine, at, part| store_part::<T>(machine, inst, at, part),
            |machine, warp, mask| store_lanes::<P, T>(machine, inst, warp, mask),
        )
    }
}

/// Loads one element to each lane of `mask`, one after the other.
#[inline(never)]
unsafe fn load_lanes<P: Place, T: Transfer>(
    machine: &mut Machine<'_>,
    inst: &Inst,
    warp: usize,
    mask: u32,
) -> bool {
    // SAFETY: passed on.
    unsafe {
        let d = machine.lanes.reg::<T::Register>(inst.operands.d, warp);
        for lane in lanes_of(mask) {
            let bytes = size_of::<T::Memory>() as u32;
            let Some(from) = P::pointer(machine, inst, (warp, lane), bytes) else {
                return false;
            };
            (*d)[lane] = T::widen(from.cast::<T::Memory>().read());
        }
    }
    true
}

/// Stores one element of each lane of `mask`, one after the other.
#[inline(never)]
unsafe fn store_lanes<P: Place, T: Transfer>(
    machine: &mut Machine<'_>,
    inst: &Inst,
    warp: usize,
    mask: u32,
) -> bool {
    // SAFETY: passed on.
    unsafe {
        let d = machine.lanes.reg::<T::Register>(inst.operands.d, warp);
        for lane in lanes_of(mask) {
            let bytes = size_of::<T::Memory>() as u32;
            let Some(to) = P::pointer(machine, inst, (warp, lane), bytes) else {
                return false;
            };
            to.cast::<T::Memory>().write(T::narrow((*d)[lane]));
        }
    }
    true
}

/// What one lane of a vector access moves: at most 32 bytes. Parts of up to 16 bytes travel in
/// one machine access, which programs rely on that pass a flag and a value together.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
union Packet {
    bytes: [u8; 32],
    #[cfg(target_arch = "x86_64")]
    halves: [std::arch::x86_64::__m128i; 2],
    doubles: [u64; 4],
    words: [u32; 8],
}

impl Packet {
    #[inline(always)]
    unsafe fn read(from: *const u8, bytes: usize) -> Packet {
        let mut packet = Packet { bytes: [0; 32] };
        // SAFETY: the caller checked `bytes` at `from`, aligned to them (to 16 at most).
        unsafe {
            match bytes {
                2 => packet.words[0] = u32::from(from.cast::<u16>().read_volatile()),
                4 => packet.words[0] = from.cast::<u32>().read_volatile(),
                8 => packet.doubles[0] = from.cast::<u64>().read_volatile(),
                _ => {
                    for half in 0..bytes / 16 {
                        packet.read_half(from.add(16 * half), half);
                    }
                }
            }
        }
        packet
    }

    #[inline(always)]
    unsafe fn write(&self, to: *mut u8, bytes: usize) {
        // SAFETY: as in `read`.
        unsafe {
            match bytes {
                2 => to.cast::<u16>().write_volatile(self.words[0] as u16),
                4 => to.cast::<u32>().write_volatile(self.words[0]),
                8 => to.cast::<u64>().write_volatile(self.doubles[0]),
                _ => {
                    for half in 0..bytes / 16 {
                        self.write_half(to.add(16 * half), half);
                    }
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn read_half(&mut self, from: *const u8, half: usize) {
        // SAFETY: as in `read`.
        unsafe { self.halves[half] = from.cast::<std::arch::x86_64::__m128i>().read_volatile() }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn write_half(&self, to: *mut u8, half: usize) {
        // SAFETY: as in `read`.
        unsafe {
            to.cast::<std::arch::x86_64::__m128i>()
                .write_volatile(self.halves[half])
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn read_half(&mut self, from: *const u8, half: usize) {
        // SAFETY: as in `read`.
        unsafe {
            for index in 2 * half..2 * half + 2 {
                self.doubles[index] = from.cast::<u64>().add(index - 2 * half).read_volatile();
            }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn write_half(&self, to: *mut u8, half: usize) {
        // SAFETY: as in `read`.
        unsafe {
            for index in 2 * half..2 * half + 2 {
                to.cast::<u64>()
                    .add(index - 2 * half)
                    .write_volatile(self.doubles[index]);
            }
        }
    }
}

/// The slots of the elements of a vector access.
fn element_slots(inst: &Inst) -> [u32; 4] {
    let o = &inst.operands;
    [o.d, o.b, o.c, o.e]
}

#[inline(always)]
unsafe fn load_many<L: Level, P: Place, T: Transfer, const N: usize>(
    machine: &mut Machine<'_>,
    inst: &Inst,
) -> bool {
    let element = size_of::<T::Memory>();
    let slots = element_slots(inst);
    for warp in 0..machine.lanes.warps {
        for lane in lanes_of(machine.lanes.exec[warp]) {
            // SAFETY: passed on.
            unsafe {
                let bytes = (element * N) as u32;
                let Some(from) = P::pointer(machine, inst, (warp, lane), bytes) else {
                    return false;
                };
                let packet = Packet::read(from, element * N);
                for (index, slot) in slots.into_iter().take(N).enumerate() {
                    let at = packet.bytes.as_ptr().add(index * element);
                    let value = T::widen(at.cast::<T::Memory>().read());
                    (*machine.lanes.reg::<T::Register>(slot, warp))[lane] = value;
                }
            }
        }
    }
    true
}

#[inline(always)]
unsafe fn store_many<L: Level, P: Place, T: Transfer, const N: usize>(
    machine: &mut Machine<'_>,
    inst: &Inst,
) -> bool {
    let element = size_of::<T::Memory>();
    let slots = element_slots(inst);
    for warp in 0..machine.lanes.warps {
        for lane in lanes_of(machine.lanes.exec[warp]) {
            // SAFETY: passed on.
            unsafe {
                let bytes = (element * N) as u32;
                let Some(to) = P::pointer(machine, inst, (warp, lane), bytes) else {
                    return false;
                };
                let mut packet = Packet { bytes: [0; 32] };
                for (index, slot) in slots.into_iter().take(N).enumerate() {
                    let value = (*machine.lanes.reg::<T::Register>(slot, warp))[lane];
                    let at = packet.bytes.as_mut_ptr().add(index * element);
                    at.cast::<T::Memory>().write(T::narrow(value));
                }
                packet.write(to, element * N);
            }
        }
    }
    true
}

/// The same body for machines with AVX2 and for all others.
macro_rules! leveled {
    ($($avx2:ident, $baseline:ident = $body:ident [$($count:ident)?];)*) => {$(
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
        unsafe fn $avx2<P: Place, T: Transfer $(, const $count: usize)?>(
            machine: &mut Machine<'_>,
            inst: &Inst,
        ) -> bool {
            // SAFETY: passed on.
            unsafe { $body::<super::chunk::Avx2, P, T $(, $count)?>(machine, inst) }
        }

        unsafe fn $baseline<P: Place, T: Transfer $(, const $count: usize)?>(
            machine: &mut Machine<'_>,
            inst: &Inst,
        ) -> bool {
            // SAFETY: passed on.
            unsafe { $body::<Baseline, P, T $(, $count)?>(machine, inst) }
        }
    )*};
}

leveled! {
    load_one_avx2, load_one_baseline = load_one [];
    store_one_avx2, store_one_baseline = store_one [];
    load_many_avx2, load_many_baseline = load_many [N];
    store_many_avx2, store_many_baseline = store_many [N];
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

/// The operation for a place and an element.
fn pick<P: Place, T: Transfer>(count: usize, direction: Direction) -> BlockFn {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        return match (direction, count) {
            (Direction::Load, 1) => load_one_avx2::<P, T>,
            (Direction::Load, 2) => load_many_avx2::<P, T, 2>,
            (Direction::Load, _) => load_many_avx2::<P, T, 4>,
            (Direction::Store, 1) => store_one_avx2::<P, T>,
            (Direction::Store, 2) => store_many_avx2::<P, T, 2>,
            (Direction::Store, _) => store_many_avx2::<P, T, 4>,
        };
    }
    match (direction, count) {
        (Direction::Load, 1) => load_one_baseline::<P, T>,
        (Direction::Load, 2) => load_many_baseline::<P, T, 2>,
        (Direction::Load, _) => load_many_baseline::<P, T, 4>,
        (Direction::Store, 1) => store_one_baseline::<P, T>,
        (Direction::Store, 2) => store_many_baseline::<P, T, 2>,
        (Direction::Store, _) => store_many_baseline::<P, T, 4>,
    }
}

fn pick_element<P: Place>(element: Element, count: usize, direction: Direction) -> BlockFn {
    let Element {
        bytes,
        signed,
        wide,
    } = element;
    match (bytes, signed, wide) {
        (1, false, false) => pick::<P, As<u8, u32>>(count, direction),
        (1, true, false) => pick::<P, As<i8, u32>>(count, direction),
        (2, false, false) => pick::<P, As<u16, u32>>(count, direction),
        (2, true, false) => pick::<P, As<i16, u32>>(count, direction),
        (1, false, true) => pick::<P, As<u8, u64>>(count, direction),
        (1, true, true) => pick::<P, As<i8, u64>>(count, direction),
        (2, false, true) => pick::<P, As<u16, u64>>(count, direction),
        (2, true, true) => pick::<P, As<i16, u64>>(count, direction),
        (4, false, true) => pick::<P, As<u32, u64>>(count, direction),
        (4, true, true) => pick::<P, As<i32, u64>>(count, direction),
        (8, ..) => pick::<P, As<u64, u64>>(count, direction),
        _ => pick::<P, As<u32, u32>>(count, direction),
    }
}

/// The operation that moves `count` elements to or from `area`.
pub fn select(area: Area, element: Element, count: usize, direction: Direction) -> BlockFn {
    match area {
        Area::Global => pick_element::<Global>(element, count, direction),
        Area::Shared => pick_element::<Shared>(element, count, direction),
        Area::Local => pick_element::<Local>(element, count, direction),
        Area::Generic => pick_element::<Generic>(element, count, direction),
    }
}
