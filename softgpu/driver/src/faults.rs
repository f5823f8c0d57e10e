//! What becomes of a kernel that fails.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};

use harp_cuda_abi::types::{
    CUresult, CUDA_ERROR_ASSERT, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_INSTRUCTION,
    CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, CUDA_ERROR_LAUNCH_TIMEOUT,
    CUDA_ERROR_MISALIGNED_ADDRESS,
};
use harp_driver_front::{notice, write_line};
use harp_softgpu_engine::{Fault, Grid, Scratch};

/// From now on a panic in this library is one line on stderr that says where it was, and asks for a report.
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.to_string().replace('\n', " ");
        write_line(&format!("the soft GPU {what}; please report this"));
    }));
}

/// Executes blocks of `grid`. A failure inside the engine ends the grid, not the process.
pub fn run(grid: &Grid, scratch: &mut Scratch) {
    if catch_unwind(AssertUnwindSafe(|| grid.work(scratch))).is_err() {
        grid.cancel();
        *scratch = Scratch::new();
    }
}

/// Makes the fault of a finished grid its context's sticky error, and says on stderr what happened.
/// The first fault stays.
pub fn note(grid: &Grid, sticky: &AtomicU32) {
    if let Some(fault) = grid.fault() {
        let first = sticky
            .compare_exchange(0, code_of(&fault), Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if first {
            notice(&fault.to_string());
        }
    }
}

/// Makes `code` the context's sticky error, unless it has one.
pub fn set(sticky: &AtomicU32, code: CUresult) {
    let _ = sticky.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
}

/// CUDA's sticky code for a fault.
fn code_of(fault: &Fault) -> CUresult {
    match fault {
        Fault::IllegalAddress { .. } => CUDA_ERROR_ILLEGAL_ADDRESS,
        Fault::MisalignedAddress { .. } => CUDA_ERROR_MISALIGNED_ADDRESS,
        Fault::IllegalInstruction { .. } => CUDA_ERROR_ILLEGAL_INSTRUCTION,
        Fault::Assert { .. } => CUDA_ERROR_ASSERT,
        Fault::Deadlock { .. } => CUDA_ERROR_LAUNCH_TIMEOUT,
        Fault::OutOfMemory { .. } => CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
        Fault::Trap { .. } | Fault::StackOverflow { .. } | Fault::Cancelled => {
            CUDA_ERROR_LAUNCH_FAILED
        }
    }
}
