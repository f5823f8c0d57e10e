//! Local mode: the calls go to a libcuda in this process, whose handles and private tables the
//! program gets as they are.
//!
//! * [`driver`]: the library and its functions;
//! * [`proc_address`]: `cuGetProcAddress`, which hands out this library's entries where it can.
//!
//! A function that the driver has is reached by one jump. One that it lacks answers
//! `CUDA_ERROR_NOT_SUPPORTED`, and one that only the driver knows comes from `cuGetProcAddress` as
//! the driver's own.

pub mod driver;
mod proc_address;

use core::arch::naked_asm;
use core::ffi::c_void;
use core::sync::atomic::Ordering;
use std::path::Path;

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_NO_DEVICE};
use harp_driver_front::lifecycle::ANSWERED_ALWAYS;
use harp_driver_front::{notice_once, write_line};

use crate::entry::ENTRIES;
use crate::generated::exports::NAMES;
use crate::generated::remote;

/// Has every symbol lead to the driver at `path`; where that is none, to an error of CUDA's.
pub fn bind(path: &Path) {
    let loaded = driver::load(path);
    if let Err(cause) = &loaded {
        explain_once(cause);
    }
    for (number, name) in NAMES.iter().enumerate() {
        let function = match &loaded {
            Ok(()) => ours(name.to_bytes())
                .or(driver::function(number))
                .unwrap_or(absent as *mut c_void),
            Err(_) => without_driver(number),
        };
        ENTRIES[number].store(function, Ordering::Release);
    }
}

/// What stands in the place of a driver's function.
fn ours(name: &[u8]) -> Option<*mut c_void> {
    match name {
        b"cuGetProcAddress" => Some(proc_address::cuGetProcAddress as *mut c_void),
        b"cuGetProcAddress_v2" => Some(proc_address::cuGetProcAddress_v2 as *mut c_void),
        _ => None,
    }
}

fn explain_once(cause: &str) {
    use core::sync::atomic::AtomicBool;
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        write_line(&format!(
            "{cause}; the program gets CUDA_ERROR_NO_DEVICE. Name a driver with harp-run --local \
             --libcuda PATH, or take the soft GPU with --libcuda soft"
        ));
    }
}

/// Where a symbol leads that the driver does not have.
#[unsafe(naked)]
unsafe extern "C" fn absent() {
    naked_asm!(
        ".cfi_startproc",
        "mov edi, r11d",
        "jmp {answer}",
        ".cfi_endproc",
        answer = sym answer_absent,
    )
}

extern "C" fn answer_absent(number: u32) -> CUresult {
    let name = NAMES[number as usize].to_string_lossy();
    notice_once(&format!(
        "this driver has no {name} (the program gets CUDA_ERROR_NOT_SUPPORTED)"
    ));
    CUDA_ERROR_NOT_SUPPORTED
}

/// Where a symbol leads when there is no driver: texts and addresses are answered all the same, so
/// that a program can say what it got.
fn without_driver(number: usize) -> *mut c_void {
    let name = NAMES[number].to_str().unwrap_or_default();
    if ANSWERED_ALWAYS.contains(&name) && name != "cuDriverGetVersion" {
        return remote::FUNCTIONS.0[number].cast_mut();
    }
    extern "C" fn no_device() -> CUresult {
        CUDA_ERROR_NO_DEVICE
    }
    no_device as *mut c_void
}
