//! Copies to page-locked memory of the program, for which it does not wait. The stream itself sends the bytes, from a
//! host function behind the copy: whatever comes after them in the stream, or waits for it, comes after they are sent,
//! so all that tells the client of it is behind them on the connection.

use std::ffi::c_void;
use std::sync::Arc;

use harp_cuda_abi::types::{CUdeviceptr, CUresult, CUstream};

use super::replies::Replies;
use super::staging::Buffer;
use super::waits::Outcome;
use super::Ending;
use crate::generated::driver::Driver;

/// What the host function knows. Owned by the driver until it calls [`reached`].
struct Landing {
    replies: Arc<Replies>,
    ending: Arc<Ending>,
    ticket: u32,
    buffer: Buffer,
}

/// Queues a copy of as many bytes as `buffer` has from `source` in `stream`, and that they are sent as the answer to
/// `ticket`.
pub fn begin(
    driver: &Driver,
    (replies, ending): (&Arc<Replies>, &Arc<Ending>),
    ticket: u32,
    (source, buffer): (CUdeviceptr, Buffer),
    stream: CUstream,
) -> CUresult {
    let bytes = buffer.as_ref().len();
    // SAFETY: the buffer has room for the bytes, and stays until the stream has passed the copy.
    let status = unsafe { (driver.cuMemcpyDtoHAsync_v2)(buffer.start(), source, bytes, stream) };
    if status != 0 {
        return status;
    }
    let landing = Box::into_raw(Box::new(Landing {
        replies: replies.clone(),
        ending: ending.clone(),
        ticket,
        buffer,
    }));
    // SAFETY: the driver calls the function once with what it is given here, or not at all; then what it is given stays
    // for ever, because the driver may still write the buffer.
    unsafe { (driver.cuLaunchHostFunc)(stream, Some(reached), landing.cast()) }
}

/// Called by the driver, on a thread of its own, when the bytes are there.
unsafe extern "C" fn reached(landing: *mut c_void) {
    // SAFETY: made by `begin`, and called once.
    let landing = unsafe { Box::from_raw(landing.cast::<Landing>()) };
    let Landing {
        replies,
        ending,
        ticket,
        buffer,
    } = *landing;
    let outcome = Outcome {
        status: 0,
        payload: Some(Box::new(buffer)),
    };
    if let Err(error) = replies.land(ticket, outcome) {
        ending.end(&error.to_string());
    }
}
