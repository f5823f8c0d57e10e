//! Errors that the client predicts, so that a call that does not wait can still refuse at once
//! what CUDA refuses at once.

use harp_cuda_abi::types::*;

use harp_wire::HandleKind;

use super::addresses::{Owner, Range};
use super::handles::{self, session_of};
use super::{sessions, Session};

/// The session of the current context, for a call that needs one.
///
/// # Errors
/// `CUDA_ERROR_INVALID_CONTEXT`, or what the sessions failed with.
pub fn context() -> Result<&'static Session, CUresult> {
    let sessions = sessions()?;
    crate::api::current_context().map(|context| sessions.of(context as u64))
}

/// The session and the wire id of a handle argument.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE`, `CUDA_ERROR_INVALID_CONTEXT`, or what the sessions failed with.
pub fn live<T>(kind: HandleKind, raw: *mut T) -> Result<(&'static Session, u64), CUresult> {
    let id = handles::live(kind, raw)?;
    Ok((sessions()?.of(id), id))
}

/// As [`live`], for a call that its session is known of.
pub fn live_in<T>(session: &Session, kind: HandleKind, raw: *mut T) -> Result<u64, CUresult> {
    let id = handles::live(kind, raw)?;
    match kind {
        HandleKind::Context => belongs(session, id).or(Err(CUDA_ERROR_INVALID_CONTEXT)),
        _ => belongs(session, id),
    }
}

/// Refuses a live handle of another server's.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE`.
pub fn belongs(session: &Session, id: u64) -> Result<u64, CUresult> {
    match session_of(id) == session.number {
        true => Ok(id),
        false => Err(CUDA_ERROR_INVALID_HANDLE),
    }
}

/// The session and the wire id of a stream argument; a default stream is the current context's.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE`, `CUDA_ERROR_INVALID_CONTEXT`, or what the sessions failed with.
pub fn stream(raw: CUstream) -> Result<(&'static Session, u64), CUresult> {
    let sessions = sessions()?;
    let id = handles::live_stream(raw)?;
    if id <= handles::STREAM_PER_THREAD {
        let context = crate::api::current_context()?;
        return Ok((sessions.of(context as u64), id));
    }
    Ok((sessions.of(id), id))
}

/// As [`stream`], for a call that its session is known of.
pub fn stream_in(session: &Session, raw: CUstream) -> Result<u64, CUresult> {
    match stream(raw)? {
        (own, id) if own.number == session.number => Ok(id),
        _ => Err(CUDA_ERROR_INVALID_HANDLE),
    }
}

/// Refuses a range that is not within one allocation that the devices of a session reach. Where that
/// is memory of this process, the device gets to see what the program has written there.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE`, or what the session failed with.
pub fn device_span(session: &Session, address: CUdeviceptr, bytes: u64) -> Result<(), CUresult> {
    let sessions = sessions()?;
    match sessions.addresses.find(address) {
        Some(range) if range.remaining(address) < bytes => return Err(CUDA_ERROR_INVALID_VALUE),
        Some(Range {
            owner: Owner::Device { context, .. },
            ..
        }) => {
            return belongs(session, context)
                .map(drop)
                .or(Err(CUDA_ERROR_INVALID_VALUE))
        }
        Some(shared) => {
            crate::api::shared_with_device(session, &shared)?;
        }
        None => {
            if let Some(shared) = crate::api::shown_to_another(sessions, address) {
                crate::api::shared_with_device(session, &shared)?;
            }
        }
    }
    if !session.twins.holds(address, bytes) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    match session.push_twins() {
        CUDA_SUCCESS => Ok(()),
        code => Err(code),
    }
}
