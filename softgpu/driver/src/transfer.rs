//! Copies and fills between the program's memory and the devices', with CUDA's rules of when the
//! call may return.

use std::sync::Arc;

use harp_cuda_abi::types::{CUDA_ERROR_INVALID_VALUE, CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_HOST};
use harp_driver_front::boxes::{BoxCopy, BoxEnd, Extent};

use crate::call::Outcome;
use crate::context::{Context, CONTEXTS};
use crate::device::{check_range, owner_of};
use crate::execution::command::{Marker, Stored, Work};
use crate::execution::copy::{Copy, Fill};
use crate::memory::host;
use crate::stream::Stream;

/// Pageable memory up to this size is taken at the call, so that the call need not wait.
const TAKEN_MAX: usize = 64 << 10;

/// Where one end of a copy lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The program said host memory.
    Host,
    /// The program said device memory.
    Device,
    /// The address says (`cuMemcpy`, `CU_MEMORYTYPE_UNIFIED`).
    Either,
}

/// What the memory at an end of a copy means for when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Device,
    /// Stays as it is until the stream gets there.
    Pinned,
    /// May change as soon as the call returns.
    Pageable,
}

/// Checks an end of a copy: `extent` bytes from `address`.
fn memory_at(address: u64, extent: u64, side: Side) -> Outcome<Memory> {
    let on_device = match side {
        Side::Device => true,
        Side::Host => false,
        Side::Either => owner_of(address).is_some(),
    };
    if on_device {
        check_range(address, extent)?;
        return Ok(Memory::Device);
    }
    if address == 0 || owner_of(address).is_some() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let pinned = host::find(address as usize).is_some_and(|range| range.holds(address, extent));
    Ok(if pinned {
        Memory::Pinned
    } else {
        Memory::Pageable
    })
}

/// Copies and returns when it is done.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for memory that is not what it should be, the sticky error.
pub fn copy(copy: Copy, from: Side, to: Side, stream: &Stream) -> Outcome {
    if extent(&copy).is_empty() {
        return Ok(());
    }
    let kinds = check(&copy, from, to)?;
    let others = contexts_elsewhere(&copy, kinds, stream);
    let after = others.iter().flat_map(|context| context.all_ends());
    stream.run_after(after, Work::Copy(copy))
}

/// The contexts besides the stream's own between whose memory a copy on the legacy stream goes. It
/// comes after all work so far of all of them, and before all that follows (CUDA programming guide,
/// "Peer-to-Peer Memory Copy").
fn contexts_elsewhere(copy: &Copy, kinds: (Memory, Memory), stream: &Stream) -> Vec<Arc<Context>> {
    if !stream.is_legacy() || kinds != (Memory::Device, Memory::Device) {
        return Vec::new();
    }
    let owner = |address| {
        let memory = owner_of(address).and_then(|device| device.heap.find(address));
        memory.map(|memory| memory.context)
    };
    let own = stream.context().map_or(0, |context| context.id);
    let owners = [owner(copy.from), owner(copy.to)];
    if owners.iter().flatten().all(|owner| *owner == own) {
        return Vec::new();
    }
    let mut contexts = CONTEXTS.all();
    contexts.retain(|context| context.id != own && owners.contains(&Some(context.id)));
    contexts
}

/// Whether a copy of device memory in a stream would be made at once: then the caller may make it.
///
/// # Errors
/// `CUDA_ERROR_NOT_READY` where it would not; `CUDA_ERROR_INVALID_VALUE` for what is not memory of the stream's device, the
/// sticky error.
pub fn reach(address: u64, bytes: u64, stream: &Stream) -> Outcome {
    let device = stream.context()?.device;
    let is_own = owner_of(address).is_some_and(|owner| core::ptr::eq(owner, device));
    if !is_own || !device.heap.holds(address, bytes) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    stream.check_idle()
}

/// Queues a copy whose ends lie in memory that stays as it is until then.
fn submit_copy(copy: Copy, kinds: (Memory, Memory), stream: &Stream) {
    let others = contexts_elsewhere(&copy, kinds, stream);
    let after = others.iter().flat_map(|context| context.all_ends());
    let end = stream.submit_after(after, Work::Copy(copy));
    for context in &others {
        context.legacy.submit_after([end.clone()], Work::Order);
    }
    note_visit(&[copy.from, copy.to], stream, &end);
}

/// Has the devices that the memory at `addresses` belongs to know of work in another device's stream.
fn note_visit(addresses: &[u64], stream: &Stream, end: &Marker) {
    let here = stream.context().map(|context| context.device);
    for device in addresses.iter().filter_map(|address| owner_of(*address)) {
        if here.is_ok_and(|here| !core::ptr::eq(here, device)) {
            device.visited_until(end.clone());
        }
    }
}

/// Copies in stream order. The call waits where the program may use or change its memory at once:
/// pageable memory is either taken now or copied before the call returns.
///
/// # Errors
/// As for [`copy`].
pub fn copy_async(copy: Copy, from: Side, to: Side, stream: &Stream) -> Outcome {
    if extent(&copy).is_empty() {
        return Ok(());
    }
    let (source, destination) = check(&copy, from, to)?;
    match (source, destination) {
        (Memory::Pageable, Memory::Device)
            if copy.height == 1 && copy.depth == 1 && copy.width <= TAKEN_MAX =>
        {
            // SAFETY: the program vouches for its own memory.
            let bytes = unsafe { core::slice::from_raw_parts(copy.from as *const u8, copy.width) };
            let end = stream.submit(Work::Store(Stored::new(bytes), copy.to));
            note_visit(&[copy.to], stream, &end);
            Ok(())
        }
        (Memory::Pageable, _) | (_, Memory::Pageable) => stream.run(Work::Copy(copy)),
        _ => {
            submit_copy(copy, (source, destination), stream);
            Ok(())
        }
    }
}

fn extent(copy: &Copy) -> Extent {
    let Copy {
        width,
        height,
        depth,
        ..
    } = *copy;
    Extent {
        width,
        height,
        depth,
    }
}

fn check(copy: &Copy, from: Side, to: Side) -> Outcome<(Memory, Memory)> {
    let extent = extent(copy);
    let source = extent.span(copy.from_pitch, copy.from_slice)?;
    let destination = extent.span(copy.to_pitch, copy.to_slice)?;
    Ok((
        memory_at(copy.from, source, from)?,
        memory_at(copy.to, destination, to)?,
    ))
}

/// Fills device memory in stream order.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for memory that is not allocated, or not aligned to the element.
pub fn fill(fill: Fill, stream: &Stream) -> Outcome {
    if fill.width == 0 || fill.height == 0 {
        return Ok(());
    }
    let element = fill.element as u64;
    let aligned = fill.to.is_multiple_of(element)
        && (fill.height == 1 || (fill.pitch as u64).is_multiple_of(element));
    let row = fill
        .width
        .checked_mul(fill.element)
        .ok_or(CUDA_ERROR_INVALID_VALUE)?;
    if !aligned || (fill.height > 1 && fill.pitch < row) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let extent = Extent {
        width: row,
        height: fill.height,
        depth: 1,
    };
    check_range(fill.to, extent.span(fill.pitch, 0)?)?;
    let end = stream.submit(Work::Fill(fill));
    note_visit(&[fill.to], stream, &end);
    Ok(())
}

/// The copy that a record describes, and where its ends lie.
///
/// # Errors
/// As [`BoxEnd::place`].
pub fn between(described: BoxCopy) -> Outcome<(Copy, Side, Side)> {
    let BoxCopy { from, to, extent } = described;
    let (source, destination) = (from.place(extent)?, to.place(extent)?);
    let copy = Copy {
        from: source.start,
        to: destination.start,
        width: extent.width,
        height: extent.height,
        depth: extent.depth,
        from_pitch: source.row,
        from_slice: source.slice,
        to_pitch: destination.row,
        to_slice: destination.slice,
    };
    Ok((copy, side_of(&from), side_of(&to)))
}

/// Where the program says that an end lies.
fn side_of(end: &BoxEnd) -> Side {
    match end.memory_type {
        CU_MEMORYTYPE_HOST => Side::Host,
        CU_MEMORYTYPE_DEVICE => Side::Device,
        _ => Side::Either,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harp_cuda_abi::types::CU_MEMORYTYPE_UNIFIED;

    #[test]
    fn ends_lie_where_the_program_says() {
        let end = |memory_type, address: u64| BoxEnd {
            memory_type,
            host: address as usize,
            device: address,
            x: 0,
            y: 0,
            z: 0,
            pitch: 0,
            height: 0,
        };
        let (from, to) = (
            end(CU_MEMORYTYPE_HOST, 0x1000),
            end(CU_MEMORYTYPE_UNIFIED, 0x9000),
        );
        let extent = Extent {
            width: 16,
            height: 4,
            depth: 2,
        };
        let (copy, from_side, to_side) = between(BoxCopy { from, to, extent }).unwrap();
        assert_eq!(
            (copy.from, copy.from_pitch, copy.from_slice),
            (0x1000, 16, 64)
        );
        assert_eq!((copy.to, copy.to_pitch, copy.to_slice), (0x9000, 16, 64));
        assert_eq!((from_side, to_side), (Side::Host, Side::Either));
    }

    #[test]
    fn device_addresses_are_not_host_memory() {
        assert_eq!(memory_at(0, 8, Side::Host), Err(CUDA_ERROR_INVALID_VALUE));
        assert_eq!(
            memory_at(0x1000, 8, Side::Device),
            Err(CUDA_ERROR_INVALID_VALUE)
        );
        assert_eq!(memory_at(0x1000, 8, Side::Either), Ok(Memory::Pageable));
    }
}
