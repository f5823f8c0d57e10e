//! Bytes that calls have copied or set, by direction, of those calls that say how many.

use core::ffi::c_void;
use core::mem::transmute;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use harp_cuda_abi::types::*;

use crate::entry::{bound, number_of};

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
    HostToHost,
    PeerToPeer,
    Memset,
}

/// Each with its name in nsys' `cuda_gpu_mem_size_sum`.
const WAYS: [(Way, &str); 6] = [
    (Way::HostToDevice, "[CUDA memcpy Host-to-Device]"),
    (Way::DeviceToHost, "[CUDA memcpy Device-to-Host]"),
    (Way::DeviceToDevice, "[CUDA memcpy Device-to-Device]"),
    (Way::HostToHost, "[CUDA memcpy Host-to-Host]"),
    (Way::PeerToPeer, "[CUDA memcpy Peer-to-Peer]"),
    (Way::Memset, "[CUDA memset]"),
];

/// Calls and bytes of each way, in the order of its numbers.
static MOVED: [[AtomicU64; 2]; WAYS.len()] =
    [const { [const { AtomicU64::new(0) }; 2] }; WAYS.len()];

/// What went one way.
pub struct Moved {
    /// Its name for nsys.
    pub operation: &'static str,
    pub count: u64,
    pub bytes: u64,
}

/// What went every way that anything went, most bytes first.
pub fn all() -> Vec<Moved> {
    let of = |(way, operation): &(Way, &'static str)| {
        let [count, bytes] = &MOVED[*way as usize];
        Moved {
            operation,
            count: count.load(Relaxed),
            bytes: bytes.load(Relaxed),
        }
    };
    let mut found: Vec<_> = WAYS
        .iter()
        .map(of)
        .filter(|moved| moved.count > 0)
        .collect();
    found.sort_by_key(|moved| u64::MAX - moved.bytes);
    found
}

/// Counts a call that has ended with `code`, if calls are measured; `moved` says what it moves.
#[inline]
pub fn note(code: CUresult, moved: impl FnOnce() -> (Way, u64)) {
    if code == CUDA_SUCCESS && super::BEGUN.get().is_some() {
        let (way, more) = moved();
        let [count, bytes] = &MOVED[way as usize];
        count.fetch_add(1, Relaxed);
        bytes.fetch_add(more, Relaxed);
    }
}

/// The way between two kinds of memory; arrays and managed memory are a device's.
fn way(from: CUmemorytype, to: CUmemorytype) -> Way {
    match (from == CU_MEMORYTYPE_HOST, to == CU_MEMORYTYPE_HOST) {
        (true, true) => Way::HostToHost,
        (true, false) => Way::HostToDevice,
        (false, true) => Way::DeviceToHost,
        (false, false) => Way::DeviceToDevice,
    }
}

/// The way between two addresses, of which the driver says what they are.
pub fn between(destination: CUdeviceptr, source: CUdeviceptr) -> Way {
    way(kind_of(source), kind_of(destination))
}

fn kind_of(address: CUdeviceptr) -> CUmemorytype {
    type Ask = unsafe extern "C" fn(*mut c_void, CUpointer_attribute, CUdeviceptr) -> CUresult;
    let ask = number_of(b"cuPointerGetAttribute").map_or(core::ptr::null_mut(), bound);
    let mut kind: CUmemorytype = CU_MEMORYTYPE_HOST;
    if !ask.is_null() {
        let to = (&raw mut kind).cast();
        // SAFETY: the function of that name, and a place for the attribute; of memory that it does not
        // know, which is the program's own, it writes nothing.
        let code = unsafe {
            transmute::<*mut c_void, Ask>(ask)(to, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
        };
        if code != CUDA_SUCCESS {
            return CU_MEMORYTYPE_HOST;
        }
    }
    kind
}

fn shaped([from, to]: [(CUmemorytype, CUdeviceptr); 2], bytes: usize) -> (Way, u64) {
    let kind = |(kind, address)| match kind {
        CU_MEMORYTYPE_UNIFIED => kind_of(address),
        kind => kind,
    };
    (way(kind(from), kind(to)), bytes as u64)
}

/// What a copy of a rectangle moves.
///
/// # Safety
/// As for `cuMemcpy2D`, which has succeeded.
pub unsafe fn of_2d(copy: *const CUDA_MEMCPY2D) -> (Way, u64) {
    // SAFETY: the caller's promise.
    let c = unsafe { &*copy };
    let from = (c.srcMemoryType, c.srcDevice);
    let to = (c.dstMemoryType, c.dstDevice);
    shaped([from, to], c.WidthInBytes.wrapping_mul(c.Height))
}

/// What a copy of a box moves.
///
/// # Safety
/// As for `cuMemcpy3D`, which has succeeded.
pub unsafe fn of_3d(copy: *const CUDA_MEMCPY3D) -> (Way, u64) {
    // SAFETY: the caller's promise.
    let c = unsafe { &*copy };
    let from = (c.srcMemoryType, c.srcDevice);
    let to = (c.dstMemoryType, c.dstDevice);
    let bytes = c.WidthInBytes.wrapping_mul(c.Height).wrapping_mul(c.Depth);
    shaped([from, to], bytes)
}
