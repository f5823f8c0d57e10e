//! Stream-ordered allocation.

use core::ffi::c_void;
use std::sync::Arc;

use harp_cuda_abi::types::*;

use crate::call::{call, out, record, Outcome};
use crate::context::Context;
use crate::device::owner_of;
use crate::memory::pool::{free_in_order, MemoryPool, POOLS};
use crate::stream::Stream;

use super::devices::device_at;

fn allocate(
    address: *mut CUdeviceptr,
    size: usize,
    stream: CUstream,
    pool: impl FnOnce(&Stream) -> Outcome<Arc<MemoryPool>>,
) -> Outcome {
    let address = out(address)?;
    let context = Context::current()?;
    let stream = Stream::resolve(stream, &context)?;
    address.set(pool(&stream)?.allocate(size as u64, &context)?);
    Ok(())
}

pub unsafe fn cuMemAllocAsync(
    address: *mut CUdeviceptr,
    size: usize,
    stream: CUstream,
) -> CUresult {
    call(|| {
        allocate(address, size, stream, |stream| {
            Ok(stream.context()?.device.current_pool())
        })
    })
}

pub unsafe fn cuMemAllocFromPoolAsync(
    address: *mut CUdeviceptr,
    size: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CUresult {
    call(|| allocate(address, size, stream, |_| MemoryPool::get(pool)))
}

pub unsafe fn cuMemFreeAsync(address: CUdeviceptr, stream: CUstream) -> CUresult {
    call(|| {
        let context = Context::current()?;
        let stream = Stream::resolve(stream, &context)?;
        let device = owner_of(address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        free_in_order(device, address, &stream)
    })
}

pub unsafe fn cuMemPoolCreate(
    pool: *mut CUmemoryPool,
    properties: *const CUmemPoolProps,
) -> CUresult {
    call(|| {
        let pool = out(pool)?;
        let properties = unsafe { record(properties)? };
        if properties.allocType != CU_MEM_ALLOCATION_TYPE_PINNED {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if properties.handleTypes != CU_MEM_HANDLE_TYPE_NONE {
            return Err(CUDA_ERROR_NOT_SUPPORTED);
        }
        let device = device_at(&properties.location)?;
        pool.set(POOLS.insert(MemoryPool::new(device, properties.maxSize as u64)));
        Ok(())
    })
}

/// What is still allocated from the pool lives on until it is freed.
pub unsafe fn cuMemPoolDestroy(handle: CUmemoryPool) -> CUresult {
    call(|| {
        let pool = MemoryPool::get(handle)?;
        let device = pool.device();
        if device.default_pool().is(&pool) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        if device.current_pool().is(&pool) {
            device.set_current_pool(None);
        }
        POOLS.remove(handle);
        Ok(())
    })
}

/// Pools hold nothing back.
pub unsafe fn cuMemPoolTrimTo(handle: CUmemoryPool, _keep: usize) -> CUresult {
    call(|| MemoryPool::get(handle).map(drop))
}

/// Whether an attribute is an `int`; the others are 64 bits wide.
fn is_int(attribute: CUmemPool_attribute) -> bool {
    matches!(
        attribute,
        CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES
            | CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC
            | CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES
            | CU_MEMPOOL_ATTR_ALLOCATION_TYPE
            | CU_MEMPOOL_ATTR_EXPORT_HANDLE_TYPES
            | CU_MEMPOOL_ATTR_LOCATION_ID
            | CU_MEMPOOL_ATTR_LOCATION_TYPE
            | CU_MEMPOOL_ATTR_HW_DECOMPRESS_ENABLED
    )
}

pub unsafe fn cuMemPoolGetAttribute(
    handle: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: *mut c_void,
) -> CUresult {
    call(|| {
        out(value)?;
        let found = MemoryPool::get(handle)?.attribute(attribute)?;
        if is_int(attribute) {
            out(value.cast::<i32>())?.set(found as i32);
        } else {
            out(value.cast::<u64>())?.set(found);
        }
        Ok(())
    })
}

pub unsafe fn cuMemPoolSetAttribute(
    handle: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: *mut c_void,
) -> CUresult {
    call(|| {
        let wanted = if is_int(attribute) {
            unsafe { record(value.cast_const().cast::<i32>())? as u64 }
        } else {
            unsafe { record(value.cast_const().cast::<u64>())? }
        };
        MemoryPool::get(handle)?.set_attribute(attribute, wanted)
    })
}

/// A pool's own device has access, others cannot have it.
pub unsafe fn cuMemPoolSetAccess(
    handle: CUmemoryPool,
    accesses: *const CUmemAccessDesc,
    count: usize,
) -> CUresult {
    call(|| {
        let pool = MemoryPool::get(handle)?;
        for index in 0..count {
            let access = unsafe { record(accesses.wrapping_add(index))? };
            let own = pool.is_of(device_at(&access.location)?);
            if own != (access.flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
                return Err(if own {
                    CUDA_ERROR_INVALID_VALUE
                } else {
                    CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
                });
            }
        }
        Ok(())
    })
}

pub unsafe fn cuMemPoolGetAccess(
    flags: *mut CUmemAccess_flags,
    handle: CUmemoryPool,
    location: *mut CUmemLocation,
) -> CUresult {
    call(|| {
        let flags = out(flags)?;
        let pool = MemoryPool::get(handle)?;
        let own = pool.is_of(device_at(&unsafe { record(location.cast_const())? })?);
        flags.set(if own {
            CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        } else {
            CU_MEM_ACCESS_FLAGS_PROT_NONE
        });
        Ok(())
    })
}
