//! Linear memory: allocated in a context, from pools, managed.

use harp_cuda_abi::types::*;

use super::ledger::{self, Charge, Holding};
use super::{charged, current, freed};
use crate::generated::local_driver;

pub unsafe fn cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytesize: usize) -> CUresult {
    unsafe {
        address(dptr, bytesize, || {
            local_driver::cuMemAlloc_v2(dptr, bytesize)
        })
    }
}

pub unsafe fn cuMemAllocManaged(dptr: *mut CUdeviceptr, bytesize: usize, flags: u32) -> CUresult {
    unsafe {
        address(dptr, bytesize, || {
            local_driver::cuMemAllocManaged(dptr, bytesize, flags)
        })
    }
}

pub unsafe fn cuMemAllocAsync(
    dptr: *mut CUdeviceptr,
    bytesize: usize,
    hStream: CUstream,
) -> CUresult {
    unsafe {
        address(dptr, bytesize, || {
            local_driver::cuMemAllocAsync(dptr, bytesize, hStream)
        })
    }
}

pub unsafe fn cuMemAllocFromPoolAsync(
    dptr: *mut CUdeviceptr,
    bytesize: usize,
    pool: CUmemoryPool,
    hStream: CUstream,
) -> CUresult {
    unsafe {
        address(dptr, bytesize, || {
            local_driver::cuMemAllocFromPoolAsync(dptr, bytesize, pool, hStream)
        })
    }
}

/// Rows may become longer than they were asked for; what is charged is what they have become.
pub unsafe fn cuMemAllocPitch_v2(
    dptr: *mut CUdeviceptr,
    pPitch: *mut usize,
    WidthInBytes: usize,
    Height: usize,
    ElementSizeBytes: u32,
) -> CUresult {
    unsafe {
        let wanted = WidthInBytes.saturating_mul(Height);
        let code = address(dptr, wanted, || {
            local_driver::cuMemAllocPitch_v2(dptr, pPitch, WidthInBytes, Height, ElementSizeBytes)
        });
        if code != CUDA_SUCCESS {
            return code;
        }
        let Some(mut charge) = ledger::take(Holding::Address(*dptr)) else {
            return code;
        };
        let more = (*pPitch).saturating_mul(Height).saturating_sub(wanted) as u64;
        let fits = ledger::reserve(charge.device, more);
        if fits {
            charge.bytes += more;
        }
        ledger::keep(Holding::Address(*dptr), charge);
        if fits {
            return code;
        }
        cuMemFree_v2(*dptr);
        CUDA_ERROR_OUT_OF_MEMORY
    }
}

pub unsafe fn cuMemFree_v2(dptr: CUdeviceptr) -> CUresult {
    freed(Holding::Address(dptr), || unsafe {
        local_driver::cuMemFree_v2(dptr)
    })
}

/// Given back at the call, though the stream may still use the memory: what the program allocates
/// next in the stream's order may be the same.
pub unsafe fn cuMemFreeAsync(dptr: CUdeviceptr, hStream: CUstream) -> CUresult {
    freed(Holding::Address(dptr), || unsafe {
        local_driver::cuMemFreeAsync(dptr, hStream)
    })
}

/// Has the driver allocate an address within the limit of the current device. Where it turns out to
/// be another's, as a pool's may be, that one is charged; memory of the host is free.
unsafe fn address(
    dptr: *mut CUdeviceptr,
    bytes: usize,
    allocate: impl FnOnce() -> CUresult,
) -> CUresult {
    let bytes = bytes as u64;
    let Some((device, context)) = current().filter(|_| !dptr.is_null()) else {
        return allocate();
    };
    let charge = Charge {
        device,
        bytes,
        context,
    };
    let code = charged(charge, allocate, || Holding::Address(unsafe { *dptr }));
    if code != CUDA_SUCCESS {
        return code;
    }
    let address = unsafe { *dptr };
    let actual = owner(address);
    if actual == Some(device) || actual.is_none() && !is_hosts(address) {
        return code;
    }
    if ledger::take(Holding::Address(address)).is_some() {
        ledger::give_back(device, bytes);
    }
    let Some(device) = actual else {
        return code;
    };
    if ledger::reserve(device, bytes) {
        ledger::keep(Holding::Address(address), Charge { device, ..charge });
        return code;
    }
    unsafe { local_driver::cuMemFree_v2(address) };
    CUDA_ERROR_OUT_OF_MEMORY
}

/// The device that memory belongs to, where the driver knows.
fn owner(address: CUdeviceptr) -> Option<CUdevice> {
    let mut device: CUdevice = -1;
    let attribute = CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
    // SAFETY: the attribute's type is that of the local.
    let code = unsafe {
        local_driver::cuPointerGetAttribute((&raw mut device).cast(), attribute, address)
    };
    (code == CUDA_SUCCESS && device >= 0).then_some(device)
}

fn is_hosts(address: CUdeviceptr) -> bool {
    let mut kind: u32 = 0;
    let attribute = CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    // SAFETY: as above.
    let code =
        unsafe { local_driver::cuPointerGetAttribute((&raw mut kind).cast(), attribute, address) };
    code == CUDA_SUCCESS && kind == CU_MEMORYTYPE_HOST
}
