//! Compiler options of a load: logs are the only ones that are answered.

use std::ffi::{c_uint, c_void};

use harp_cuda_abi::types::*;

/// Says that the compiler logged nothing: the sizes of both logs are zero.
///
/// # Safety
/// `options` and `values` are NULL or have `count` elements.
pub unsafe fn put_logs(count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void) {
    if options.is_null() || values.is_null() {
        return;
    }
    for index in 0..count as usize {
        // SAFETY: the caller's promise; a size is returned in the value's own place.
        unsafe {
            let option = *options.add(index);
            if matches!(
                option,
                CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES | CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
            ) {
                *values.add(index) = std::ptr::null_mut();
            }
        }
    }
}
