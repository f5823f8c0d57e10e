//! Initialisation, version, names of codes, entry points.

use core::ffi::{c_char, c_void};

use harp_cuda_abi::types::*;
use harp_driver_front::{errors, export_table, proc_address};

use crate::call::{code, out};
use crate::device;
use crate::generated::exports::address_of;
use crate::settings::settings;

pub unsafe fn cuInit(flags: u32) -> CUresult {
    code(if flags == 0 {
        device::initialize()
    } else {
        Err(CUDA_ERROR_INVALID_VALUE)
    })
}

pub unsafe fn cuDriverGetVersion(version: *mut i32) -> CUresult {
    code(out(version).map(|version| version.set(settings().driver_version)))
}

pub unsafe fn cuGetErrorName(error: CUresult, text: *mut *const c_char) -> CUresult {
    unsafe { errors::get_error_name(error, text) }
}

pub unsafe fn cuGetErrorString(error: CUresult, text: *mut *const c_char) -> CUresult {
    unsafe { errors::get_error_string(error, text) }
}

pub unsafe fn cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) -> CUresult {
    unsafe { export_table(table, id) }
}

pub unsafe fn cuGetProcAddress(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: i32,
    flags: cuuint64_t,
) -> CUresult {
    unsafe { cuGetProcAddress_v2(symbol, function, version, flags, core::ptr::null_mut()) }
}

pub unsafe fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: i32,
    flags: cuuint64_t,
    status: *mut CUdriverProcAddressQueryResult,
) -> CUresult {
    unsafe { proc_address::get_proc_address(symbol, function, version, flags, status, address_of) }
}

/// There is no profiler; programs that bracket a region get what they expect.
pub unsafe fn cuProfilerStart() -> CUresult {
    CUDA_SUCCESS
}

pub unsafe fn cuProfilerStop() -> CUresult {
    CUDA_SUCCESS
}
