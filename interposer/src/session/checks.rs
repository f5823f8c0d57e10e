//! Errors that the client predicts, so that a call that does not wait can still refuse at once
//! what CUDA refuses at once.

use harp_cuda_abi::types::*;

use super::addresses::{Owner, Range};
use super::{handles, session};

/// Refuses a call that needs a current context where there is none.
///
/// # Errors
/// `CUDA_ERROR_INVALID_CONTEXT`, or what the session failed with.
pub fn context() -> Result<(), CUresult> {
    session()?;
    crate::api::current_context().map(drop)
}

/// The wire id of a stream argument; a default stream needs a current context.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE`, `CUDA_ERROR_INVALID_CONTEXT`, or what the session failed with.
pub fn stream(raw: CUstream) -> Result<u64, CUresult> {
    session()?;
    let id = handles::live_stream(raw)?;
    if id <= handles::STREAM_PER_THREAD {
        crate::api::current_context()?;
    }
    Ok(id)
}

/// Refuses a range that is not within one allocation that the device reaches. Where that is memory
/// of this process, the device gets to see what the program has written there.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE`, or what the session failed with.
pub fn device_span(address: CUdeviceptr, bytes: u64) -> Result<(), CUresult> {
    let session = session()?;
    match session.addresses.find(address) {
        Some(range) if range.remaining(address) < bytes => return Err(CUDA_ERROR_INVALID_VALUE),
        Some(Range {
            owner: Owner::Device { .. },
            ..
        }) => return Ok(()),
        Some(shared) => {
            crate::api::shared_with_device(session, &shared)?;
        }
        None => {}
    }
    if !session.twins.holds(address, bytes) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    match session.twins.push() {
        CUDA_SUCCESS => Ok(()),
        code => Err(code),
    }
}
