//! What a worker asks of the soft GPU, and no driver has.

use core::ffi::{c_int, c_void};

use harp_cuda_abi::types::*;

use crate::console;
use crate::device::move_windows;
use crate::execution::executor::executor;
use crate::stream::Stream;
use crate::transfer;

/// Has the devices' addresses start at `first`, for a program that uses other servers' devices too.
/// To be called before there is memory of any device.
///
/// Answers `CUDA_ERROR_INVALID_VALUE` where memory is in use, `CUDA_ERROR_OUT_OF_MEMORY` where the
/// addresses are.
#[no_mangle]
pub extern "C" fn harp_soft_move_windows(first: u64) -> CUresult {
    harp_driver_front::guard("harp_soft_move_windows", || {
        move_windows(first).err().unwrap_or(CUDA_SUCCESS)
    })
}

/// Says where the process finds `bytes` bytes of device memory from `address`, for a caller that reads or writes them in
/// place of a copy in `stream`: where the stream and all that a copy in it would wait for has been done, and the memory is
/// of the stream's own device. What kernels have printed by then is shown, as after a copy.
///
/// Answers `CUDA_ERROR_NOT_READY` where work is left, `CUDA_ERROR_INVALID_VALUE` for other memory, what a copy would of
/// a stream that is none, and the sticky error.
///
/// # Safety
/// `at` points to a pointer that may be written.
#[no_mangle]
pub unsafe extern "C" fn harp_soft_reach(
    address: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
    at: *mut *mut c_void,
) -> CUresult {
    harp_driver_front::guard("harp_soft_reach", || {
        let reached = || transfer::reach(address, bytes as u64, &*Stream::find(stream)?);
        match reached() {
            Ok(()) => {
                // SAFETY: the caller's promise.
                unsafe { at.write(address as *mut c_void) };
                CUDA_SUCCESS
            }
            Err(code) => code,
        }
    })
}

/// Says that more calls of this thread's are about to follow, or, with 0, that none are: until then no thread is woken for
/// work that it puts into idle streams, unless it waits itself. A thread that is looking for work finds it at once.
#[no_mangle]
pub extern "C" fn harp_soft_gather(more: c_int) -> CUresult {
    harp_driver_front::guard("harp_soft_gather", || {
        match more {
            0 => executor().release(),
            _ => executor().gather(),
        }
        CUDA_SUCCESS
    })
}

/// Says how often something has been written to the process's standard streams: what kernels had printed, and lines about
/// the soft GPU itself. Who finds the number as it was has nothing new to look for there.
///
/// # Safety
/// `times` points to a number that may be written.
#[no_mangle]
pub unsafe extern "C" fn harp_soft_shown(times: *mut u64) -> CUresult {
    harp_driver_front::guard("harp_soft_shown", || {
        // SAFETY: the caller's promise.
        unsafe { times.write(console::shown() + harp_driver_front::lines()) };
        CUDA_SUCCESS
    })
}
