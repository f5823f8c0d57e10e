//! Events: recorded without waiting, so the client must know which context each belongs to.

use std::ffi::c_uint;

use harp_cuda_abi::types::*;
use harp_wire::{Because, HandleKind};

use super::context::current_context;
use super::copy::result;
use super::outputs::put;
use super::stream::context_of;
use crate::generated::forward;
use crate::session::handles::session_of;
use crate::session::{because, checks, handles, sessions};

/// What an event was made with.
struct Event {
    context: u64,
}

pub unsafe fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> CUresult {
    // What another process waits for has no times.
    const OF_PROCESSES: c_uint = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
    if event.is_null() || flags & OF_PROCESSES == CU_EVENT_INTERPROCESS {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let context = match sessions().and_then(|_| current_context()) {
        Ok(context) => context as u64,
        Err(code) => return code,
    };
    let made = handles::create(HandleKind::Event, session_of(context));
    handles::attach(made, Event { context });
    let status = unsafe { forward::cuEventCreate(made as CUevent, flags) };
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Event, made as CUevent);
        return status;
    }
    unsafe { put(event, made as CUevent) }
}

/// Refuses an event on a stream of another context, as CUDA does at once.
fn check(event: CUevent, stream: CUstream) -> Result<(), CUresult> {
    sessions()?;
    let id = handles::live(HandleKind::Event, event)?;
    // SAFETY: every event handle is given an Event when it is made.
    let known = unsafe { handles::attached::<Event>(id) }.ok_or(CUDA_ERROR_INVALID_HANDLE)?;
    match known.context == context_of(stream)? {
        true => Ok(()),
        false => Err(CUDA_ERROR_INVALID_HANDLE),
    }
}

pub unsafe fn cuEventRecord(event: CUevent, stream: CUstream) -> CUresult {
    match check(event, stream) {
        Ok(()) => unsafe { forward::cuEventRecord(event, stream) },
        refused => result(refused),
    }
}

pub unsafe fn cuEventRecordWithFlags(event: CUevent, stream: CUstream, flags: c_uint) -> CUresult {
    match check(event, stream) {
        Ok(()) => unsafe { forward::cuEventRecordWithFlags(event, stream, flags) },
        refused => result(refused),
    }
}

/// The stream goes on when the event has happened. That of another server cannot wait for it by itself:
/// the program waits, here, and what it queues afterwards comes after the event.
pub unsafe fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) -> CUresult {
    let elsewhere = || {
        let (session, _) = checks::stream(stream)?;
        let id = handles::live(HandleKind::Event, event)?;
        Ok(session_of(id) != session.number)
    };
    match elsewhere() {
        Ok(true) if flags & !CU_EVENT_WAIT_EXTERNAL != 0 => CUDA_ERROR_INVALID_VALUE,
        Ok(true) => because(Because::Order, || unsafe {
            forward::cuEventSynchronize(event)
        }),
        Ok(false) => unsafe { forward::cuStreamWaitEvent(stream, event, flags) },
        Err(code) => code,
    }
}
