//! Codes that only the CUDA runtime has a name for.
//!
//! The runtime hands the number that a launch returns on to its program unchanged. Programs of the
//! driver API get `CUDA_ERROR_INVALID_VALUE` for a grid or block that cannot be; programs of the
//! runtime know the same mistake as "invalid configuration argument", which is no `CUresult`. Which
//! of them is calling shows in the function: only the runtime's images come in its wrapper.

use core::ffi::c_void;

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE};

/// `cudaErrorInvalidConfiguration`
const INVALID_CONFIGURATION: CUresult = 9;
/// `cudaErrorInvalidDeviceFunction`
const INVALID_DEVICE_FUNCTION: CUresult = 98;

/// The code for a grid or block of impossible dimensions.
pub fn impossible_dimensions(function_is_of_runtime: bool) -> CUresult {
    if function_is_of_runtime {
        INVALID_CONFIGURATION
    } else {
        CUDA_ERROR_INVALID_VALUE
    }
}

/// The code for a launch of something that is no live function. The runtime passes the address of a
/// host function that it does not know on as it is: that lies in a loaded object, a handle never.
pub fn no_function(handle: usize) -> CUresult {
    // SAFETY: `dladdr` only looks the address up; the record is plain data.
    let in_an_object = unsafe {
        let mut found: libc::Dl_info = core::mem::zeroed();
        libc::dladdr(handle as *const c_void, &mut found) != 0
    };
    if in_an_object {
        INVALID_DEVICE_FUNCTION
    } else {
        CUDA_ERROR_INVALID_HANDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_functions_and_dead_handles_are_told_apart() {
        let code = host_functions_and_dead_handles_are_told_apart as *const () as usize;
        assert_eq!(no_function(code), INVALID_DEVICE_FUNCTION);
        let heap = Box::new(0u64);
        assert_eq!(
            no_function(&raw const *heap as usize),
            CUDA_ERROR_INVALID_HANDLE
        );
        assert_eq!(no_function(0), CUDA_ERROR_INVALID_HANDLE);
    }
}
