//! Memory pools of stream-ordered allocation.
//!
//! Memory is taken from the device at once and given back when the stream reaches the free, so a
//! pool only counts: it holds nothing back for reuse.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use harp_cuda_abi::types::*;

use super::heap::Origin;
use crate::call::Outcome;
use crate::context::Context;
use crate::device::Device;
use crate::execution::command::Work;
use crate::handles::{handle_of, Registry};
use crate::stream::Stream;

/// Live pools.
pub static POOLS: Registry<MemoryPool> = Registry::new();

/// One pool.
pub struct MemoryPool {
    device: &'static Device,
    /// Most bytes that it may hold, 0 for no limit.
    max_size: u64,
    used: AtomicU64,
    used_high: AtomicU64,
    release_threshold: AtomicU64,
    /// The three reuse switches (attributes 1 to 3): kept, without effect.
    reuse: [AtomicU64; 3],
}

impl MemoryPool {
    pub fn new(device: &'static Device, max_size: u64) -> Arc<Self> {
        Arc::new(Self {
            device,
            max_size,
            used: AtomicU64::new(0),
            used_high: AtomicU64::new(0),
            release_threshold: AtomicU64::new(0),
            reuse: [const { AtomicU64::new(1) }; 3],
        })
    }

    /// The pool that a handle names.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where it names none.
    pub fn get(handle: CUmemoryPool) -> Outcome<Arc<Self>> {
        POOLS.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    /// The pool's device.
    pub fn device(&self) -> &'static Device {
        self.device
    }

    /// Whether it is a pool of `device`.
    pub fn is_of(&self, device: &Device) -> bool {
        core::ptr::eq(self.device, device)
    }

    /// Whether both are the same pool.
    pub fn is(&self, other: &MemoryPool) -> bool {
        core::ptr::eq(self, other)
    }

    /// Allocates for use by `stream` from now on. Where memory is short, frees that are still
    /// queued are waited for.
    ///
    /// # Errors
    /// As for [`super::heap::Heap::allocate`].
    pub fn allocate(self: &Arc<Self>, size: u64, context: &Context) -> Outcome<u64> {
        if self.max_size > 0 && size > self.max_size - self.used().min(self.max_size) {
            return Err(CUDA_ERROR_OUT_OF_MEMORY);
        }
        let origin = Origin::Pool(handle_of::<_, u8>(self) as usize);
        let allocate = || self.device.heap.allocate(size, context.id, origin);
        let address = allocate().or_else(|code| {
            if code != CUDA_ERROR_OUT_OF_MEMORY {
                return Err(code);
            }
            context.drain();
            allocate()
        })?;
        let used = self.used.fetch_add(size, Ordering::AcqRel) + size;
        self.used_high.fetch_max(used, Ordering::AcqRel);
        Ok(address)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Counts a free.
    pub fn note_freed(&self, size: u64) {
        self.used.fetch_sub(size, Ordering::AcqRel);
    }

    /// Back to how it started.
    pub fn end(&self) {
        self.used.store(0, Ordering::Release);
        self.used_high.store(0, Ordering::Release);
        self.release_threshold.store(0, Ordering::Release);
    }

    /// `cuMemPoolGetAttribute`, widened to 64 bits.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for an unknown attribute.
    pub fn attribute(&self, attribute: CUmemPool_attribute) -> Outcome<u64> {
        Ok(match attribute {
            CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES
            | CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC
            | CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES => {
                self.reuse[attribute as usize - 1].load(Ordering::Relaxed)
            }
            CU_MEMPOOL_ATTR_RELEASE_THRESHOLD => self.release_threshold.load(Ordering::Relaxed),
            CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT | CU_MEMPOOL_ATTR_USED_MEM_CURRENT => self.used(),
            CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH | CU_MEMPOOL_ATTR_USED_MEM_HIGH => {
                self.used_high.load(Ordering::Acquire)
            }
            CU_MEMPOOL_ATTR_ALLOCATION_TYPE => u64::from(CU_MEM_ALLOCATION_TYPE_PINNED),
            CU_MEMPOOL_ATTR_EXPORT_HANDLE_TYPES => 0,
            CU_MEMPOOL_ATTR_LOCATION_ID => self.device.ordinal as u64,
            CU_MEMPOOL_ATTR_LOCATION_TYPE => u64::from(CU_MEM_LOCATION_TYPE_DEVICE),
            CU_MEMPOOL_ATTR_MAX_POOL_SIZE => self.max_size,
            CU_MEMPOOL_ATTR_HW_DECOMPRESS_ENABLED => 0,
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        })
    }

    /// `cuMemPoolSetAttribute`.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for an attribute that cannot be set so.
    pub fn set_attribute(&self, attribute: CUmemPool_attribute, value: u64) -> Outcome {
        match attribute {
            CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES
            | CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC
            | CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES => {
                self.reuse[attribute as usize - 1].store(value & 1, Ordering::Relaxed);
            }
            CU_MEMPOOL_ATTR_RELEASE_THRESHOLD => {
                self.release_threshold.store(value, Ordering::Relaxed);
            }
            // The high marks can only be reset.
            CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH | CU_MEMPOOL_ATTR_USED_MEM_HIGH if value == 0 => {
                self.used_high.store(self.used(), Ordering::Release);
            }
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
        Ok(())
    }
}

/// `cuMemFreeAsync`: the memory is gone when `stream` gets there.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where no allocation starts at `address`.
pub fn free_in_order(device: &'static Device, address: u64, stream: &Stream) -> Outcome {
    let allocation = device
        .heap
        .find(address)
        .filter(|found| found.start == address);
    if allocation.is_none_or(|found| found.origin == Origin::Mapped) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    stream.submit(Work::Free(Box::new(move || {
        let _ = free(device, address);
    })));
    Ok(())
}

/// Frees at once what a pool or `cuMemAlloc` allocated.
///
/// # Errors
/// As for [`super::heap::Heap::free`].
pub fn free(device: &Device, address: u64) -> Outcome {
    let allocation = device.heap.free(address)?;
    if let Origin::Pool(handle) = allocation.origin {
        if let Some(pool) = POOLS.get(handle as CUmemoryPool) {
            pool.note_freed(allocation.size);
        }
    }
    Ok(())
}
