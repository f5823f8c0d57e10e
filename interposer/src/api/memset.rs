//! Fills that the program does not call asynchronous. They do not wait, but of memory that the program
//! shares with the device: there it may look at once.

use std::ffi::{c_uchar, c_uint, c_ushort};

use harp_cuda_abi::types::*;

use crate::generated::forward;
use crate::session::session;

/// The stream of a call that names none.
const OWN_STREAM: CUstream = std::ptr::null_mut();

/// Waits for the fill if it was of this process's memory.
unsafe fn settle(status: CUresult, address: CUdeviceptr) -> CUresult {
    let shared = session().is_ok_and(|session| session.twins.holds(address, 1));
    match status {
        CUDA_SUCCESS if shared => unsafe { forward::cuStreamSynchronize(OWN_STREAM) },
        status => status,
    }
}

pub unsafe fn cuMemsetD8_v2(address: CUdeviceptr, value: c_uchar, count: usize) -> CUresult {
    let status = unsafe { forward::cuMemsetD8Async(address, value, count, OWN_STREAM) };
    unsafe { settle(status, address) }
}

pub unsafe fn cuMemsetD16_v2(address: CUdeviceptr, value: c_ushort, count: usize) -> CUresult {
    let status = unsafe { forward::cuMemsetD16Async(address, value, count, OWN_STREAM) };
    unsafe { settle(status, address) }
}

pub unsafe fn cuMemsetD32_v2(address: CUdeviceptr, value: c_uint, count: usize) -> CUresult {
    let status = unsafe { forward::cuMemsetD32Async(address, value, count, OWN_STREAM) };
    unsafe { settle(status, address) }
}

pub unsafe fn cuMemsetD2D8_v2(
    address: CUdeviceptr,
    pitch: usize,
    value: c_uchar,
    width: usize,
    height: usize,
) -> CUresult {
    let status =
        unsafe { forward::cuMemsetD2D8Async(address, pitch, value, width, height, OWN_STREAM) };
    unsafe { settle(status, address) }
}

pub unsafe fn cuMemsetD2D16_v2(
    address: CUdeviceptr,
    pitch: usize,
    value: c_ushort,
    width: usize,
    height: usize,
) -> CUresult {
    let status =
        unsafe { forward::cuMemsetD2D16Async(address, pitch, value, width, height, OWN_STREAM) };
    unsafe { settle(status, address) }
}

pub unsafe fn cuMemsetD2D32_v2(
    address: CUdeviceptr,
    pitch: usize,
    value: c_uint,
    width: usize,
    height: usize,
) -> CUresult {
    let status =
        unsafe { forward::cuMemsetD2D32Async(address, pitch, value, width, height, OWN_STREAM) };
    unsafe { settle(status, address) }
}
