//! Device memory that this process reaches by itself, which only a soft GPU has: what is copied goes there, and comes from
//! there, without a buffer between.

use std::ptr::NonNull;

use harp_cuda_abi::types::{CUdeviceptr, CUstream};

use crate::generated::driver::Driver;

/// A range of it, in which nothing is left to do for the stream of a copy. To be given up before the session's next call.
pub struct Reached {
    start: NonNull<u8>,
    len: usize,
}

impl Reached {
    /// What a copy of `len` bytes in `stream` would read or write, if it would do so at once.
    pub fn of(driver: &Driver, address: CUdeviceptr, len: usize, stream: CUstream) -> Option<Self> {
        let start = driver.reach(address, len, stream)?;
        Some(Reached { start, len })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated memory of the device, which only a call of the session frees. A program whose kernels write
        // there meanwhile has a race of its own: bytes are bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}
