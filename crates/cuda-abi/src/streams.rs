//! Stream handles with a meaning of their own.

use crate::types::{CUstream, CU_STREAM_PER_THREAD};

/// The stream that a per-thread entry point (`_ptsz`) means: there the null handle is the calling
/// thread's default stream.
pub fn per_thread(stream: CUstream) -> CUstream {
    if stream.is_null() {
        CU_STREAM_PER_THREAD
    } else {
        stream
    }
}
