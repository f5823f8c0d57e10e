//! Events: recorded without waiting, so the client must know which context each belongs to.

use std::ffi::c_uint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_cuda_abi::types::*;
use harp_wire::{Because, HandleKind};

use super::context::current_context;
use super::outputs::put;
use super::stream::context_of;
use crate::generated::forward;
use crate::session::handles::{session_of, Renewed};
use crate::session::watches::{Progress, Watch};
use crate::session::{because, checks, handles, sessions, Session};

/// What is known of an event.
struct Event {
    /// The context that it was made in.
    context: AtomicU64,
    /// Of its last record, where the server tells of it.
    watch: Mutex<Option<Watch>>,
}

impl Event {
    fn watch(&self) -> MutexGuard<'_, Option<Watch>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Renewed for Event {
    fn renew(&self, new: Event) {
        self.context
            .store(new.context.into_inner(), Ordering::Relaxed);
        // Its last watch has ended with the event that it was.
        *self.watch() = None;
    }
}

/// A live event, and the session that has it.
fn live(event: CUevent) -> Result<(&'static Session, u64, &'static Event), CUresult> {
    let sessions = sessions()?;
    let id = handles::live(HandleKind::Event, event)?;
    // SAFETY: every event handle is given an Event when it is made.
    let known = unsafe { handles::attached::<Event>(id) }.ok_or(CUDA_ERROR_INVALID_HANDLE)?;
    Ok((sessions.of(id), id, known))
}

pub unsafe fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> CUresult {
    // What another process waits for has no times.
    const OF_PROCESSES: c_uint = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
    if event.is_null() || flags & OF_PROCESSES == CU_EVENT_INTERPROCESS {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let made = sessions().and_then(|_| {
        let context = current_context()? as u64;
        Ok((
            context,
            handles::create(HandleKind::Event, session_of(context))?,
        ))
    });
    let (context, made) = match made {
        Ok(made) => made,
        Err(code) => return code,
    };
    let known = Event {
        context: AtomicU64::new(context),
        watch: Mutex::default(),
    };
    // SAFETY: an Event, as every event handle is given.
    unsafe { handles::attach_again(made, known) };
    let status = unsafe { forward::cuEventCreate(made as CUevent, flags) };
    if status != CUDA_SUCCESS {
        handles::destroy(HandleKind::Event, made as CUevent);
        return status;
    }
    unsafe { put(event, made as CUevent) }
}

pub unsafe fn cuEventDestroy_v2(event: CUevent) -> CUresult {
    if let Ok((session, _, known)) = live(event) {
        session.watches.end(known.watch().take());
    }
    let status = unsafe { forward::cuEventDestroy_v2(event) };
    if status == CUDA_SUCCESS {
        handles::destroy(HandleKind::Event, event);
    }
    status
}

/// Records an event. Refuses one on a stream of another context, as CUDA does at once. Where the program
/// will ask how far it is, the server is to tell.
fn recorded(event: CUevent, stream: CUstream, record: impl FnOnce() -> CUresult) -> CUresult {
    let checked = live(event).and_then(|found| {
        match found.2.context.load(Ordering::Relaxed) == context_of(stream)? {
            true => Ok(found),
            false => Err(CUDA_ERROR_INVALID_HANDLE),
        }
    });
    let (session, id, known) = match checked {
        Ok(found) => found,
        Err(code) => return code,
    };
    // Held so that what the server is asked is of this record.
    let mut watch = known.watch();
    session.watches.end(watch.take());
    let status = record();
    if status == CUDA_SUCCESS {
        *watch = session.watch_event(id);
    }
    status
}

pub unsafe fn cuEventRecord(event: CUevent, stream: CUstream) -> CUresult {
    recorded(event, stream, || unsafe {
        forward::cuEventRecord(event, stream)
    })
}

pub unsafe fn cuEventRecordWithFlags(event: CUevent, stream: CUstream, flags: c_uint) -> CUresult {
    recorded(event, stream, || unsafe {
        forward::cuEventRecordWithFlags(event, stream, flags)
    })
}

/// Who asks once asks again: of an event that has not completed the server tells from then on.
pub unsafe fn cuEventQuery(event: CUevent) -> CUresult {
    let (session, id, known) = match live(event) {
        Ok(found) => found,
        Err(code) => return code,
    };
    session.watches.want();
    let mut watch = known.watch();
    let told = |watch: &Watch| {
        session.check_fault()?;
        if watch.progress() == Progress::Open {
            session.glance()?;
        }
        Ok(watch.progress())
    };
    // What is over may have changed memory that the program looks at next: that is fetched by asking.
    let shares = session.twins.any();
    match watch.as_ref().filter(|_| !shares).map(told) {
        Some(Ok(Progress::Over)) => return CUDA_SUCCESS,
        Some(Ok(Progress::Open)) => return CUDA_ERROR_NOT_READY,
        Some(Err(code)) => return code,
        Some(Ok(Progress::Unclear)) | None => (),
    }
    let status = unsafe { forward::cuEventQuery(event) };
    if status == CUDA_ERROR_NOT_READY && watch.is_none() {
        *watch = session.watch_event(id);
    }
    status
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
