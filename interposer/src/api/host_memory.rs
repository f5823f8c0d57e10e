//! Page-locked host memory: this process's own. It lies where a worker can have a twin of it, should
//! kernels use it.

use std::ffi::{c_uint, c_void};

use harp_cuda_abi::types::*;
use harp_driver_front::host_memory;

use super::context::current_context;
use super::copy::{result, settle};
use super::managed::{self, no_longer_shared};
use super::outputs::put;
use crate::session::addresses::Owner;
use crate::session::{sessions, twins, Sessions};

pub unsafe fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, flags: c_uint) -> CUresult {
    if pointer.is_null() || flags & !host_memory::ALLOCATION_FLAGS != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let (sessions, context) = match usable_context() {
        Ok(both) => both,
        Err(code) => return code,
    };
    if bytes == 0 {
        return unsafe { put(pointer, std::ptr::null_mut()) };
    }
    let Some(mapped) = twins::place(bytes, libc::PROT_READ | libc::PROT_WRITE) else {
        return CUDA_ERROR_OUT_OF_MEMORY;
    };
    let owner = Owner::Host {
        flags,
        registered: false,
        context: context as u64,
    };
    sessions
        .addresses
        .insert(mapped as u64, bytes as u64, owner);
    unsafe { put(pointer, mapped) }
}

/// The sessions and the current context, on whose device no kernel has failed.
fn usable_context() -> Result<(&'static Sessions, CUcontext), CUresult> {
    let sessions = sessions()?;
    let context = current_context()?;
    sessions.of(context as u64).check_fault()?;
    Ok((sessions, context))
}

pub unsafe fn cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) -> CUresult {
    unsafe { cuMemHostAlloc(pointer, bytes, 0) }
}

pub unsafe fn cuMemFreeHost(pointer: *mut c_void) -> CUresult {
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    if pointer.is_null() {
        return CUDA_SUCCESS;
    }
    if let Err(code) = settle(pointer as u64) {
        return code;
    }
    managed::free(sessions, pointer as u64, |owner| is_host(owner, false))
}

/// Whether memory is page-locked, and registered as such or allocated.
fn is_host(owner: &Owner, as_registered: bool) -> bool {
    matches!(owner, Owner::Host { registered, .. } if *registered == as_registered)
}

pub unsafe fn cuMemHostRegister_v2(pointer: *mut c_void, bytes: usize, flags: c_uint) -> CUresult {
    if pointer.is_null() || bytes == 0 || flags & !host_memory::REGISTRATION_FLAGS != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let (sessions, context) = match usable_context() {
        Ok(both) => both,
        Err(code) => return code,
    };
    if !host_memory::is_mapped(pointer as usize, bytes) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let owner = Owner::Host {
        flags,
        registered: true,
        context: context as u64,
    };
    let (base, bytes) = (pointer as u64, bytes as u64);
    match sessions
        .addresses
        .insert_unless(base, bytes, owner, |_| true)
    {
        Ok(()) => CUDA_SUCCESS,
        Err(_) => CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
    }
}

pub unsafe fn cuMemHostUnregister(pointer: *mut c_void) -> CUresult {
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    let base = pointer as u64;
    let is_registered = |owner: &Owner| is_host(owner, true);
    if let Err(code) = settle(base) {
        return code;
    }
    match sessions.addresses.remove(base, is_registered) {
        Some(range) => result(no_longer_shared(sessions, &range)),
        None => match sessions.addresses.find(base) {
            Some(range) if is_registered(&range.owner) => CUDA_ERROR_INVALID_VALUE,
            _ => CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
        },
    }
}

pub unsafe fn cuMemHostGetFlags(flags: *mut c_uint, pointer: *mut c_void) -> CUresult {
    match sessions().map(|sessions| sessions.addresses.find(pointer as u64)) {
        Ok(Some(range)) => match range.owner {
            Owner::Host { flags: known, .. } => unsafe { put(flags, host_memory::flags(known)) },
            Owner::Device { .. } | Owner::Managed { .. } => CUDA_ERROR_INVALID_VALUE,
        },
        Ok(None) => CUDA_ERROR_INVALID_VALUE,
        Err(code) => code,
    }
}
