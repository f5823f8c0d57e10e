//! Page-locked host memory, which kernels reach at the program's own addresses.

use core::ffi::c_void;

use harp_cuda_abi::types::*;
use harp_driver_front::host_memory;

use crate::call::{call, out, Outcome};
use crate::context::Context;
use crate::memory::host::{self, Kind};

fn allocate(pointer: *mut *mut c_void, size: usize, flags: u32) -> Outcome {
    let pointer = out(pointer)?;
    let context = Context::current()?;
    if flags & !host_memory::ALLOCATION_FLAGS != 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    pointer.set(match size {
        0 => core::ptr::null_mut(),
        size => host::allocate(size, Kind::Allocated, flags, context.id)? as *mut c_void,
    });
    Ok(())
}

pub unsafe fn cuMemAllocHost(pointer: *mut *mut c_void, size: u32) -> CUresult {
    call(|| allocate(pointer, size as usize, 0))
}

pub unsafe fn cuMemAllocHost_v2(pointer: *mut *mut c_void, size: usize) -> CUresult {
    call(|| allocate(pointer, size, 0))
}

pub unsafe fn cuMemHostAlloc(pointer: *mut *mut c_void, size: usize, flags: u32) -> CUresult {
    call(|| allocate(pointer, size, flags))
}

/// Waits for the device's work, which may use the memory.
pub unsafe fn cuMemFreeHost(pointer: *mut c_void) -> CUresult {
    call(|| {
        let context = Context::current()?;
        if pointer.is_null() {
            return Ok(());
        }
        context.drain();
        host::free(pointer as usize, Kind::Allocated)
    })
}

pub unsafe fn cuMemHostRegister_v2(pointer: *mut c_void, size: usize, flags: u32) -> CUresult {
    call(|| {
        let context = Context::current()?;
        if flags & !host_memory::REGISTRATION_FLAGS != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if flags & CU_MEMHOSTREGISTER_IOMEMORY != 0 {
            return Err(CUDA_ERROR_NOT_SUPPORTED);
        }
        if !host_memory::is_mapped(pointer as usize, size) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        host::register(pointer as usize, size, flags, context.id)
    })
}

pub unsafe fn cuMemHostUnregister(pointer: *mut c_void) -> CUresult {
    call(|| {
        Context::current()?.drain();
        host::unregister(pointer as usize)
    })
}

/// All page-locked memory is mapped, whether its flags ask for it or not: so it is where devices share
/// one range of addresses with the host.
pub unsafe fn cuMemHostGetDevicePointer_v2(
    address: *mut CUdeviceptr,
    pointer: *mut c_void,
    flags: u32,
) -> CUresult {
    call(|| {
        let address = out(address)?;
        Context::current()?;
        let range = host::find(pointer as usize).filter(|range| range.kind != Kind::Managed);
        if flags != 0 || range.is_none() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        address.set(pointer as CUdeviceptr);
        Ok(())
    })
}

pub unsafe fn cuMemHostGetFlags(flags: *mut u32, pointer: *mut c_void) -> CUresult {
    call(|| {
        let flags = out(flags)?;
        Context::current()?;
        let range = host::find(pointer as usize).filter(|range| range.kind != Kind::Managed);
        flags.set(host_memory::flags(
            range.ok_or(CUDA_ERROR_INVALID_VALUE)?.flags,
        ));
        Ok(())
    })
}
