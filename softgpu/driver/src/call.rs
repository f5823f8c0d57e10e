//! The frame of every API call: results, out pointers, strings.

use core::ffi::{c_char, CStr};

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_INVALID_VALUE, CUDA_SUCCESS};
use harp_driver_front::lifecycle;

use crate::console;

/// What a call comes to: a value, or CUDA's code.
pub type Outcome<T = ()> = Result<T, CUresult>;

/// The code of a finished call.
pub fn code(outcome: Outcome) -> CUresult {
    outcome.err().unwrap_or(CUDA_SUCCESS)
}

/// Runs the body of a call that needs an initialised driver, as nearly all do.
pub fn call(body: impl FnOnce() -> Outcome) -> CUresult {
    code(lifecycle::check().and_then(|()| body()))
}

/// As [`call`], for one that shows what kernels have printed, even where it fails.
pub fn call_and_show(body: impl FnOnce() -> Outcome) -> CUresult {
    let code = call(body);
    console::flush_current();
    code
}

/// A checked pointer to where a result goes. Calls make one before they change anything.
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Stores the result.
    pub fn set(self, value: T) {
        // SAFETY: not null (checked by `out`); the caller of the API vouches for the rest.
        unsafe { self.0.write_unaligned(value) };
    }
}

/// The place that `pointer` names.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where it is null.
pub fn out<T>(pointer: *mut T) -> Outcome<Out<T>> {
    if pointer.is_null() {
        Err(CUDA_ERROR_INVALID_VALUE)
    } else {
        Ok(Out(pointer))
    }
}

/// Stores `value` where `pointer` is not null.
pub fn set_if_wanted<T>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        Out(pointer).set(value);
    }
}

/// The text at `pointer`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where it is null or not UTF-8 (no CUDA name is anything else).
///
/// # Safety
/// `pointer` is null or a C string that outlives `'a`.
pub unsafe fn text<'a>(pointer: *const c_char) -> Outcome<&'a str> {
    if pointer.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }
        .to_str()
        .map_err(|_| CUDA_ERROR_INVALID_VALUE)
}

/// The record at `pointer`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where it is null.
///
/// # Safety
/// `pointer` is null or points to a `T`.
pub unsafe fn record<T: Copy>(pointer: *const T) -> Outcome<T> {
    if pointer.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { pointer.read_unaligned() })
}
