//! The life of a process in local mode, where quota or profile have to know of it: the driver itself
//! answers forked children and late calls.

use std::path::Path;

use harp_cuda_abi::types::{CUresult, CUDA_SUCCESS};
use harp_driver_front::lifecycle;

use crate::generated::local_driver;
use crate::profile;
use crate::session::settings::{say, settings, LogLevel};

/// `cuInit`: from here on a forked child is one that may use nothing of this process's.
pub unsafe extern "C" fn init(flags: u32) -> CUresult {
    lifecycle::watch(lifecycle::Hooks {
        forked: |_| (),
        over: at_exit,
    });
    // SAFETY: the caller's flags.
    let code = unsafe { local_driver::cuInit(flags) };
    if code == CUDA_SUCCESS {
        // A child that the driver lets in is none that has to be held off.
        let _ = lifecycle::start();
    }
    code
}

fn at_exit() {
    let settings = settings();
    let driver = settings.libcuda.as_deref().unwrap_or(Path::new("?"));
    if let Some(line) =
        profile::line(&driver.display().to_string()).filter(|_| settings.print_stats)
    {
        say(LogLevel::Quiet, &line);
    }
    if settings.print_profile {
        profile::tell(&[]);
    }
}
