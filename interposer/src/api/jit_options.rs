//! Compiler options of a load: logs are the only ones that are answered.

use std::ffi::{c_uint, c_void};

use harp_cuda_abi::types::*;

/// Says what the compiler logged: `error`, which is nothing as a rule; its other log is empty.
///
/// # Safety
/// `options` and `values` are NULL or have `count` elements; a log's buffer has the size that is
/// given for it.
pub unsafe fn put_logs(
    count: c_uint,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
    error: &str,
) {
    if options.is_null() || values.is_null() {
        return;
    }
    // SAFETY: the caller's promise, for all that follows.
    let place = |wanted| unsafe {
        (0..count as usize)
            .find(|index| *options.add(*index) == wanted)
            .map(|index| values.add(index))
    };
    for (buffer, size, text) in [
        (
            CU_JIT_INFO_LOG_BUFFER,
            CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
            "",
        ),
        (
            CU_JIT_ERROR_LOG_BUFFER,
            CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            error,
        ),
    ] {
        let Some(size) = place(size) else { continue };
        // SAFETY: a size is returned in the value's own place; the buffer has as many bytes.
        unsafe {
            let room = *size as usize;
            let start = place(buffer).map_or(std::ptr::null_mut(), |buffer| (*buffer).cast::<u8>());
            let mut length = 0;
            if !start.is_null() && room > 0 {
                length = text.len().min(room - 1);
                start.copy_from_nonoverlapping(text.as_ptr(), length);
                *start.add(length) = 0;
            }
            *size = std::ptr::without_provenance_mut(length);
        }
    }
}
