//! Memory pools: the server's; a device's pools are known here by one handle each.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard};

use harp_cuda_abi::types::*;
use harp_wire::{calls, CallId, HandleKind};

use super::device::device;
use super::outputs::put;
use crate::generated::forward;
use crate::session::handles::session_of;
use crate::session::{checks, handles, sessions};

/// The default and the current pool of a device.
struct DevicePools {
    device: CUdevice,
    default: u64,
    current: u64,
}

static POOLS: Mutex<Vec<DevicePools>> = Mutex::new(Vec::new());

fn pools() -> MutexGuard<'static, Vec<DevicePools>> {
    POOLS.lock().unwrap_or_else(|poison| poison.into_inner())
}

fn with_pools<T>(number: CUdevice, act: impl FnOnce(&mut DevicePools) -> T) -> Result<T, CUresult> {
    let device = device(sessions()?, number)?;
    if let Some(found) = pools().iter_mut().find(|pools| pools.device == number) {
        return Ok(act(found));
    }
    // Without the lock: a server that is waited for must not keep others' devices waiting.
    let handle = handles::create(HandleKind::Pool, device.session)?;
    // SAFETY: plain values.
    let status =
        unsafe { forward::cuDeviceGetDefaultMemPool(handle as CUmemoryPool, device.ordinal) };
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Pool, handle as CUmemoryPool);
        return Err(status);
    }
    let mut pools = pools();
    let index = match pools.iter().position(|pools| pools.device == number) {
        Some(first) => {
            handles::destroy(HandleKind::Pool, handle as CUmemoryPool);
            first
        }
        None => {
            pools.push(DevicePools {
                device: number,
                default: handle,
                current: handle,
            });
            pools.len() - 1
        }
    };
    Ok(act(&mut pools[index]))
}

pub unsafe fn cuDeviceGetDefaultMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> CUresult {
    match with_pools(dev, |pools| pools.default) {
        Ok(handle) => unsafe { put(pool, handle as CUmemoryPool) },
        Err(code) => code,
    }
}

pub unsafe fn cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> CUresult {
    match with_pools(dev, |pools| pools.current) {
        Ok(handle) => unsafe { put(pool, handle as CUmemoryPool) },
        Err(code) => code,
    }
}

pub unsafe fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool) -> CUresult {
    let checked = sessions()
        .and_then(|sessions| device(sessions, dev))
        .and_then(|device| Ok((device, handles::live(HandleKind::Pool, pool)?)));
    let (ordinal, handle) = match checked {
        Ok((device, handle)) if session_of(handle) == device.session => (device.ordinal, handle),
        Ok(_) => return CUDA_ERROR_INVALID_VALUE,
        Err(code) => return code,
    };
    let status = unsafe { forward::cuDeviceSetMemPool(ordinal, pool) };
    if status != CUDA_SUCCESS {
        return status;
    }
    with_pools(dev, |pools| pools.current = handle).map_or_else(|code| code, |()| CUDA_SUCCESS)
}

pub unsafe fn cuMemPoolCreate(pool: *mut CUmemoryPool, props: *const CUmemPoolProps) -> CUresult {
    if pool.is_null() || props.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the program passes CUmemPoolProps.
    let props = unsafe { &*props };
    if props.location.type_ != CU_MEM_LOCATION_TYPE_DEVICE || props.handleTypes != 0 {
        // Memory elsewhere, and memory to be shared with other processes, does not exist here.
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    // SAFETY: the location's number is a device's.
    let number = unsafe { props.location.anonymous.id };
    let found = sessions().and_then(|sessions| {
        let device = device(sessions, number)?;
        let handle = handles::create(HandleKind::Pool, device.session)?;
        Ok((sessions.of_device(device), device.ordinal, handle))
    });
    let (session, ordinal, handle) = match found {
        Ok(found) => found,
        Err(code) => return code,
    };
    let status = session.request(
        CallId::cuMemPoolCreate,
        |encoder| {
            calls::encode_cuMemPoolCreate(
                encoder,
                handle,
                props.allocType,
                props.handleTypes,
                props.location.type_,
                ordinal,
                props.maxSize as u64,
                u32::from(props.usage),
            );
        },
        |_| (),
    );
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Pool, handle as CUmemoryPool);
        return status;
    }
    unsafe { put(pool, handle as CUmemoryPool) }
}

/// Attributes whose value is an `int`; all others are 64-bit counters.
fn is_flag(attribute: CUmemPool_attribute) -> bool {
    matches!(
        attribute,
        CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES
            | CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC
            | CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES
    )
}

pub unsafe fn cuMemPoolSetAttribute(
    pool: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: *mut c_void,
) -> CUresult {
    if value.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let (session, handle) = match checks::live(HandleKind::Pool, pool) {
        Ok(found) => found,
        Err(code) => return code,
    };
    // SAFETY: the attribute says how large the value is.
    let value = unsafe {
        if is_flag(attribute) {
            value.cast::<u32>().read_unaligned().into()
        } else {
            value.cast::<u64>().read_unaligned()
        }
    };
    session.request(
        CallId::cuMemPoolSetAttribute,
        |encoder| calls::encode_cuMemPoolSetAttribute(encoder, handle, attribute, value),
        |_| (),
    )
}

pub unsafe fn cuMemPoolGetAttribute(
    pool: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: *mut c_void,
) -> CUresult {
    let (session, handle) = match checks::live(HandleKind::Pool, pool) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let mut known = 0;
    let status = session.request(
        CallId::cuMemPoolGetAttribute,
        |encoder| calls::encode_cuMemPoolGetAttribute(encoder, handle, attribute),
        |decoder| known = calls::CuMemPoolGetAttributeReply::read(decoder).value,
    );
    if status != CUDA_SUCCESS {
        return status;
    }
    // SAFETY: the attribute says how large the value is.
    unsafe {
        if is_flag(attribute) {
            put(value.cast(), known as u32)
        } else {
            put(value.cast(), known)
        }
    }
}
