//! Unpacking of entries, bounded: what a container claims about itself is never believed.

use std::io::Read;

use crate::container::{Entry, Packing};
use crate::ImageError;

/// Most bytes that the entries taken from one image may unpack to, all together. The largest PTX
/// seen in a shipped library has 21 MB.
pub const UNPACKED_MAX: usize = 512 << 20;

/// LZ4 cannot pack better than this; a claim beyond it is a lie.
const LZ4_BEST_RATIO: usize = 255;

/// The payload of `entry`, unpacked, if that is no more than `most` bytes.
pub fn unpack(entry: &Entry, most: usize) -> Result<Vec<u8>, ImageError> {
    match entry.packing {
        Packing::Plain if entry.packed.len() > most => Err(ImageError::TooLarge),
        Packing::Plain => Ok(entry.packed.to_vec()),
        Packing::Lz4 => unpack_lz4(entry.packed, entry.unpacked_len, most),
        Packing::Zstd => unpack_zstd(entry.packed, most),
    }
}

fn unpack_lz4(packed: &[u8], claimed: u64, most: usize) -> Result<Vec<u8>, ImageError> {
    let most = packed
        .len()
        .saturating_mul(LZ4_BEST_RATIO)
        .saturating_add(64)
        .min(most);
    let mut room = usize::try_from(claimed).unwrap_or(usize::MAX).min(most);
    loop {
        let mut unpacked = vec![0; room];
        match lz4_flex::block::decompress_into(packed, &mut unpacked) {
            Ok(length) => {
                unpacked.truncate(length);
                return Ok(unpacked);
            }
            // Some old files claim too little.
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if room < most => {
                room = room.saturating_mul(2).clamp(64, most);
            }
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) => {
                return Err(ImageError::TooLarge);
            }
            Err(_) => return Err(ImageError::Corrupt("LZ4 data")),
        }
    }
}

fn unpack_zstd(packed: &[u8], most: usize) -> Result<Vec<u8>, ImageError> {
    let corrupt = |_| ImageError::Corrupt("Zstandard data");
    let decoder = zstd::stream::read::Decoder::with_buffer(packed)
        .map_err(corrupt)?
        .single_frame();
    let mut unpacked = Vec::new();
    decoder
        .take(most as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(corrupt)?;
    if unpacked.len() > most {
        return Err(ImageError::TooLarge);
    }
    Ok(unpacked)
}
