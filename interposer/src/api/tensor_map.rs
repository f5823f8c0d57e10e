//! Tensor maps: the server's driver encodes them, the program passes them to kernels as they are.

use std::ffi::{c_int, c_void};

use harp_cuda_abi::types::*;
use harp_wire::{calls, CallId, Encoder};

use crate::session::sessions;

/// Ranks that a tensor map can have.
const RANKS: std::ops::RangeInclusive<u32> = 1..=5;
/// The spatial dimensions of an im2col map are all but the channels and the images.
const NOT_SPATIAL: usize = 2;

/// The arrays that every kind of map takes.
struct Tensor {
    data_type: CUtensorMapDataType,
    address: u64,
    dims: Vec<u64>,
    strides: Vec<u64>,
    element_strides: Vec<u32>,
}

impl Tensor {
    /// # Safety
    /// The arrays are NULL or as long as cuda.h says for this rank.
    unsafe fn read(
        data_type: CUtensorMapDataType,
        rank: u32,
        address: *mut c_void,
        dims: *const u64,
        strides: *const u64,
        element_strides: *const u32,
    ) -> Option<Tensor> {
        if !RANKS.contains(&rank) {
            return None;
        }
        let rank = rank as usize;
        // SAFETY: the caller's promise.
        unsafe {
            Some(Tensor {
                data_type,
                address: address as u64,
                dims: array(dims, rank)?,
                // The innermost dimension is dense.
                strides: array(strides, rank - 1)?,
                element_strides: array(element_strides, rank)?,
            })
        }
    }
}

/// # Safety
/// `from` is NULL or has `count` elements.
unsafe fn array<T: Copy>(from: *const T, count: usize) -> Option<Vec<T>> {
    if count == 0 {
        return Some(Vec::new());
    }
    if from.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(from, count) }.to_vec())
}

/// Asks the server whose memory is at `address` for a map, and stores it.
fn ask(
    map: *mut CUtensorMap,
    address: *mut c_void,
    call: CallId,
    encode: impl FnOnce(&mut Encoder),
) -> CUresult {
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    let range = sessions.addresses.find(address as u64);
    let home = range.and_then(|range| sessions.of_range(&range));
    let session = home.unwrap_or_else(|| sessions.any());
    let mut bytes = Vec::new();
    let status = session.request(call, encode, |decoder| bytes = decoder.bytes().to_vec());
    if status != CUDA_SUCCESS {
        return status;
    }
    if bytes.len() != std::mem::size_of::<CUtensorMap>() {
        return CUDA_ERROR_UNKNOWN;
    }
    // SAFETY: the program's map, checked for NULL, which is as long.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.cast::<u8>(), bytes.len()) };
    CUDA_SUCCESS
}

pub unsafe fn cuTensorMapEncodeTiled(
    map: *mut CUtensorMap,
    data_type: CUtensorMapDataType,
    rank: cuuint32_t,
    address: *mut c_void,
    dims: *const cuuint64_t,
    strides: *const cuuint64_t,
    box_dims: *const cuuint32_t,
    element_strides: *const cuuint32_t,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    l2_promotion: CUtensorMapL2promotion,
    out_of_bounds: CUtensorMapFloatOOBfill,
) -> CUresult {
    // SAFETY: the caller passes arrays of the rank's length.
    let tensor = unsafe { Tensor::read(data_type, rank, address, dims, strides, element_strides) };
    let boxed = unsafe { array(box_dims, rank.min(*RANKS.end()) as usize) };
    let (Some(tensor), Some(boxed), false) = (tensor, boxed, map.is_null()) else {
        return CUDA_ERROR_INVALID_VALUE;
    };
    ask(map, address, CallId::cuTensorMapEncodeTiled, |encoder| {
        calls::encode_cuTensorMapEncodeTiled(
            encoder,
            tensor.data_type,
            tensor.address,
            &tensor.dims,
            &tensor.strides,
            &tensor.element_strides,
            &boxed,
            interleave,
            swizzle,
            l2_promotion,
            out_of_bounds,
        );
    })
}

pub unsafe fn cuTensorMapEncodeIm2col(
    map: *mut CUtensorMap,
    data_type: CUtensorMapDataType,
    rank: cuuint32_t,
    address: *mut c_void,
    dims: *const cuuint64_t,
    strides: *const cuuint64_t,
    lower: *const c_int,
    upper: *const c_int,
    channels_per_pixel: cuuint32_t,
    pixels_per_column: cuuint32_t,
    element_strides: *const cuuint32_t,
    interleave: CUtensorMapInterleave,
    swizzle: CUtensorMapSwizzle,
    l2_promotion: CUtensorMapL2promotion,
    out_of_bounds: CUtensorMapFloatOOBfill,
) -> CUresult {
    // SAFETY: the caller passes arrays of the rank's length.
    let tensor = unsafe { Tensor::read(data_type, rank, address, dims, strides, element_strides) };
    let Some(tensor) = tensor else {
        return CUDA_ERROR_INVALID_VALUE;
    };
    let spatial = tensor.dims.len().saturating_sub(NOT_SPATIAL);
    // SAFETY: one corner for each spatial dimension.
    let corners = unsafe { (array(lower, spatial), array(upper, spatial)) };
    let ((Some(lower), Some(upper)), false) = (corners, map.is_null()) else {
        return CUDA_ERROR_INVALID_VALUE;
    };
    ask(map, address, CallId::cuTensorMapEncodeIm2col, |encoder| {
        calls::encode_cuTensorMapEncodeIm2col(
            encoder,
            tensor.data_type,
            tensor.address,
            &tensor.dims,
            &tensor.strides,
            &tensor.element_strides,
            &lower,
            &upper,
            channels_per_pixel,
            pixels_per_column,
            interleave,
            swizzle,
            l2_promotion,
            out_of_bounds,
        );
    })
}

pub unsafe fn cuTensorMapReplaceAddress(map: *mut CUtensorMap, address: *mut c_void) -> CUresult {
    if map.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller passes a map.
    let present = unsafe { *map };
    let bytes: Vec<u8> = present
        .opaque
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    ask(map, address, CallId::cuTensorMapReplaceAddress, |encoder| {
        calls::encode_cuTensorMapReplaceAddress(encoder, &bytes, address as u64);
    })
}
