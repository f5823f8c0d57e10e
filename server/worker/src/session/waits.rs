//! Calls that may block for as long as a kernel runs.

use harp_cuda_abi::types::{CUdeviceptr, CUevent, CUresult, CUstream};
use harp_wire::reply::{ReplyHead, REPLY_HEAD_BYTES};

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
    /// Frees device memory, for which the device may have to finish what it does.
    Free(CUdeviceptr),
}

// SAFETY: handles are opaque values for the driver, which takes them on any thread.
unsafe impl Send for Wait {}

impl Wait {
    /// Blocks until it is over and puts what the reply carries into `payload`.
    pub fn perform(&self, driver: &Driver, payload: &mut Vec<u8>) -> Outcome {
        payload.clear();
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
                } => copy_to_host(driver, payload, source, bytes, stream),
            }
        };
        Outcome {
            status,
            carries_bytes: matches!(self, Wait::Copy { .. }),
        }
    }
}

/// How a wait has ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub status: CUresult,
    /// Whether a payload, be it empty, belongs to the reply.
    pub carries_bytes: bool,
}

impl Outcome {
    /// The reply up to where its payload of `bytes` bytes follows. (A payload is empty if the wait has failed.)
    pub fn reply_head(self, ticket: u32, deferred: CUresult, bytes: usize) -> Vec<u8> {
        let counted = self.carries_bytes && self.status == 0;
        let body = if counted { LENGTH_BYTES + bytes } else { 0 };
        let mut head = Vec::with_capacity(REPLY_HEAD_BYTES + LENGTH_BYTES);
        head.extend(ReplyHead::new(ticket, self.status, deferred, body).encode());
        if counted {
            head.extend((bytes as u64).to_le_bytes());
        }
        head
    }
}

/// The length in front of a run of bytes.
const LENGTH_BYTES: usize = 8;

/// Copies `bytes` bytes of device memory to `payload` and waits for them.
fn copy_to_host(
    driver: &Driver,
    payload: &mut Vec<u8>,
    source: CUdeviceptr,
    bytes: usize,
    stream: Option<CUstream>,
) -> CUresult {
    payload.reserve_exact(bytes);
    let target = payload.as_mut_ptr().cast();
    // SAFETY: the vector has room for what the driver writes, and counts it only when the driver says that it did.
    unsafe {
        let status = match stream {
            None => (driver.cuMemcpyDtoH_v2)(target, source, bytes),
            Some(stream) => match (driver.cuMemcpyDtoHAsync_v2)(target, source, bytes, stream) {
                0 => (driver.cuStreamSynchronize)(stream),
                code => code,
            },
        };
        if status == 0 {
            payload.set_len(bytes);
        }
        status
    }
}
