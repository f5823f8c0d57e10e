//! Local mode: the calls go to a libcuda in this process, whose handles and private tables the
//! program gets as they are.
//!
//! * [`driver`]: the library and its functions;
//! * [`proc_address`]: `cuGetProcAddress`, which hands out this library's entries where it can;
//! * [`life`]: what is said at the end of how often and how long the driver was called;
//! * [`quota`]: a limit on device memory.
//!
//! A function that the driver has is reached by one jump where neither quota nor hooks are asked for. One that it lacks answers
//! `CUDA_ERROR_NOT_SUPPORTED`, and one that only the driver knows comes from `cuGetProcAddress` as
//! the driver's own.

pub mod driver;
mod life;
mod proc_address;
pub mod quota;

use core::arch::naked_asm;
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, Ordering};
use std::path::Path;

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_NO_DEVICE};
use harp_driver_front::lifecycle::ANSWERED_ALWAYS;
use harp_driver_front::{notice_once, talkative, write_line};

use crate::entry::{lead, ENTRIES};
use crate::generated::exports::NAMES;
use crate::generated::{self, remote};
use crate::session::settings::settings;
use crate::{hooks, profile};

/// Has every symbol lead to the driver at `path`; where that is none, to an error of CUDA's. Again
/// is harmless.
pub fn bind(path: &Path) {
    let settings = settings();
    let loaded = settings.local_memory.clone().and_then(|limit| {
        driver::load(path)?;
        Ok(limit.is_some())
    });
    let is_measured = settings.print_stats || settings.print_profile;
    let Ok(has_limit) = loaded.inspect_err(|cause| explain_once(cause)) else {
        for (number, entry) in ENTRIES.iter().enumerate() {
            entry.store(without_driver(number), Ordering::Release);
        }
        return;
    };
    for (number, entry) in ENTRIES.iter().enumerate() {
        match driver::function(number) {
            Some(driver) => lead(
                number,
                ours(number, has_limit, is_measured).unwrap_or(driver),
            ),
            None => entry.store(absent as *mut c_void, Ordering::Release),
        }
    }
    if is_measured {
        profile::begin();
    }
    if talkative() && !driver::is_soft() {
        hooks::attach(&hooks::FAILURES);
    }
}

/// What stands in the place of a driver's function.
fn ours(number: usize, has_limit: bool, is_measured: bool) -> Option<*mut c_void> {
    let function = match NAMES[number].to_bytes() {
        b"cuGetProcAddress" => proc_address::cuGetProcAddress as *const c_void,
        b"cuGetProcAddress_v2" => proc_address::cuGetProcAddress_v2 as *const c_void,
        b"cuInit" if has_limit || is_measured => life::init as *const c_void,
        _ if has_limit => generated::quota::FUNCTIONS.of(number)?,
        _ => return None,
    };
    Some(function.cast_mut())
}

fn explain_once(cause: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        write_line(&format!(
            "{cause}. Next: name a driver with harp-run --local --libcuda PATH, or take the soft GPU \
             with --libcuda soft"
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
