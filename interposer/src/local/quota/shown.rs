//! The device that the program sees is as large as its limit.

use harp_cuda_abi::types::*;
use harp_driver_front::lifecycle;

use super::{current, ledger};
use crate::generated::local_driver;

pub unsafe fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CUresult {
    unsafe {
        let code = local_driver::cuMemGetInfo_v2(free, total);
        if code == CUDA_SUCCESS {
            if let Some((device, _)) = current() {
                at_most(free, ledger::left(device));
                at_most(total, ledger::limit());
            }
        }
        code
    }
}

pub unsafe fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) -> CUresult {
    unsafe {
        let code = local_driver::cuDeviceTotalMem_v2(bytes, dev);
        if code == CUDA_SUCCESS && !lifecycle::forked() {
            at_most(bytes, ledger::limit());
        }
        code
    }
}

/// Lowers a number that the driver has written, if it was wanted.
unsafe fn at_most(number: *mut usize, most: u64) {
    if let Some(number) = unsafe { number.as_mut() } {
        *number = (*number).min(usize::try_from(most).unwrap_or(usize::MAX));
    }
}
