//! `cuGetProcAddress`: from a base name and a version to an exported symbol of this driver.
//!
//! This file is unsafe by nature: its function is the body of an exported call.

use core::ffi::{c_char, c_int, c_void, CStr};

use harp_cuda_abi::proc_address::{lookup, QueryFailure};
use harp_cuda_abi::types::{
    CUdriverProcAddressQueryResult, CUresult, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_FOUND,
    CUDA_SUCCESS, CU_GET_PROC_ADDRESS_SUCCESS, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND,
    CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT,
};

/// Stores the address of the newest variant of `symbol` that `version` knows, or null with
/// `CUDA_ERROR_NOT_FOUND` and the reason in `status`.
///
/// `address_of` names the driver's own table of supported symbols: an unsupported call is reported
/// as not found, so that feature probes take their other path.
///
/// # Safety
/// `symbol` is null or a C string; `function` and `status` are null or writable.
pub unsafe fn get_proc_address(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
    status: *mut CUdriverProcAddressQueryResult,
    address_of: impl Fn(&str) -> Option<*const c_void>,
) -> CUresult {
    if symbol.is_null() || function.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller's promise.
    let symbol = unsafe { CStr::from_ptr(symbol) }
        .to_str()
        .unwrap_or_default();
    let found = lookup(symbol, version, flags)
        .and_then(|export| address_of(export).ok_or(QueryFailure::NotFound));
    let (address, reason) = match found {
        Ok(address) => (address, CU_GET_PROC_ADDRESS_SUCCESS),
        Err(QueryFailure::NotFound) => (core::ptr::null(), CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND),
        Err(QueryFailure::VersionNotSufficient) => (
            core::ptr::null(),
            CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT,
        ),
    };
    // SAFETY: the caller's promise.
    unsafe {
        *function = address.cast_mut();
        if !status.is_null() {
            *status = reason;
        }
    }
    if address.is_null() {
        CUDA_ERROR_NOT_FOUND
    } else {
        CUDA_SUCCESS
    }
}
