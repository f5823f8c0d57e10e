//! Arrays, by what their elements take. The driver's own layout may take more.

use harp_cuda_abi::types::*;

use super::ledger::{Charge, Holding};
use super::{charged, current, freed};
use crate::generated::local_driver;

pub unsafe fn cuArrayCreate_v2(
    pHandle: *mut CUarray,
    pAllocateArray: *const CUDA_ARRAY_DESCRIPTOR,
) -> CUresult {
    let shape = unsafe { pAllocateArray.as_ref() }.map(|array| CUDA_ARRAY3D_DESCRIPTOR {
        Width: array.Width,
        Height: array.Height,
        Depth: 0,
        Format: array.Format,
        NumChannels: array.NumChannels,
        Flags: 0,
    });
    unsafe {
        create(pHandle, shape, 1, || {
            local_driver::cuArrayCreate_v2(pHandle, pAllocateArray)
        })
    }
}

pub unsafe fn cuArray3DCreate_v2(
    pHandle: *mut CUarray,
    pAllocateArray: *const CUDA_ARRAY3D_DESCRIPTOR,
) -> CUresult {
    unsafe {
        create(pHandle, pAllocateArray.as_ref().copied(), 1, || {
            local_driver::cuArray3DCreate_v2(pHandle, pAllocateArray)
        })
    }
}

pub unsafe fn cuMipmappedArrayCreate(
    pHandle: *mut CUmipmappedArray,
    pMipmappedArrayDesc: *const CUDA_ARRAY3D_DESCRIPTOR,
    numMipmapLevels: u32,
) -> CUresult {
    unsafe {
        let shape = pMipmappedArrayDesc.as_ref().copied();
        create(pHandle, shape, numMipmapLevels, || {
            local_driver::cuMipmappedArrayCreate(pHandle, pMipmappedArrayDesc, numMipmapLevels)
        })
    }
}

pub unsafe fn cuArrayDestroy(hArray: CUarray) -> CUresult {
    freed(Holding::Array(hArray as usize), || unsafe {
        local_driver::cuArrayDestroy(hArray)
    })
}

pub unsafe fn cuMipmappedArrayDestroy(hMipmappedArray: CUmipmappedArray) -> CUresult {
    freed(Holding::Array(hMipmappedArray as usize), || unsafe {
        local_driver::cuMipmappedArrayDestroy(hMipmappedArray)
    })
}

unsafe fn create<T>(
    handle: *mut *mut T,
    shape: Option<CUDA_ARRAY3D_DESCRIPTOR>,
    levels: u32,
    create: impl FnOnce() -> CUresult,
) -> CUresult {
    let (Some((device, context)), Some(shape), false) = (current(), shape, handle.is_null()) else {
        return create();
    };
    let charge = Charge {
        device,
        bytes: bytes(&shape, levels),
        context,
    };
    charged(charge, create, || {
        Holding::Array(unsafe { *handle } as usize)
    })
}

/// Bytes of an array's elements over all its levels; none where memory is mapped into it later.
fn bytes(shape: &CUDA_ARRAY3D_DESCRIPTOR, levels: u32) -> u64 {
    if shape.Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING) != 0 {
        return 0;
    }
    let layers = shape.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP) != 0;
    let extent = |size: usize, level: u32| (size as u64).checked_shr(level).unwrap_or(0).max(1);
    let mut bits = 0_u64;
    for level in 0..levels.clamp(1, 64) {
        let depth = extent(shape.Depth, if layers { 0 } else { level });
        bits = bits.saturating_add(
            extent(shape.Width, level)
                .saturating_mul(extent(shape.Height, level))
                .saturating_mul(depth)
                .saturating_mul(bits_of_element(shape.Format, shape.NumChannels)),
        );
    }
    bits.div_ceil(8)
}

/// Bits of an element, of all its channels. Formats of video are taken as 32 bits.
fn bits_of_element(format: CUarray_format, channels: u32) -> u64 {
    let channels = u64::from(channels.max(1));
    match format {
        CU_AD_FORMAT_UNSIGNED_INT8 | CU_AD_FORMAT_SIGNED_INT8 => 8 * channels,
        CU_AD_FORMAT_UNSIGNED_INT16 | CU_AD_FORMAT_SIGNED_INT16 | CU_AD_FORMAT_HALF => {
            16 * channels
        }
        CU_AD_FORMAT_UNSIGNED_INT32 | CU_AD_FORMAT_SIGNED_INT32 | CU_AD_FORMAT_FLOAT => {
            32 * channels
        }
        // The number of channels is part of the name.
        CU_AD_FORMAT_UNORM_INT8X1 | CU_AD_FORMAT_SNORM_INT8X1 => 8,
        CU_AD_FORMAT_UNORM_INT8X2 | CU_AD_FORMAT_SNORM_INT8X2 => 16,
        CU_AD_FORMAT_UNORM_INT16X1 | CU_AD_FORMAT_SNORM_INT16X1 => 16,
        CU_AD_FORMAT_UNORM_INT16X4 | CU_AD_FORMAT_SNORM_INT16X4 => 64,
        // Blocks of 4 by 4 elements in 8 bytes, or in 16.
        CU_AD_FORMAT_BC1_UNORM
        | CU_AD_FORMAT_BC1_UNORM_SRGB
        | CU_AD_FORMAT_BC4_UNORM
        | CU_AD_FORMAT_BC4_SNORM => 4,
        CU_AD_FORMAT_BC2_UNORM..=CU_AD_FORMAT_BC3_UNORM_SRGB
        | CU_AD_FORMAT_BC5_UNORM..=CU_AD_FORMAT_BC7_UNORM_SRGB => 8,
        _ => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(
        size: [usize; 3],
        format: CUarray_format,
        channels: u32,
        flags: u32,
    ) -> CUDA_ARRAY3D_DESCRIPTOR {
        let [Width, Height, Depth] = size;
        CUDA_ARRAY3D_DESCRIPTOR {
            Width,
            Height,
            Depth,
            Format: format,
            NumChannels: channels,
            Flags: flags,
        }
    }

    #[test]
    fn extents_of_zero_count_as_one() {
        let line = shape([100, 0, 0], CU_AD_FORMAT_FLOAT, 1, 0);
        assert_eq!(bytes(&line, 1), 400);
        let box_ = shape([8, 4, 2], CU_AD_FORMAT_HALF, 4, 0);
        assert_eq!(bytes(&box_, 1), 8 * 4 * 2 * 8);
        let blocks = shape([8, 8, 0], CU_AD_FORMAT_BC1_UNORM, 1, 0);
        assert_eq!(bytes(&blocks, 1), 4 * 8);
    }

    #[test]
    fn levels_halve_all_but_layers() {
        let box_ = shape([4, 4, 4], CU_AD_FORMAT_UNSIGNED_INT8, 1, 0);
        assert_eq!(bytes(&box_, 3), 64 + 8 + 1);
        let layered = shape(
            [4, 4, 4],
            CU_AD_FORMAT_UNSIGNED_INT8,
            1,
            CUDA_ARRAY3D_LAYERED,
        );
        assert_eq!(bytes(&layered, 3), 64 + 16 + 4);
    }

    #[test]
    fn what_is_mapped_later_and_nonsense() {
        let sparse = shape(
            [1 << 20, 1 << 20, 0],
            CU_AD_FORMAT_FLOAT,
            4,
            CUDA_ARRAY3D_SPARSE,
        );
        assert_eq!(bytes(&sparse, 1), 0);
        let vast = shape([usize::MAX; 3], CU_AD_FORMAT_FLOAT, 4, 0);
        assert!(bytes(&vast, u32::MAX) >= u64::MAX / 8);
    }
}
