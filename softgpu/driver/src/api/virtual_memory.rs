//! Virtual memory management.

use core::ffi::c_void;

use harp_cuda_abi::types::*;

use crate::call::{call, out, record, Outcome};
use crate::context::Context;
use crate::device::{devices, Device};
use crate::memory::virtual_memory as vm;

use super::devices::device_at;

/// The device whose window a reservation without a wish goes to.
fn default_device() -> Outcome<&'static Device> {
    match Context::current() {
        Ok(context) => Ok(context.device),
        Err(_) => devices()?.first().ok_or(CUDA_ERROR_NO_DEVICE),
    }
}

pub unsafe fn cuMemAddressReserve(
    address: *mut CUdeviceptr,
    size: usize,
    alignment: usize,
    wanted: CUdeviceptr,
    flags: u64,
) -> CUresult {
    call(|| {
        let address = out(address)?;
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        address.set(vm::reserve(default_device()?, size, alignment, wanted)?);
        Ok(())
    })
}

pub unsafe fn cuMemAddressFree(address: CUdeviceptr, size: usize) -> CUresult {
    call(|| vm::unreserve(address, size))
}

/// Checks what memory is asked for and names its device.
unsafe fn wanted_device(properties: *const CUmemAllocationProp) -> Outcome<&'static Device> {
    let properties = unsafe { record(properties)? };
    if properties.type_ != CU_MEM_ALLOCATION_TYPE_PINNED {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    if properties.requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE {
        return Err(CUDA_ERROR_NOT_SUPPORTED);
    }
    device_at(&properties.location)
}

pub unsafe fn cuMemCreate(
    handle: *mut CUmemGenericAllocationHandle,
    size: usize,
    properties: *const CUmemAllocationProp,
    flags: u64,
) -> CUresult {
    call(|| {
        let handle = out(handle)?;
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let device = unsafe { wanted_device(properties)? };
        handle.set(vm::create(device.ordinal, size)?);
        Ok(())
    })
}

pub unsafe fn cuMemRelease(handle: CUmemGenericAllocationHandle) -> CUresult {
    call(|| vm::release(handle))
}

pub unsafe fn cuMemMap(
    address: CUdeviceptr,
    size: usize,
    offset: usize,
    handle: CUmemGenericAllocationHandle,
    flags: u64,
) -> CUresult {
    call(|| {
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        vm::map(address, size, offset, handle)
    })
}

/// Waits for the device's work, which may use the memory.
pub unsafe fn cuMemUnmap(address: CUdeviceptr, size: usize) -> CUresult {
    call(|| {
        if let Ok(context) = Context::current() {
            context.drain();
        }
        vm::unmap(address, size)
    })
}

pub unsafe fn cuMemSetAccess(
    address: CUdeviceptr,
    size: usize,
    accesses: *const CUmemAccessDesc,
    count: usize,
) -> CUresult {
    call(|| {
        let owner = crate::device::owner_of(address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        for index in 0..count {
            let access = unsafe { record(accesses.wrapping_add(index))? };
            let accessible = match access.flags {
                CU_MEM_ACCESS_FLAGS_PROT_NONE => false,
                CU_MEM_ACCESS_FLAGS_PROT_READ | CU_MEM_ACCESS_FLAGS_PROT_READWRITE => true,
                _ => return Err(CUDA_ERROR_INVALID_VALUE),
            };
            if device_at(&access.location)?.ordinal != owner.ordinal {
                return Err(CUDA_ERROR_INVALID_DEVICE);
            }
            let context = Context::current().map_or(owner.primary().id, |context| context.id);
            vm::set_access(address, size, accessible, context)?;
        }
        Ok(())
    })
}

pub unsafe fn cuMemGetAccess(
    flags: *mut u64,
    location: *const CUmemLocation,
    address: CUdeviceptr,
) -> CUresult {
    call(|| {
        let flags = out(flags)?;
        let own = device_at(&unsafe { record(location)? })?.heap.owns(address);
        flags.set(u64::from(if own && vm::is_accessible(address)? {
            CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        } else {
            CU_MEM_ACCESS_FLAGS_PROT_NONE
        }));
        Ok(())
    })
}

pub unsafe fn cuMemGetAllocationGranularity(
    granularity: *mut usize,
    properties: *const CUmemAllocationProp,
    _option: CUmemAllocationGranularity_flags,
) -> CUresult {
    call(|| {
        let granularity = out(granularity)?;
        unsafe { wanted_device(properties)? };
        granularity.set(vm::GRANULARITY);
        Ok(())
    })
}

pub unsafe fn cuMemGetAllocationPropertiesFromHandle(
    properties: *mut CUmemAllocationProp,
    handle: CUmemGenericAllocationHandle,
) -> CUresult {
    call(|| {
        let properties = out(properties)?;
        properties.set(CUmemAllocationProp {
            type_: CU_MEM_ALLOCATION_TYPE_PINNED,
            requestedHandleTypes: CU_MEM_HANDLE_TYPE_NONE,
            location: CUmemLocation {
                type_: CU_MEM_LOCATION_TYPE_DEVICE,
                anonymous: CUmemLocation_v1_anonymous {
                    id: vm::device_of(handle)?,
                },
            },
            win32HandleMetaData: core::ptr::null_mut(),
            allocFlags: CUmemAllocationProp_v1_allocFlags {
                compressionType: 0,
                gpuDirectRDMACapable: 0,
                usage: 0,
                reserved: [0; 4],
            },
        });
        Ok(())
    })
}

pub unsafe fn cuMemRetainAllocationHandle(
    handle: *mut CUmemGenericAllocationHandle,
    address: *mut c_void,
) -> CUresult {
    call(|| {
        let handle = out(handle)?;
        handle.set(vm::retain(address as u64)?);
        Ok(())
    })
}
