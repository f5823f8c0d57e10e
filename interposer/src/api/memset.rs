//! Fills that the program does not call asynchronous. They do not wait, but of memory that the program
//! shares with the device: there it may look at once.

use std::ffi::{c_uchar, c_uint, c_ushort};

use harp_cuda_abi::types::*;
use harp_wire::Because;

use super::context::Visit;
use crate::generated::forward;
use crate::session::{because, checks, sessions};

/// The stream of a call that names none.
const OWN_STREAM: CUstream = std::ptr::null_mut();

/// Fills memory, of another server's device in a context there, and waits for the fill if it was of
/// this process's memory.
unsafe fn settled(address: CUdeviceptr, fill: impl FnOnce() -> CUresult) -> CUresult {
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    let _visit = Visit::to_memory(sessions, address);
    let status = fill();
    let shared = checks::context().is_ok_and(|session| session.twins.holds(address, 1));
    match status {
        CUDA_SUCCESS if shared => because(Because::Shared, || unsafe {
            forward::cuStreamSynchronize(OWN_STREAM)
        }),
        status => status,
    }
}

pub unsafe fn cuMemsetD8_v2(address: CUdeviceptr, value: c_uchar, count: usize) -> CUresult {
    unsafe {
        settled(address, || {
            forward::cuMemsetD8Async(address, value, count, OWN_STREAM)
        })
    }
}

pub unsafe fn cuMemsetD16_v2(address: CUdeviceptr, value: c_ushort, count: usize) -> CUresult {
    unsafe {
        settled(address, || {
            forward::cuMemsetD16Async(address, value, count, OWN_STREAM)
        })
    }
}

pub unsafe fn cuMemsetD32_v2(address: CUdeviceptr, value: c_uint, count: usize) -> CUresult {
    unsafe {
        settled(address, || {
            forward::cuMemsetD32Async(address, value, count, OWN_STREAM)
        })
    }
}

pub unsafe fn cuMemsetD2D8_v2(
    address: CUdeviceptr,
    pitch: usize,
    value: c_uchar,
    width: usize,
    height: usize,
) -> CUresult {
    unsafe {
        settled(address, || {
            forward::cuMemsetD2D8Async(address, pitch, value, width, height, OWN_STREAM)
        })
    }
}

pub unsafe fn cuMemsetD2D16_v2(
    address: CUdeviceptr,
    pitch: usize,
    value: c_ushort,
    width: usize,
    height: usize,
) -> CUresult {
    unsafe {
        settled(address, || {
            forward::cuMemsetD2D16Async(address, pitch, value, width, height, OWN_STREAM)
        })
    }
}

pub unsafe fn cuMemsetD2D32_v2(
    address: CUdeviceptr,
    pitch: usize,
    value: c_uint,
    width: usize,
    height: usize,
) -> CUresult {
    unsafe {
        settled(address, || {
            forward::cuMemsetD2D32Async(address, pitch, value, width, height, OWN_STREAM)
        })
    }
}
