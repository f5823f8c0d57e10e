//! What is allocated in a context ends with it.

use core::ptr::null_mut;

use harp_cuda_abi::types::*;
use harp_driver_front::lifecycle;

use super::ledger;
use crate::generated::local_driver;

pub unsafe fn cuCtxDestroy_v2(ctx: CUcontext) -> CUresult {
    let code = unsafe { local_driver::cuCtxDestroy_v2(ctx) };
    if code == CUDA_SUCCESS && !lifecycle::forked() {
        ledger::end_context(ctx as usize);
    }
    code
}

pub unsafe fn cuDevicePrimaryCtxReset_v2(dev: CUdevice) -> CUresult {
    ending(dev, || unsafe {
        local_driver::cuDevicePrimaryCtxReset_v2(dev)
    })
}

pub unsafe fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice) -> CUresult {
    ending(dev, || unsafe {
        local_driver::cuDevicePrimaryCtxRelease_v2(dev)
    })
}

/// Makes a call that may end a device's primary context.
fn ending(device: CUdevice, call: impl FnOnce() -> CUresult) -> CUresult {
    if lifecycle::forked() || !is_active(device) {
        return call();
    }
    let mut context = null_mut();
    // SAFETY: a local; what is retained is released at once, and active it was before.
    unsafe {
        if local_driver::cuDevicePrimaryCtxRetain(&mut context, device) == CUDA_SUCCESS {
            local_driver::cuDevicePrimaryCtxRelease_v2(device);
        }
    }
    let code = call();
    if code == CUDA_SUCCESS && !is_active(device) {
        ledger::end_context(context as usize);
    }
    code
}

fn is_active(device: CUdevice) -> bool {
    let (mut flags, mut active) = (0, 0);
    // SAFETY: two locals.
    let code = unsafe { local_driver::cuDevicePrimaryCtxGetState(device, &mut flags, &mut active) };
    code == CUDA_SUCCESS && active != 0
}
