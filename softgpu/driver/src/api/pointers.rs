//! What is known of an address.

use core::ffi::c_void;
use std::sync::Arc;

use harp_cuda_abi::types::*;

use crate::call::{call, out, Outcome};
use crate::context::{Context, CONTEXTS};
use crate::device::owner_of;
use crate::memory::heap::{Allocation, Origin};
use crate::memory::host::{self, Kind, Pinned};

/// Memory that CUDA knows.
enum Known {
    Device(&'static crate::device::Device, Allocation),
    Host(Pinned),
}

fn known(address: CUdeviceptr) -> Option<Known> {
    let on_device = owner_of(address).and_then(|device| {
        device
            .heap
            .find(address)
            .map(|allocation| Known::Device(device, allocation))
    });
    on_device.or_else(|| host::find(address as usize).map(Known::Host))
}

/// One answer, as wide as its attribute is.
enum Answer {
    /// Also the booleans: the runtime looks at four bytes of them.
    Int(u32),
    Long(u64),
    /// `CU_POINTER_ATTRIBUTE_P2P_TOKENS`
    Tokens,
}

impl Answer {
    unsafe fn store(self, place: *mut c_void) {
        unsafe {
            match self {
                Self::Int(value) => place.cast::<u32>().write_unaligned(value),
                Self::Long(value) => place.cast::<u64>().write_unaligned(value),
                Self::Tokens => place
                    .cast::<CUDA_POINTER_ATTRIBUTE_P2P_TOKENS>()
                    .write_unaligned(CUDA_POINTER_ATTRIBUTE_P2P_TOKENS {
                        p2pToken: 0,
                        vaSpaceToken: 0,
                    }),
            }
        }
    }
}

/// The context with this id, if it still lives.
fn context_with(id: u64) -> Option<Arc<Context>> {
    CONTEXTS.all().into_iter().find(|context| context.id == id)
}

/// The value of an attribute; none where this memory has no such attribute.
fn answer(known: &Known, attribute: CUpointer_attribute, address: u64) -> Outcome<Option<Answer>> {
    let (context, id, start, size) = match known {
        Known::Device(_, found) => (found.context, found.id, found.start, found.size),
        Known::Host(found) => (
            found.context,
            found.id,
            found.start as u64,
            found.size as u64,
        ),
    };
    let on_device = matches!(known, Known::Device(..));
    let managed = matches!(known, Known::Host(range) if range.kind == Kind::Managed);
    Ok(Some(match attribute {
        CU_POINTER_ATTRIBUTE_CONTEXT => {
            Answer::Long(context_with(context).map_or(0, |found| found.handle() as u64))
        }
        CU_POINTER_ATTRIBUTE_MEMORY_TYPE => Answer::Int(if on_device || managed {
            CU_MEMORYTYPE_DEVICE
        } else {
            CU_MEMORYTYPE_HOST
        }),
        CU_POINTER_ATTRIBUTE_HOST_POINTER if on_device => return Ok(None),
        CU_POINTER_ATTRIBUTE_DEVICE_POINTER | CU_POINTER_ATTRIBUTE_HOST_POINTER => {
            Answer::Long(address)
        }
        CU_POINTER_ATTRIBUTE_P2P_TOKENS => Answer::Tokens,
        CU_POINTER_ATTRIBUTE_IS_MANAGED => Answer::Int(managed.into()),
        CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
        | CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
        | CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE
        | CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE => Answer::Int(0),
        CU_POINTER_ATTRIBUTE_BUFFER_ID => Answer::Long(id),
        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => Answer::Int(match known {
            Known::Device(device, _) => device.ordinal as u32,
            Known::Host(_) => context_with(context).map_or(0, |found| found.device.ordinal as u32),
        }),
        CU_POINTER_ATTRIBUTE_RANGE_START_ADDR | CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR => {
            Answer::Long(start)
        }
        CU_POINTER_ATTRIBUTE_RANGE_SIZE | CU_POINTER_ATTRIBUTE_MAPPING_SIZE => Answer::Long(size),
        CU_POINTER_ATTRIBUTE_MAPPED => Answer::Int(1),
        CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES => Answer::Long(0),
        CU_POINTER_ATTRIBUTE_ACCESS_FLAGS => {
            Answer::Int(CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE)
        }
        CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE => Answer::Long(match known {
            Known::Device(
                _,
                Allocation {
                    origin: Origin::Pool(handle),
                    ..
                },
            ) => *handle as u64,
            _ => 0,
        }),
        CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID => Answer::Long(id),
        _ => return Err(CUDA_ERROR_INVALID_VALUE),
    }))
}

pub unsafe fn cuPointerGetAttribute(
    data: *mut c_void,
    attribute: CUpointer_attribute,
    address: CUdeviceptr,
) -> CUresult {
    call(|| {
        out(data)?;
        let known = known(address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let answer = answer(&known, attribute, address)?.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        unsafe { answer.store(data) };
        Ok(())
    })
}

/// Unlike the call for one attribute this one succeeds for memory that CUDA does not know, and
/// stores zeros. Both need no context: the runtime asks about host memory before it makes one.
pub unsafe fn cuPointerGetAttributes(
    count: u32,
    attributes: *mut CUpointer_attribute,
    data: *mut *mut c_void,
    address: CUdeviceptr,
) -> CUresult {
    call(|| {
        out(attributes)?;
        out(data)?;
        let known = known(address);
        for index in 0..count as usize {
            let (attribute, place) = unsafe { (*attributes.add(index), *data.add(index)) };
            out(place)?;
            let found = match &known {
                Some(known) => answer(known, attribute, address)?,
                None => None,
            };
            let found = found.unwrap_or(nothing(attribute));
            unsafe { found.store(place) };
        }
        Ok(())
    })
}

/// The zero of an attribute, as wide as it is.
fn nothing(attribute: CUpointer_attribute) -> Answer {
    match attribute {
        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => Answer::Int(CU_DEVICE_INVALID as u32),
        CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        | CU_POINTER_ATTRIBUTE_ACCESS_FLAGS
        | CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
        | CU_POINTER_ATTRIBUTE_IS_MANAGED
        | CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
        | CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE
        | CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE
        | CU_POINTER_ATTRIBUTE_MAPPED => Answer::Int(0),
        CU_POINTER_ATTRIBUTE_P2P_TOKENS => Answer::Tokens,
        _ => Answer::Long(0),
    }
}

/// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS` is the only attribute that can be set; it has no effect where
/// synchronous copies synchronise anyway.
pub unsafe fn cuPointerSetAttribute(
    value: *const c_void,
    attribute: CUpointer_attribute,
    address: CUdeviceptr,
) -> CUresult {
    call(|| {
        Context::current()?;
        let settable = attribute == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS && !value.is_null();
        if !settable || !matches!(known(address), Some(Known::Device(..))) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Ok(())
    })
}
