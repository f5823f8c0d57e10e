//! `cuGetProcAddress` of local mode. Whether there is such a function, in which version and with
//! what status, is the driver's answer; where the function found is one that this library has an
//! entry for, the program gets the entry.

#![allow(non_snake_case, clippy::missing_safety_doc)]

use core::ffi::{c_char, c_int, c_void, CStr};

use harp_cuda_abi::proc_address::lookup;
use harp_cuda_abi::types::{
    cuuint64_t, CUdriverProcAddressQueryResult, CUresult, CUDA_SUCCESS, CUDA_VERSION,
};
use once_cell::race::OnceBox;

use super::driver;
use crate::entry;
use crate::generated::exports::{ADDRESSES, COUNT};
use crate::generated::local_driver;

pub unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: cuuint64_t,
    status: *mut CUdriverProcAddressQueryResult,
) -> CUresult {
    // SAFETY: the caller's arguments as they came; the driver says whether `function` was written.
    unsafe {
        let code = local_driver::cuGetProcAddress_v2(symbol, function, version, flags, status);
        if code == CUDA_SUCCESS {
            replace(symbol, function, version, flags);
        }
        code
    }
}

/// The same as CUDA 11 had it, without the status.
pub unsafe extern "C" fn cuGetProcAddress(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: cuuint64_t,
) -> CUresult {
    // SAFETY: as above.
    unsafe {
        let code = local_driver::cuGetProcAddress(symbol, function, version, flags);
        if code == CUDA_SUCCESS {
            replace(symbol, function, version, flags);
        }
        code
    }
}

/// Puts this library's entry in the place of the driver's function.
///
/// # Safety
/// `symbol` is a C string and `function` points to what the driver found by it.
unsafe fn replace(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: cuuint64_t,
) {
    if symbol.is_null() || function.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let (symbol, found) = unsafe { (CStr::from_ptr(symbol), *function) };
    if let Some(number) = number_of(found, symbol, version, flags) {
        // SAFETY: as above.
        unsafe { *function = ADDRESSES.0[number].cast_mut() };
    }
}

/// Which of this library's symbols the function is that the driver `found`.
///
/// Its address says so where it is that of an exported symbol; where several share it, the headers
/// say which is meant. A driver may hand out other addresses than it exports: then the headers
/// alone decide, for versions that they know. What is newer remains the driver's own.
fn number_of(
    found: *mut c_void,
    symbol: &CStr,
    version: c_int,
    flags: cuuint64_t,
) -> Option<usize> {
    if found.is_null() {
        return None;
    }
    let meant = symbol
        .to_str()
        .ok()
        .and_then(|base| lookup(base, version, flags).ok())
        .and_then(|export| entry::number_of(export.as_bytes()))
        .filter(|&number| driver::function(number).is_some());
    let same = exported_at(found);
    if same.is_empty() {
        return meant.filter(|_| version <= CUDA_VERSION as c_int);
    }
    meant
        .filter(|number| same.iter().any(|(_, other)| other == number))
        .or(Some(same[0].1))
}

/// The driver's exports at this address: (address, number).
fn exported_at(address: *mut c_void) -> &'static [(usize, usize)] {
    static BY_ADDRESS: OnceBox<Vec<(usize, usize)>> = OnceBox::new();
    let table = BY_ADDRESS.get_or_init(|| {
        let mut table: Vec<_> = (0..COUNT)
            .filter_map(|number| Some((driver::function(number)? as usize, number)))
            .collect();
        table.sort_unstable();
        Box::new(table)
    });
    let from = table.partition_point(|(other, _)| *other < address as usize);
    let to = table.partition_point(|(other, _)| *other <= address as usize);
    &table[from..to]
}
