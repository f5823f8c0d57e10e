//! Writing a call's results through the program's pointers.
//!
//! Unsafe by nature: CUDA takes raw pointers and trusts them. NULL is refused, as the driver does.

use std::ffi::{c_char, c_int};

use harp_cuda_abi::types::*;

/// Stores a result. `CUDA_ERROR_INVALID_VALUE` for a NULL pointer.
///
/// # Safety
/// `to` is NULL or valid for writing a `T`, aligned or not.
pub unsafe fn put<T>(to: *mut T, value: T) -> CUresult {
    if to.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller's promise.
    unsafe { to.write_unaligned(value) };
    CUDA_SUCCESS
}

/// Stores a result where the program may pass NULL to say it does not want it.
///
/// # Safety
/// As [`put`].
pub unsafe fn put_if_wanted<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { to.write_unaligned(value) };
    }
}

/// Stores text as a C string of at most `len` bytes with its NUL, cut where it does not fit.
///
/// # Safety
/// `to` is NULL or valid for writing `len` bytes.
pub unsafe fn put_text(to: *mut c_char, len: c_int, text: &str) -> CUresult {
    if to.is_null() || len <= 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let bytes = &text.as_bytes()[..text.len().min(len as usize - 1)];
    // SAFETY: the caller's promise; one byte is left for the NUL.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), to, bytes.len());
        *to.add(bytes.len()) = 0;
    }
    CUDA_SUCCESS
}
