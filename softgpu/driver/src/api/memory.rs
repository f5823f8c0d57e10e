//! Device memory.

use harp_cuda_abi::types::*;

use crate::call::{call, out, set_if_wanted, Outcome};
use crate::context::Context;
use crate::device::{known_devices, owner_of, Device};
use crate::memory::heap::Origin;
use crate::memory::{host, pool};

use super::managed;

/// Rows of `cuMemAllocPitch` start at multiples of this.
const PITCH_UNIT: usize = 512;

fn allocate(size: usize) -> Outcome<CUdeviceptr> {
    let context = Context::current()?;
    context
        .device
        .heap
        .allocate(size as u64, context.id, Origin::Plain)
}

pub unsafe fn cuMemAlloc_v2(address: *mut CUdeviceptr, size: usize) -> CUresult {
    call(|| {
        let address = out(address)?;
        address.set(allocate(size)?);
        Ok(())
    })
}

pub unsafe fn cuMemAllocPitch_v2(
    address: *mut CUdeviceptr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element: u32,
) -> CUresult {
    call(|| {
        let (address, pitch) = (out(address)?, out(pitch)?);
        if !matches!(element, 4 | 8 | 16) || width == 0 || height == 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let row = width
            .checked_next_multiple_of(PITCH_UNIT)
            .ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let size = row.checked_mul(height).ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
        address.set(allocate(size)?);
        pitch.set(row);
        Ok(())
    })
}

/// Waits for all work that may use the memory; null is freed without a word.
pub unsafe fn cuMemFree_v2(address: CUdeviceptr) -> CUresult {
    call(|| {
        // Without a current context it frees as with one.
        let context = match Context::current() {
            Err(CUDA_ERROR_INVALID_CONTEXT) => None,
            current => Some(current?),
        };
        if address == 0 {
            return Ok(());
        }
        let device = owner_of(address);
        if device.is_none() && managed::find(address, 0).is_err() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if let Some(context) = context {
            context.synchronize()?;
        }
        match device {
            Some(device) => {
                device.drain();
                pool::free(device, address)
            }
            None => {
                known_devices().iter().for_each(Device::drain);
                managed::free(address)
            }
        }
    })
}

pub unsafe fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CUresult {
    call(|| {
        let (left, all) = Context::current()?.device.heap.info();
        set_if_wanted(free, left as usize);
        set_if_wanted(total, all as usize);
        Ok(())
    })
}

pub unsafe fn cuMemGetAddressRange_v2(
    base: *mut CUdeviceptr,
    size: *mut usize,
    address: CUdeviceptr,
) -> CUresult {
    call(|| {
        Context::current()?;
        let (start, bytes) = match owner_of(address) {
            Some(device) => device
                .heap
                .find(address)
                .map(|found| (found.start, found.size)),
            None => {
                host::find(address as usize).map(|found| (found.start as u64, found.size as u64))
            }
        }
        .ok_or(CUDA_ERROR_NOT_FOUND)?;
        set_if_wanted(base, start);
        set_if_wanted(size, bytes as usize);
        Ok(())
    })
}
