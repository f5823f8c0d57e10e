//! Managed memory of devices that do not share page tables with the host
//! (`CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS` is 0): what its calls answer without a device.
//!
//! Such memory has one address everywhere, and the program synchronises before it touches what a
//! kernel may use. The codes are those of the driver API's reference, "Unified Addressing".

use core::ops::Range;

use harp_cuda_abi::types::*;

/// `CU_DEVICE_CPU`: the host, where a device is asked for.
const HOST: CUdevice = -1;

/// Whether `cuMemAllocManaged` takes these flags.
pub fn may_be_allocated(flags: u32) -> bool {
    matches!(flags, CU_MEM_ATTACH_GLOBAL | CU_MEM_ATTACH_HOST)
}

/// `cuStreamAttachMemAsync` for a part of `allocation`, of which 0 `bytes` mean all. Which streams may
/// use the memory is the program's promise: there is nothing to prepare.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for less than the whole allocation, unknown flags, or a default stream
/// that the memory is to belong to alone.
pub fn attach(
    allocation: Range<u64>,
    pointer: CUdeviceptr,
    bytes: u64,
    flags: u32,
    stream: CUstream,
) -> Result<(), CUresult> {
    let size = allocation.end - allocation.start;
    let whole = bytes == 0 || (pointer == allocation.start && bytes == size);
    let known = match flags {
        CU_MEM_ATTACH_GLOBAL | CU_MEM_ATTACH_HOST => true,
        CU_MEM_ATTACH_SINGLE => {
            !stream.is_null() && !matches!(stream, CU_STREAM_LEGACY | CU_STREAM_PER_THREAD)
        }
        _ => false,
    };
    if whole && known {
        Ok(())
    } else {
        Err(CUDA_ERROR_INVALID_VALUE)
    }
}

/// `cuMemAdvise` for managed memory: what does not name a device has no effect.
///
/// # Errors
/// `CUDA_ERROR_INVALID_DEVICE` for advice about a device, which needs one that can take faults;
/// `CUDA_ERROR_INVALID_VALUE` for advice that there is not.
pub fn advise(advice: CUmem_advise, device: CUdevice) -> Result<(), CUresult> {
    match advice {
        CU_MEM_ADVISE_SET_READ_MOSTLY | CU_MEM_ADVISE_UNSET_READ_MOSTLY => Ok(()),
        CU_MEM_ADVISE_SET_PREFERRED_LOCATION
        | CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION
        | CU_MEM_ADVISE_SET_ACCESSED_BY
        | CU_MEM_ADVISE_UNSET_ACCESSED_BY => {
            if device == HOST {
                Ok(())
            } else {
                Err(CUDA_ERROR_INVALID_DEVICE)
            }
        }
        _ => Err(CUDA_ERROR_INVALID_VALUE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_allocation_is_attached_and_not_to_a_default_stream_alone() {
        let own = 0x1234 as CUstream;
        let attach = |pointer, bytes, flags, stream| {
            super::attach(0x1000..0x1100, pointer, bytes, flags, stream).is_ok()
        };
        assert!(attach(0x1000, 0, CU_MEM_ATTACH_GLOBAL, CU_STREAM_LEGACY));
        assert!(attach(0x1000, 0x100, CU_MEM_ATTACH_SINGLE, own));
        assert!(!attach(0x1000, 0xff, CU_MEM_ATTACH_SINGLE, own));
        assert!(!attach(0x1001, 0x100, CU_MEM_ATTACH_HOST, own));
        assert!(!attach(0x1000, 0, 0, own));
        for stream in [
            core::ptr::null_mut(),
            CU_STREAM_LEGACY,
            CU_STREAM_PER_THREAD,
        ] {
            assert!(!attach(0x1000, 0, CU_MEM_ATTACH_SINGLE, stream));
        }
    }

    #[test]
    fn advice_about_a_device_needs_one_that_takes_faults() {
        assert_eq!(advise(CU_MEM_ADVISE_SET_READ_MOSTLY, 0), Ok(()));
        assert_eq!(advise(CU_MEM_ADVISE_SET_ACCESSED_BY, HOST), Ok(()));
        let refused = advise(CU_MEM_ADVISE_SET_ACCESSED_BY, 0);
        assert_eq!(refused, Err(CUDA_ERROR_INVALID_DEVICE));
        assert_eq!(advise(4711, HOST), Err(CUDA_ERROR_INVALID_VALUE));
    }
}
