//! Addresses that were just looked at.
//!
//! Compilers access memory in runs: sixteen loads from one register, each with its own
//! displacement. The decoder marks the first of a run ([`Flags::NOTES_ADDRESSES`]), which notes how
//! the group's addresses relate; for the others ([`Flags::KNOWN_ADDRESSES`]) one comparison checks
//! all lanes at once. Nothing between them changes the register or the active lanes.

use super::super::inst::{Flags, Inst};
use super::super::lanes::{LANES, WARPS};
use super::super::machine::Machine;
use super::chunk::{Level, Pattern, CHUNK};
use super::place::{Limits, Place, Word};

/// Chunks of a warp.
const CHUNKS: usize = LANES / CHUNK;

/// The addresses of a group's lanes, less displacement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// All lanes are active, and every chunk's addresses are consecutive or equal.
    valid: bool,
    /// The lowest address, and the highest.
    lowest: u64,
    highest: u64,
    /// Bits that any address has set.
    bits: u64,
    /// For each chunk: its first address; its bit in `consecutive` says how it goes on.
    firsts: [[u64; CHUNKS]; WARPS],
    consecutive: [u8; WARPS],
}

/// One chunk of an access whose addresses were checked.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// At this address of the process and in those after it.
    Consecutive(usize),
    /// All at this address.
    Equal(usize),
}

/// Runs `body` with the place and addresses of every chunk, if they are known and in range; false
/// if not, and nothing has happened.
///
/// # Safety
/// The instruction must come from the machine's kernel.
#[inline(always)]
pub unsafe fn each_part<L: Level, P: Place>(
    machine: &mut Machine<'_>,
    inst: &Inst,
    bytes: usize,
    mut body: impl FnMut(&Machine<'_>, (usize, usize), Part),
) -> bool {
    let number = inst.flags.run_number();
    if inst.flags.has(Flags::NOTES_ADDRESSES) {
        // SAFETY: passed on.
        machine.known[number] = unsafe { note::<L, P>(machine, inst, bytes) };
    }
    let Some(Limits { start, room, base }) = P::limits(machine, inst, bytes) else {
        return false;
    };
    let known = &machine.known[number];
    let add = inst.operands.imm as u64;
    let lowest = known.lowest.wrapping_add(add).wrapping_sub(start);
    let highest = known.highest.wrapping_add(add).wrapping_sub(start);
    // The low bits of a sum are zero if those of both parts are; else each lane is looked at.
    let aligned = (known.bits | add) & (bytes as u64 - 1) == 0;
    if !known.valid || !aligned || lowest > highest || highest > room {
        return false;
    }
    for warp in 0..machine.lanes.warps.min(WARPS) {
        for chunk in 0..CHUNKS {
            let at = base.wrapping_add(known.firsts[warp][chunk].wrapping_add(add) as usize);
            let part = match known.consecutive[warp] >> chunk & 1 {
                1 => Part::Consecutive(at),
                _ => Part::Equal(at),
            };
            body(machine, (warp, chunk * CHUNK), part);
        }
    }
    true
}

/// Looks at the addresses of all lanes.
#[inline(always)]
unsafe fn note<L: Level, P: Place>(machine: &Machine<'_>, inst: &Inst, bytes: usize) -> Known {
    let mut known = Known {
        lowest: u64::MAX,
        valid: true,
        ..Known::default()
    };
    for warp in 0..machine.lanes.warps.min(WARPS) {
        if machine.lanes.exec[warp] != !0 {
            return Known::default();
        }
        for chunk in 0..CHUNKS {
            // SAFETY: passed on.
            let pattern = unsafe { P::relate::<L>(machine, inst, (warp, chunk * CHUNK), bytes) };
            let (first, extent) = match pattern {
                Pattern::Consecutive(first) => {
                    known.consecutive[warp] |= 1 << chunk;
                    (first, (CHUNK - 1) * bytes)
                }
                Pattern::Equal(first) => (first, 0),
                Pattern::Other => return Known::default(),
            };
            let first = first.offset() as u64;
            known.firsts[warp][chunk] = first;
            known.lowest = known.lowest.min(first);
            known.highest = known.highest.max(first.saturating_add(extent as u64));
            known.bits |= first;
        }
    }
    known
}
