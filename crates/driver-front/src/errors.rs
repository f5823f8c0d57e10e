//! Names and texts of result codes, as C strings that live for ever.
//!
//! This file is unsafe by nature: its functions are the bodies of exported calls.

use core::ffi::{c_char, CStr};

use harp_cuda_abi::errors::{error_name, error_string};
use harp_cuda_abi::types::{CUresult, CUDA_ERROR_INVALID_VALUE, CUDA_SUCCESS};

/// `cuGetErrorName`: `CUDA_ERROR_INVALID_VALUE` and null for a code that CUDA does not define.
///
/// # Safety
/// `text` is null or writable.
pub unsafe fn get_error_name(code: CUresult, text: *mut *const c_char) -> CUresult {
    // SAFETY: the caller's promise.
    unsafe { answer(error_name(code), text) }
}

/// `cuGetErrorString`: as [`get_error_name`], a sentence.
///
/// # Safety
/// `text` is null or writable.
pub unsafe fn get_error_string(code: CUresult, text: *mut *const c_char) -> CUresult {
    // SAFETY: the caller's promise.
    unsafe { answer(error_string(code), text) }
}

unsafe fn answer(found: Option<&'static CStr>, text: *mut *const c_char) -> CUresult {
    if text.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller's promise.
    unsafe { *text = found.map_or(core::ptr::null(), CStr::as_ptr) };
    if found.is_some() {
        CUDA_SUCCESS
    } else {
        CUDA_ERROR_INVALID_VALUE
    }
}
