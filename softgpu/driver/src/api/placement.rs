//! What a worker asks of the soft GPU, and no driver has.

use harp_cuda_abi::types::*;

use crate::device::move_windows;

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
