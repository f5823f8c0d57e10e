//! Pointer attributes: answered from what this process allocated.

use std::ffi::{c_int, c_uint, c_void};

use harp_cuda_abi::types::*;

use super::outputs::put;
use crate::session::addresses::{Owner, Range};
use crate::session::{sessions, twins};

/// `cuPointerGetAttribute`: one attribute; memory that CUDA does not know is an invalid value.
pub unsafe fn cuPointerGetAttribute(
    data: *mut c_void,
    attribute: CUpointer_attribute,
    pointer: CUdeviceptr,
) -> CUresult {
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    match sessions.addresses.find(pointer) {
        Some(range) => unsafe { put_attribute(data, attribute, pointer, &range) },
        None => CUDA_ERROR_INVALID_VALUE,
    }
}

/// `cuPointerGetAttributes`: several at once; for unknown memory it succeeds with zeros.
pub unsafe fn cuPointerGetAttributes(
    count: c_uint,
    attributes: *mut CUpointer_attribute,
    data: *mut *mut c_void,
    pointer: CUdeviceptr,
) -> CUresult {
    if attributes.is_null() || data.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    let range = sessions.addresses.find(pointer);
    for index in 0..count as usize {
        // SAFETY: both arrays have `count` elements.
        let (attribute, to) = unsafe { (*attributes.add(index), *data.add(index)) };
        let known = range
            .as_ref()
            .map(|range| unsafe { put_attribute(to, attribute, pointer, range) });
        if known != Some(CUDA_SUCCESS) {
            unsafe { put_unknown(to, attribute) };
        }
    }
    CUDA_SUCCESS
}

/// Stores an attribute of known memory.
///
/// Truth values are four bytes wide: the CUDA runtime reads that many.
unsafe fn put_attribute(
    to: *mut c_void,
    attribute: CUpointer_attribute,
    pointer: CUdeviceptr,
    range: &Range,
) -> CUresult {
    let (is_host, device, context) = match range.owner {
        Owner::Device { device, context } | Owner::Managed { device, context } => {
            (false, device, context)
        }
        Owner::Host { context, .. } => (true, super::context::device_of(context), context),
    };
    let is_managed = matches!(range.owner, Owner::Managed { .. });
    let memory_type = if is_host {
        CU_MEMORYTYPE_HOST
    } else {
        CU_MEMORYTYPE_DEVICE
    };
    unsafe {
        match attribute {
            CU_POINTER_ATTRIBUTE_CONTEXT => put(to.cast(), context),
            CU_POINTER_ATTRIBUTE_MEMORY_TYPE => put(to.cast::<c_uint>(), memory_type),
            CU_POINTER_ATTRIBUTE_DEVICE_POINTER if is_host => match on_device(range) {
                Ok(base) => put(to.cast(), base + (pointer - range.base)),
                Err(code) => code,
            },
            CU_POINTER_ATTRIBUTE_DEVICE_POINTER => put(to.cast(), pointer),
            CU_POINTER_ATTRIBUTE_HOST_POINTER if is_host || is_managed => put(to.cast(), pointer),
            CU_POINTER_ATTRIBUTE_P2P_TOKENS => put(to.cast(), NO_TOKENS),
            CU_POINTER_ATTRIBUTE_IS_MANAGED => put(to.cast::<c_uint>(), is_managed.into()),
            CU_POINTER_ATTRIBUTE_BUFFER_ID | CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID => {
                put(to.cast(), range.buffer_id)
            }
            CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
            | CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
            | CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE
            | CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE => put(to.cast::<c_uint>(), 0),
            CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => put(to.cast::<c_int>(), device),
            CU_POINTER_ATTRIBUTE_RANGE_START_ADDR | CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR => {
                put(to.cast(), range.base)
            }
            CU_POINTER_ATTRIBUTE_RANGE_SIZE | CU_POINTER_ATTRIBUTE_MAPPING_SIZE => {
                put(to.cast(), range.size)
            }
            CU_POINTER_ATTRIBUTE_MAPPED => put(to.cast::<c_uint>(), 1),
            CU_POINTER_ATTRIBUTE_ACCESS_FLAGS => put(
                to.cast::<c_uint>(),
                CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE,
            ),
            CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES | CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE => {
                put(to.cast(), 0_u64)
            }
            _ => CUDA_ERROR_INVALID_VALUE,
        }
    }
}

/// Where the device sees page-locked memory. What was allocated as such is at the same address, whether
/// it has a twin yet or not.
fn on_device(range: &Range) -> Result<u64, CUresult> {
    match twins::is_placed(range.base) {
        true => Ok(range.base),
        false => super::managed::shared_with_device(sessions()?.any(), range),
    }
}

/// What the plural query stores for an attribute that the memory does not have.
unsafe fn put_unknown(to: *mut c_void, attribute: CUpointer_attribute) {
    unsafe {
        let _ = match attribute {
            CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => put(to.cast::<c_int>(), NO_DEVICE),
            CU_POINTER_ATTRIBUTE_MEMORY_TYPE
            | CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
            | CU_POINTER_ATTRIBUTE_IS_MANAGED
            | CU_POINTER_ATTRIBUTE_MAPPED
            | CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
            | CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE
            | CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE
            | CU_POINTER_ATTRIBUTE_ACCESS_FLAGS => put(to.cast::<c_uint>(), 0),
            CU_POINTER_ATTRIBUTE_P2P_TOKENS => CUDA_SUCCESS,
            _ => put(to.cast(), 0_u64),
        };
    }
}

/// Other drivers reach no memory of this process.
const NO_TOKENS: CUDA_POINTER_ATTRIBUTE_P2P_TOKENS = CUDA_POINTER_ATTRIBUTE_P2P_TOKENS {
    p2pToken: 0,
    vaSpaceToken: 0,
};

/// `CU_DEVICE_INVALID`, the ordinal of memory that is no device's.
const NO_DEVICE: c_int = -2;
