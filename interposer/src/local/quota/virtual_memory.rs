//! Physical memory that the program maps by itself: charged while it has a handle or is mapped.

use harp_cuda_abi::types::*;
use harp_driver_front::lifecycle;

use super::ledger::{self, Charge};
use crate::generated::local_driver;

pub unsafe fn cuMemCreate(
    handle: *mut CUmemGenericAllocationHandle,
    size: usize,
    prop: *const CUmemAllocationProp,
    flags: u64,
) -> CUresult {
    unsafe {
        let Some(device) = device_of(prop).filter(|_| !handle.is_null()) else {
            return local_driver::cuMemCreate(handle, size, prop, flags);
        };
        let charge = Charge {
            device,
            bytes: size as u64,
            context: 0,
        };
        if !ledger::reserve(device, charge.bytes) {
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        let code = local_driver::cuMemCreate(handle, size, prop, flags);
        if code == CUDA_SUCCESS {
            ledger::keep_physical(*handle, charge);
        } else {
            ledger::give_back(device, charge.bytes);
        }
        code
    }
}

pub unsafe fn cuMemRetainAllocationHandle(
    handle: *mut CUmemGenericAllocationHandle,
    addr: *mut core::ffi::c_void,
) -> CUresult {
    unsafe {
        let code = local_driver::cuMemRetainAllocationHandle(handle, addr);
        if code == CUDA_SUCCESS && !lifecycle::forked() {
            ledger::retain(*handle);
        }
        code
    }
}

pub unsafe fn cuMemRelease(handle: CUmemGenericAllocationHandle) -> CUresult {
    unsafe {
        let code = local_driver::cuMemRelease(handle);
        if code == CUDA_SUCCESS && !lifecycle::forked() {
            ledger::release(handle);
        }
        code
    }
}

pub unsafe fn cuMemMap(
    ptr: CUdeviceptr,
    size: usize,
    offset: usize,
    handle: CUmemGenericAllocationHandle,
    flags: u64,
) -> CUresult {
    unsafe {
        let code = local_driver::cuMemMap(ptr, size, offset, handle, flags);
        if code == CUDA_SUCCESS && !lifecycle::forked() {
            ledger::map(ptr, handle);
        }
        code
    }
}

pub unsafe fn cuMemUnmap(ptr: CUdeviceptr, size: usize) -> CUresult {
    unsafe {
        let code = local_driver::cuMemUnmap(ptr, size);
        if code == CUDA_SUCCESS && !lifecycle::forked() {
            ledger::unmap(ptr, size as u64);
        }
        code
    }
}

/// The device that the memory is to be of; `None` where it is to be the host's.
unsafe fn device_of(prop: *const CUmemAllocationProp) -> Option<CUdevice> {
    let location = unsafe { prop.as_ref() }
        .filter(|_| !lifecycle::forked())?
        .location;
    // SAFETY: of a device the number is what is set.
    (location.type_ == CU_MEM_LOCATION_TYPE_DEVICE).then_some(unsafe { location.anonymous.id })
}
