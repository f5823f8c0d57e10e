//! Managed memory: the host's own, which kernels use at its address.

use harp_cuda_abi::types::*;
use harp_driver_front::managed;

use crate::call::{call, out, Outcome};
use crate::context::Context;
use crate::memory::host::{self, Kind, Pinned};
use crate::stream::Stream;

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
        if !managed::may_be_allocated(flags) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let start = host::allocate(size, Kind::Managed, flags, context.id)?;
        address.set(start as CUdeviceptr);
        Ok(())
    })
}

pub unsafe fn cuStreamAttachMemAsync(
    stream: CUstream,
    address: CUdeviceptr,
    length: usize,
    flags: u32,
) -> CUresult {
    call(|| {
        Stream::resolve(stream, &Context::current()?)?;
        let whole = find(address, 0)?;
        let allocation = whole.start as u64..(whole.start + whole.size) as u64;
        managed::attach(allocation, address, length as u64, flags, stream)
    })
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

pub unsafe fn cuMemAdvise(
    address: CUdeviceptr,
    length: usize,
    advice: CUmem_advise,
    device: CUdevice,
) -> CUresult {
    call(|| {
        Context::current()?;
        find(address, length as u64)?;
        managed::advise(advice, device)
    })
}
