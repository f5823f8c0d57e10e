//! Calls that may block for as long as a kernel runs.

use std::ffi::c_void;

use harp_cuda_abi::types::{CUdeviceptr, CUevent, CUresult, CUstream, CUDA_MEMCPY3D};
use harp_transport::Buffer;
use harp_wire::reply::{ReplyHead, REPLY_HEAD_BYTES};

use super::staging::Staging;
use crate::generated::driver::Driver;

/// What is waited for. Complete in itself: it is performed without the session, in the context that is current.
pub enum Wait {
    Stream(CUstream),
    Event(CUevent),
    Context,
    /// Device memory that the reply carries: waits for the stream, or for the legacy stream if there is none.
    Copy {
        source: CUdeviceptr,
        bytes: usize,
        stream: Option<CUstream>,
    },
    /// A box of device memory that the reply carries packed. Of the copy's description only the host's address is missing.
    CopyBox {
        copy: Box<CUDA_MEMCPY3D>,
        bytes: usize,
        stream: Option<CUstream>,
    },
    /// Device memory that is sent once the stream has got there (`session::landings`). Waited for only where that
    /// cannot be had.
    Landing {
        source: CUdeviceptr,
        bytes: usize,
        stream: CUstream,
    },
    /// Frees device memory, for which the device may have to finish what it does.
    Free(CUdeviceptr),
}

// SAFETY: handles are opaque values for the driver, which takes them on any thread.
unsafe impl Send for Wait {}

impl Wait {
    /// Blocks until it is over.
    pub fn perform(&self, driver: &Driver, staging: &Staging) -> Outcome {
        // SAFETY: the handles came from the driver; that they are still alive is the program's duty, as it is without a
        // pool, and what becomes of a program that fails it is confined to this process.
        let status = unsafe {
            match *self {
                Wait::Stream(stream) => (driver.cuStreamSynchronize)(stream),
                Wait::Event(event) => (driver.cuEventSynchronize)(event),
                Wait::Context => (driver.cuCtxSynchronize)(),
                Wait::Free(address) => (driver.cuMemFree_v2)(address),
                Wait::Copy {
                    source,
                    bytes,
                    stream,
                } => return copy_to_host(driver, staging, source, bytes, stream),
                Wait::CopyBox {
                    ref copy,
                    bytes,
                    stream,
                } => return copy_box_to_host(driver, copy, bytes, stream),
                Wait::Landing {
                    source,
                    bytes,
                    stream,
                } => return copy_to_host(driver, staging, source, bytes, Some(stream)),
            }
        };
        Outcome::without_bytes(status)
    }
}

/// How a wait has ended.
pub struct Outcome {
    pub status: CUresult,
    /// What the reply carries, be it empty: only if the wait is for a copy, and has not failed.
    pub payload: Option<Buffer>,
}

impl Outcome {
    /// Of a wait for something else than a copy, or one that has failed.
    pub fn without_bytes(status: CUresult) -> Outcome {
        Outcome {
            status,
            payload: None,
        }
    }

    /// The bytes that the reply carries.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.payload.as_ref().map(|payload| (**payload).as_ref())
    }

    /// The reply up to where its payload follows.
    pub fn reply_head(&self, ticket: u32, deferred: CUresult) -> Vec<u8> {
        reply_head(ticket, self.status, deferred, self.bytes().map(<[u8]>::len))
    }
}

/// A reply up to where so many bytes follow, if any do.
pub fn reply_head(
    ticket: u32,
    status: CUresult,
    deferred: CUresult,
    bytes: Option<usize>,
) -> Vec<u8> {
    let body = bytes.map_or(0, |bytes| LENGTH_BYTES + bytes);
    let mut head = Vec::with_capacity(REPLY_HEAD_BYTES + LENGTH_BYTES);
    head.extend(ReplyHead::new(ticket, status, deferred, body).encode());
    if let Some(bytes) = bytes {
        head.extend((bytes as u64).to_le_bytes());
    }
    head
}

/// The length in front of a run of bytes.
const LENGTH_BYTES: usize = 8;
/// So few bytes are copied faster than a page-locked buffer is fetched for them.
const UNSTAGED_MAX: usize = 16 << 10;

/// Copies `bytes` bytes of device memory and waits for them.
fn copy_to_host(
    driver: &Driver,
    staging: &Staging,
    source: CUdeviceptr,
    bytes: usize,
    stream: Option<CUstream>,
) -> Outcome {
    // SAFETY: `target` has room for what the driver writes.
    let copy = |target: *mut c_void| unsafe {
        match stream {
            None => (driver.cuMemcpyDtoH_v2)(target, source, bytes),
            Some(stream) => match (driver.cuMemcpyDtoHAsync_v2)(target, source, bytes, stream) {
                0 => (driver.cuStreamSynchronize)(stream),
                code => code,
            },
        }
    };
    let staged = (bytes > UNSTAGED_MAX).then(|| staging.take(driver, bytes));
    let (status, payload): (CUresult, Buffer) = match staged.flatten() {
        Some(buffer) => (copy(buffer.start()), Box::new(buffer)),
        None => {
            let mut payload: Vec<u8> = Vec::with_capacity(bytes);
            let status = copy(payload.as_mut_ptr().cast());
            if status == 0 {
                // SAFETY: the driver says that it has written them.
                unsafe { payload.set_len(bytes) };
            }
            (status, Box::new(payload))
        }
    };
    Outcome {
        status,
        payload: (status == 0).then_some(payload),
    }
}

/// Copies a box of `bytes` bytes of device memory and waits for them.
fn copy_box_to_host(
    driver: &Driver,
    copy: &CUDA_MEMCPY3D,
    bytes: usize,
    stream: Option<CUstream>,
) -> Outcome {
    // Zeroed, because a reply may never carry what others left there.
    let mut packed = vec![0_u8; bytes];
    let copy = CUDA_MEMCPY3D {
        dstHost: packed.as_mut_ptr().cast(),
        ..*copy
    };
    // SAFETY: `packed` has room for what the driver writes.
    let status = unsafe {
        match stream {
            None => (driver.cuMemcpy3D_v2)(&copy),
            Some(stream) => match (driver.cuMemcpy3DAsync_v2)(&copy, stream) {
                0 => (driver.cuStreamSynchronize)(stream),
                code => code,
            },
        }
    };
    Outcome {
        status,
        payload: (status == 0).then(|| Box::new(packed) as Buffer),
    }
}
