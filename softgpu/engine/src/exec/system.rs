//! Functions that device code expects the driver to provide: `vprintf`, `__assertfail`, `malloc`
//! and `free`. Their arguments are in the caller's frame.

use super::fault::Violation;
use super::grid::Text;
use super::inst::Inst;
use super::kernel::FrameSpan;
use super::machine::Machine;
use super::memory::{lanes_of, text_at};
use super::{heap, printf, windows};

/// Bytes of the running function's frame, as a number.
fn read(machine: &Machine<'_>, span: FrameSpan, at: (usize, usize)) -> u64 {
    let mut bytes = [0; 8];
    let count = span.bytes.min(8) as usize;
    let address = windows::LOCAL + u64::from(machine.frame) + u64::from(span.offset);
    // The frame is in local memory, so that this cannot fail.
    super::memory::copy_out(machine, address, at, &mut bytes[..count]);
    u64::from_le_bytes(bytes)
}

/// Writes the result of a call, if the caller wants it.
fn write(machine: &Machine<'_>, inst: &Inst, at: (usize, usize), value: u64) {
    let Some(span) = machine.kernel.calls[inst.site as usize].returns.first() else {
        return;
    };
    let address = windows::LOCAL + u64::from(machine.frame) + u64::from(span.offset);
    let bytes = value.to_le_bytes();
    let count = span.bytes.min(8) as usize;
    if let Some((to, room)) = machine.windowed(address, at) {
        if room >= count as u64 {
            // SAFETY: `room` bytes at `to` are the thread's own.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count) };
        }
    }
}

/// The arguments of a call by one lane.
fn arguments<const N: usize>(machine: &Machine<'_>, inst: &Inst, at: (usize, usize)) -> [u64; N] {
    let spans = &machine.kernel.calls[inst.site as usize].params;
    std::array::from_fn(|index| spans.get(index).map_or(0, |&span| read(machine, span, at)))
}

/// Runs `f` for each active lane until one fails.
fn each_lane(
    machine: &mut Machine<'_>,
    mut f: impl FnMut(&mut Machine<'_>, (usize, usize)) -> Result<(), Violation>,
) -> bool {
    for warp in 0..machine.lanes.warps {
        for lane in lanes_of(machine.lanes.exec[warp]) {
            if let Err(violation) = f(machine, (warp, lane)) {
                return machine.fail(violation, warp, lane);
            }
        }
    }
    true
}

fn text(machine: &Machine<'_>, address: u64, at: (usize, usize)) -> Result<Vec<u8>, Violation> {
    text_at(machine, address, at).ok_or(Violation::Address { address, bytes: 1 })
}

/// `int vprintf(const char *format, const void *arguments)`
///
/// # Safety
/// As for [`BlockFn`](super::inst::BlockFn).
pub unsafe fn vprintf(machine: &mut Machine<'_>, inst: &Inst) -> bool {
    let mut texts = vec![];
    let done = each_lane(machine, |machine, at| {
        let [format, values] = arguments(machine, inst, at);
        let format = text(machine, format, at)?;
        let mut bytes = vec![];
        let arguments = printf::format(machine, &format, values, at, &mut bytes)?;
        texts.push(Text { bytes, arguments });
        write(machine, inst, at, arguments);
        Ok(())
    });
    if !texts.is_empty() {
        machine.grid.console.print(texts);
    }
    done
}

/// `void __assertfail(message, file, line, function, size_t char_size)`
///
/// # Safety
/// As for [`BlockFn`](super::inst::BlockFn).
pub unsafe fn assert_fail(machine: &mut Machine<'_>, inst: &Inst) -> bool {
    let mut first = None;
    let done = each_lane(machine, |machine, at| {
        let [message, file, line, function, _] = arguments(machine, inst, at);
        let [message, file, function] = [message, file, function]
            .map(|address| text(machine, address, at).unwrap_or_default())
            .map(|text| String::from_utf8_lossy(&text).into_owned());
        let thread = machine.thread_number(at.0, at.1);
        let [x, y, _] = machine.grid.launch.block;
        let [bx, by, bz] = machine.block;
        let (tx, ty, tz) = (thread % x, thread / x % y, thread / x / y);
        machine.grid.console.complain(
            format!(
                "{file}:{line}: {function}: block: [{bx},{by},{bz}], thread: [{tx},{ty},{tz}] \
                 Assertion `{message}` failed.\n"
            )
            .as_bytes(),
        );
        first.get_or_insert((message, at));
        Ok(())
    });
    match first {
        Some((message, (warp, lane))) => machine.fail(Violation::Assert(message), warp, lane),
        None => done,
    }
}

/// `void *malloc(size_t bytes)`
///
/// # Safety
/// As for [`BlockFn`](super::inst::BlockFn).
pub unsafe fn malloc(machine: &mut Machine<'_>, inst: &Inst) -> bool {
    each_lane(machine, |machine, at| {
        let [bytes] = arguments(machine, inst, at);
        write(machine, inst, at, heap::allocate(bytes));
        Ok(())
    })
}

/// `void free(void *address)`
///
/// # Safety
/// As for [`BlockFn`](super::inst::BlockFn).
pub unsafe fn free(machine: &mut Machine<'_>, inst: &Inst) -> bool {
    let freed = each_lane(machine, |machine, at| {
        let [address] = arguments(machine, inst, at);
        match heap::release(address) {
            true => Ok(()),
            false => Err(Violation::Address { address, bytes: 1 }),
        }
    });
    // Instructions remember the allocation that they used last.
    machine.ranges.fill(super::memory::CachedRange::default());
    freed
}
