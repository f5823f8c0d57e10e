//! Errors that the client predicts, so that a call that does not wait can still refuse at once
//! what CUDA refuses at once.

use harp_cuda_abi::types::*;

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

/// Refuses a device range that is not within one allocation.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE`, or what the session failed with.
pub fn device_span(address: CUdeviceptr, bytes: u64) -> Result<(), CUresult> {
    match session()?.addresses.find_device_span(address, bytes) {
        Some(_) => Ok(()),
        None => Err(CUDA_ERROR_INVALID_VALUE),
    }
}
