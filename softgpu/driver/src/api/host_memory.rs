//! Page-locked host memory. Kernels cannot reach it (attribute 19 is 0); transfers can.

use core::ffi::c_void;

use harp_cuda_abi::types::*;

use crate::call::{call, out, Outcome};
use crate::context::Context;
use crate::memory::host;

const ALLOC_FLAGS: u32 =
    CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
const REGISTER_FLAGS: u32 = CU_MEMHOSTREGISTER_PORTABLE
    | CU_MEMHOSTREGISTER_DEVICEMAP
    | CU_MEMHOSTREGISTER_IOMEMORY
    | CU_MEMHOSTREGISTER_READ_ONLY;

fn allocate(pointer: *mut *mut c_void, size: usize, flags: u32) -> Outcome {
    let pointer = out(pointer)?;
    let context = Context::current()?;
    if flags & !ALLOC_FLAGS != 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    pointer.set(host::allocate(size, flags, context.id)? as *mut c_void);
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
        host::free(pointer as usize)
    })
}

pub unsafe fn cuMemHostRegister_v2(pointer: *mut c_void, size: usize, flags: u32) -> CUresult {
    call(|| {
        let context = Context::current()?;
        if flags & !REGISTER_FLAGS != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if flags & CU_MEMHOSTREGISTER_IOMEMORY != 0 {
            return Err(CUDA_ERROR_NOT_SUPPORTED);
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

pub unsafe fn cuMemHostGetDevicePointer_v2(
    address: *mut CUdeviceptr,
    pointer: *mut c_void,
    flags: u32,
) -> CUresult {
    call(|| {
        out(address)?;
        Context::current()?;
        let known = host::find(pointer as usize).is_some() && flags == 0;
        Err(if known {
            CUDA_ERROR_NOT_SUPPORTED
        } else {
            CUDA_ERROR_INVALID_VALUE
        })
    })
}

pub unsafe fn cuMemHostGetFlags(flags: *mut u32, pointer: *mut c_void) -> CUresult {
    call(|| {
        let flags = out(flags)?;
        Context::current()?;
        let range = host::find(pointer as usize).filter(|range| range.owned);
        flags.set(range.ok_or(CUDA_ERROR_INVALID_VALUE)?.flags);
        Ok(())
    })
}
