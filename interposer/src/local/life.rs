//! The life of a process in local mode, where quota or hooks have to know of it: the driver itself
//! answers forked children and late calls.

use harp_cuda_abi::types::{CUresult, CUDA_SUCCESS};
use harp_driver_front::lifecycle;

use super::profile;
use crate::generated::local_driver;

/// `cuInit`: from here on a forked child is one that may use nothing of this process's.
pub unsafe extern "C" fn init(flags: u32) -> CUresult {
    lifecycle::watch(lifecycle::Hooks {
        forked: |_| (),
        over: profile::tell,
    });
    // SAFETY: the caller's flags.
    let code = unsafe { local_driver::cuInit(flags) };
    if code == CUDA_SUCCESS {
        // A child that the driver lets in is none that has to be held off.
        let _ = lifecycle::start();
    }
    code
}
