//! What is fuzzed, shared by the short run here and by cargo-fuzz.

use harp_cuda_image::select;

/// Any bytes are an image or an error: no panic, no read outside, no allocation by a claim.
pub fn images(bytes: &[u8]) {
    for arch in [75, 86, 120] {
        let _ = select(bytes, arch);
    }
}
