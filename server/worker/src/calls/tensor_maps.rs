//! Tensor maps, which the driver encodes.

use std::ffi::c_void;
use std::ptr;

use harp_cuda_abi::types::*;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder};

use crate::session::{Session, Violation};

/// Ranks that a map can have.
const MOST_DIMS: usize = 5;
/// Of an im2col map, the dimensions that are no space: channels and images.
const NOT_SPATIAL: usize = 2;

const EMPTY: CUtensorMap = CUtensorMap { opaque: [0; 16] };

/// The rank, where the arrays that every kind of map takes are as long as it says.
fn rank(dims: &[u64], strides: &[u64], element_strides: &[u32]) -> Result<u32, Violation> {
    let rank = dims.len();
    let whole = (1..=MOST_DIMS).contains(&rank)
        && strides.len() == rank - 1
        && element_strides.len() == rank;
    if !whole {
        return Err(Violation::new("a tensor map whose arrays differ in rank"));
    }
    Ok(rank as u32)
}

fn address(value: u64) -> *mut c_void {
    ptr::without_provenance_mut(value as usize)
}

fn bytes_of(map: &CUtensorMap) -> Vec<u8> {
    map.opaque
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

pub fn cuTensorMapEncodeTiled(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuTensorMapEncodeTiledArgs::decode(d)?;
    let rank = rank(&args.dims, &args.strides, &args.element_strides)?;
    if args.extent.len() != rank as usize {
        return Err(Violation::new("a tensor map whose box has another rank"));
    }
    let mut map = EMPTY;
    // SAFETY: the arrays are as long as the rank says; the address is the driver's to check.
    let status = unsafe {
        (cx.driver.cuTensorMapEncodeTiled)(
            &mut map,
            args.data_type,
            rank,
            address(args.address),
            args.dims.as_ptr(),
            args.strides.as_ptr(),
            args.extent.as_ptr(),
            args.element_strides.as_ptr(),
            args.interleave,
            args.swizzle,
            args.l2_promotion,
            args.out_of_bounds,
        )
    };
    encode_cuTensorMapEncodeTiled_reply(out, &bytes_of(&map));
    Ok(status)
}

pub fn cuTensorMapEncodeIm2col(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuTensorMapEncodeIm2colArgs::decode(d)?;
    let rank = rank(&args.dims, &args.strides, &args.element_strides)?;
    let spatial = (rank as usize).saturating_sub(NOT_SPATIAL);
    if args.lower.len() != spatial || args.upper.len() != spatial {
        return Err(Violation::new(
            "a tensor map whose corners have another rank",
        ));
    }
    let mut map = EMPTY;
    // SAFETY: as above.
    let status = unsafe {
        (cx.driver.cuTensorMapEncodeIm2col)(
            &mut map,
            args.data_type,
            rank,
            address(args.address),
            args.dims.as_ptr(),
            args.strides.as_ptr(),
            args.lower.as_ptr(),
            args.upper.as_ptr(),
            args.channels_per_pixel,
            args.pixels_per_column,
            args.element_strides.as_ptr(),
            args.interleave,
            args.swizzle,
            args.l2_promotion,
            args.out_of_bounds,
        )
    };
    encode_cuTensorMapEncodeIm2col_reply(out, &bytes_of(&map));
    Ok(status)
}

pub fn cuTensorMapReplaceAddress(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuTensorMapReplaceAddressArgs::decode(d)?;
    let mut map = EMPTY;
    if args.map.len() != std::mem::size_of::<CUtensorMap>() {
        return Err(Violation::new("a tensor map of another size"));
    }
    for (word, bytes) in map.opaque.iter_mut().zip(args.map.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    }
    // SAFETY: a map of our own; the address is the driver's to check.
    let status = unsafe { (cx.driver.cuTensorMapReplaceAddress)(&mut map, address(args.address)) };
    encode_cuTensorMapReplaceAddress_reply(out, &bytes_of(&map));
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_must_agree_on_the_rank() {
        assert_eq!(rank(&[4, 4], &[16], &[1, 1]).unwrap(), 2);
        for (dims, strides, elements) in [(0, 0, 0), (2, 2, 2), (2, 1, 1), (6, 5, 6), (2, 0, 2)] {
            assert!(rank(&vec![4; dims], &vec![16; strides], &vec![1; elements]).is_err());
        }
    }
}
