//! Any bytes are an image or an error: no panic, no read outside, no allocation by a claim.
#![no_main]

use harp_cuda_image::select;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|image: &[u8]| {
    for arch in [75, 86, 120] {
        let _ = select(image, arch);
    }
});
