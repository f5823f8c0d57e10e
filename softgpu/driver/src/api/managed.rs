//! Managed memory, as devices have it that do not share page tables with the host
//! (`CONCURRENT_MANAGED_ACCESS` is 0): one address everywhere, and the program synchronises before it
//! touches what a kernel may use.

use harp_cuda_abi::types::*;

use crate::call::{call, out, Outcome};
use crate::context::Context;
use crate::memory::host::{self, Kind, Pinned};
use crate::stream::Stream;

/// `CU_DEVICE_CPU`: the host, where a device is asked for.
const HOST: CUdevice = -1;

/// The managed allocation that holds `length` bytes from `address`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where there is none.
pub fn find(address: CUdeviceptr, length: u64) -> Outcome<Pinned> {
    host::find(address as usize)
        .filter(|range| range.kind == Kind::Managed && range.holds(address, length))
        .ok_or(CUDA_ERROR_INVALID_VALUE)
}

/// Frees an allocation by its first address.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where no managed allocation starts there.
pub fn free(address: CUdeviceptr) -> Outcome {
    host::free(address as usize, Kind::Managed)
}

pub unsafe fn cuMemAllocManaged(address: *mut CUdeviceptr, size: usize, flags: u32) -> CUresult {
    call(|| {
        let address = out(address)?;
        let context = Context::current()?;
        if !matches!(flags, CU_MEM_ATTACH_GLOBAL | CU_MEM_ATTACH_HOST) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let start = host::allocate(size, Kind::Managed, flags, context.id)?;
        address.set(start as CUdeviceptr);
        Ok(())
    })
}

/// Which streams may use the memory is the program's promise: there is nothing to prepare here.
pub unsafe fn cuStreamAttachMemAsync(
    stream: CUstream,
    address: CUdeviceptr,
    length: usize,
    flags: u32,
) -> CUresult {
    call(|| {
        Stream::resolve(stream, &Context::current()?)?;
        let whole = find(address, 0)?;
        let is_whole = length == 0 || (address == whole.start as u64 && length == whole.size);
        let known = match flags {
            CU_MEM_ATTACH_GLOBAL | CU_MEM_ATTACH_HOST => true,
            CU_MEM_ATTACH_SINGLE => !is_default(stream),
            _ => false,
        };
        if is_whole && known {
            Ok(())
        } else {
            Err(CUDA_ERROR_INVALID_VALUE)
        }
    })
}

/// Whether a handle names one of the default streams, which no memory can be attached to alone.
fn is_default(stream: CUstream) -> bool {
    matches!(stream as usize, 0..=2)
}

/// Memory moves to devices that can take faults on it, which these cannot.
pub unsafe fn cuMemPrefetchAsync(
    address: CUdeviceptr,
    length: usize,
    _device: CUdevice,
    stream: CUstream,
) -> CUresult {
    call(|| {
        Stream::resolve(stream, &Context::current()?)?;
        find(address, length as u64)?;
        Err(CUDA_ERROR_INVALID_DEVICE)
    })
}

/// Advice about a device needs one that can take faults; what does not name one has no effect.
pub unsafe fn cuMemAdvise(
    address: CUdeviceptr,
    length: usize,
    advice: CUmem_advise,
    device: CUdevice,
) -> CUresult {
    call(|| {
        Context::current()?;
        find(address, length as u64)?;
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
    })
}
