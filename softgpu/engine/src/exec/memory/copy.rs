//! `cp.async`: copies from global to shared memory, done at once.

use super::super::fault::Violation;
use super::super::inst::Inst;
use super::super::machine::Machine;
use super::super::windows;
use super::place::{bytes_at, lanes_of};

/// Copies up to `imm` bytes (operand `c` says how many, the rest becomes zero) from the global
/// address in operand `b` to the shared offset in operand `a`.
///
/// # Safety
/// As for [`BlockFn`](super::super::inst::BlockFn).
pub unsafe fn copy_async(machine: &mut Machine<'_>, inst: &Inst) -> bool {
    let size = inst.operands.imm as u64;
    let wide = inst.flags.has(super::super::inst::Flags::WIDE_ADDRESS);
    for warp in 0..machine.lanes.warps {
        for lane in lanes_of(machine.lanes.exec[warp]) {
            // SAFETY: the decoder checked the operands' widths.
            let (to, from, count) = unsafe {
                let to = match wide {
                    true => (*machine.lanes.reg::<u64>(inst.operands.a, warp))[lane],
                    false => u64::from((*machine.lanes.reg::<u32>(inst.operands.a, warp))[lane]),
                };
                let from = (*machine.lanes.reg::<u64>(inst.operands.b, warp))[lane];
                let count = (*machine.lanes.reg::<u32>(inst.operands.c, warp))[lane];
                (to, from, u64::from(count).min(size))
            };
            for address in [to, from] {
                if address % size != 0 {
                    let violation = Violation::Misaligned {
                        address,
                        bytes: size as u32,
                    };
                    return machine.fail(violation, warp, lane);
                }
            }
            let target = windows::SHARED.wrapping_add(to);
            let violation = |address| Violation::Address {
                address,
                bytes: size as u32,
            };
            let Some((target, _)) = bytes_at(machine, target, (warp, lane))
                .filter(|(_, room)| to < windows::SIZE && *room >= size)
            else {
                return machine.fail(violation(to), warp, lane);
            };
            if count > 0 {
                let source = bytes_at(machine, from, (warp, lane));
                let Some((source, _)) = source.filter(|(_, room)| *room >= count) else {
                    return machine.fail(violation(from), warp, lane);
                };
                // SAFETY: both ranges were just checked; they may be the same memory.
                unsafe { std::ptr::copy(source, target, count as usize) };
            }
            // SAFETY: `size` bytes at `target` were checked.
            unsafe {
                target
                    .add(count as usize)
                    .write_bytes(0, (size - count) as usize)
            };
        }
    }
    true
}
