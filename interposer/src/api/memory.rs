//! Device memory: allocated on the server, remembered here so that its bounds are known.

use std::ffi::c_uint;

use harp_cuda_abi::types::*;

use super::context::{current_context, current_device};
use super::outputs::put;
use crate::generated::forward;
use crate::session::addresses::Owner;
use crate::session::{session, Session};

/// Remembers what the server allocated in the current context.
fn remember(session: &Session, address: CUdeviceptr, bytes: usize) {
    if let (Ok(context), Ok(device)) = (current_context(), current_device()) {
        let owner = Owner::Device {
            device,
            context: context as u64,
        };
        session.addresses.insert(address, bytes as u64, owner);
    }
}

/// An allocation by `allocate`, remembered on success.
unsafe fn allocated(
    pointer: *mut CUdeviceptr,
    bytes: usize,
    allocate: impl FnOnce(*mut CUdeviceptr) -> CUresult,
) -> CUresult {
    if pointer.is_null() || bytes == 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let session = match session().and_then(|s| current_context().map(|_| s)) {
        Ok(session) => session,
        Err(code) => return code,
    };
    let mut address = 0;
    let status = allocate(&mut address);
    if status != CUDA_SUCCESS {
        return status;
    }
    remember(session, address, bytes);
    unsafe { put(pointer, address) }
}

pub unsafe fn cuMemAlloc_v2(pointer: *mut CUdeviceptr, bytes: usize) -> CUresult {
    unsafe {
        allocated(pointer, bytes, |address| {
            forward::cuMemAlloc_v2(address, bytes)
        })
    }
}

pub unsafe fn cuMemAllocPitch_v2(
    pointer: *mut CUdeviceptr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element: c_uint,
) -> CUresult {
    /// Rows start at multiples of this many bytes, as the driver aligns them.
    const PITCH_ALIGNMENT: usize = 512;
    if pitch.is_null() || width == 0 || height == 0 || !matches!(element, 4 | 8 | 16) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let row = width.next_multiple_of(PITCH_ALIGNMENT);
    let Some(bytes) = row.checked_mul(height) else {
        return CUDA_ERROR_OUT_OF_MEMORY;
    };
    let status = unsafe { cuMemAlloc_v2(pointer, bytes) };
    if status != CUDA_SUCCESS {
        return status;
    }
    unsafe { put(pitch, row) }
}

pub unsafe fn cuMemFree_v2(pointer: CUdeviceptr) -> CUresult {
    let session = match session() {
        Ok(session) => session,
        Err(code) => return code,
    };
    // Without a current context it frees as with one.
    if let Err(CUDA_ERROR_CONTEXT_IS_DESTROYED) = current_context() {
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    if pointer == 0 {
        return CUDA_SUCCESS;
    }
    if let Some(range) = session.addresses.find_managed(pointer, 0) {
        return match range.base == pointer {
            true => super::managed::free(session, &range),
            false => CUDA_ERROR_INVALID_VALUE,
        };
    }
    // Forgotten before the server frees it: from then on another thread may get this address.
    match session.addresses.remove_device(pointer) {
        true => unsafe { forward::cuMemFree_v2(pointer) },
        false => CUDA_ERROR_INVALID_VALUE,
    }
}

pub unsafe fn cuMemAllocAsync(
    pointer: *mut CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    unsafe {
        allocated(pointer, bytes, |address| {
            forward::cuMemAllocAsync(address, bytes, stream)
        })
    }
}

pub unsafe fn cuMemAllocFromPoolAsync(
    pointer: *mut CUdeviceptr,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CUresult {
    unsafe {
        allocated(pointer, bytes, |address| {
            forward::cuMemAllocFromPoolAsync(address, bytes, pool, stream)
        })
    }
}

pub unsafe fn cuMemFreeAsync(pointer: CUdeviceptr, stream: CUstream) -> CUresult {
    let session = match session() {
        Ok(session) => session,
        Err(code) => return code,
    };
    match session.addresses.remove_device(pointer) {
        true => unsafe { forward::cuMemFreeAsync(pointer, stream) },
        false => CUDA_ERROR_INVALID_VALUE,
    }
}

pub unsafe fn cuMemGetAddressRange_v2(
    base: *mut CUdeviceptr,
    size: *mut usize,
    pointer: CUdeviceptr,
) -> CUresult {
    match session().map(|session| session.addresses.find(pointer)) {
        Ok(Some(range)) => unsafe {
            super::outputs::put_if_wanted(base, range.base);
            super::outputs::put_if_wanted(size, range.size as usize);
            CUDA_SUCCESS
        },
        Ok(None) => CUDA_ERROR_NOT_FOUND,
        Err(code) => code,
    }
}
