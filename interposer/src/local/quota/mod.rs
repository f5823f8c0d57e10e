//! A limit on the device memory that the program takes, of each device: `HARP_LOCAL_MEMORY`.
//!
//! What is charged is what the program asks for; `ledger` has the books, the other files the calls
//! that take memory, give it back, or show how much there is. The spec says which calls are charged
//! (`harp_spec.spec.charges`), and the generator sees to it that each is here.
//!
//! A program can get around all of it, by other copies of the driver's symbols or private tables:
//! it keeps honest programs within their share, and is no boundary against others.
#![allow(non_snake_case, clippy::missing_safety_doc)]

mod allocations;
mod arrays;
mod contexts;
mod ledger;
mod shown;
mod virtual_memory;

pub use allocations::*;
pub use arrays::*;
pub use contexts::*;
pub use shown::*;
pub use virtual_memory::*;

use core::ptr::null_mut;

use harp_cuda_abi::types::*;
use harp_driver_front::lifecycle;

use crate::generated::local_driver;
use ledger::{Charge, Holding};

/// The device of the calling thread's context, and the context; `None` where there is none, and in
/// a forked child: then the driver's answer is all that is wanted.
fn current() -> Option<(CUdevice, usize)> {
    let (mut device, mut context) = (0, null_mut());
    // SAFETY: two locals of the right types.
    let known = unsafe {
        !lifecycle::forked()
            && local_driver::cuCtxGetDevice(&mut device) == CUDA_SUCCESS
            && local_driver::cuCtxGetCurrent(&mut context) == CUDA_SUCCESS
    };
    known.then_some((device, context as usize))
}

/// Has the driver allocate `bytes` on a device, if there is room for them in the limit. `allocated`
/// says afterwards what it is that was made.
///
/// # Errors
/// `CUDA_ERROR_OUT_OF_MEMORY` where there is not, and whatever the driver answers.
fn charged(
    charge: Charge,
    allocate: impl FnOnce() -> CUresult,
    allocated: impl FnOnce() -> Holding,
) -> CUresult {
    if !ledger::reserve(charge.device, charge.bytes) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    let code = allocate();
    if code == CUDA_SUCCESS {
        ledger::keep(allocated(), charge);
    } else {
        ledger::give_back(charge.device, charge.bytes);
    }
    code
}

/// Has the driver free what is held, and gives back what was charged for it.
fn freed(holding: Holding, free: impl FnOnce() -> CUresult) -> CUresult {
    if lifecycle::forked() {
        return free();
    }
    // Before the driver frees it: afterwards another thread may get the same again.
    let charge = ledger::take(holding);
    let code = free();
    if let Some(charge) = charge {
        if code == CUDA_SUCCESS {
            ledger::give_back(charge.device, charge.bytes);
        } else {
            ledger::keep(holding, charge);
        }
    }
    code
}
