//! When the session begins and ends in the life of a process: first call, fork, exit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

use harp_cuda_abi::types::*;
use harp_driver_front::lifecycle;

use super::settings::{say, settings, LogLevel};
use super::{begin, Session};

/// How long the exit of a program may wait for its last calls to leave.
const EXIT_BOUND: Duration = Duration::from_millis(500);

static SESSION: OnceLock<Result<&'static Session, CUresult>> = OnceLock::new();
/// This process is the fork of one that had a session: the connection is the parent's.
static FORKED: AtomicBool = AtomicBool::new(false);
/// Exit handlers ran: nothing touches the network any more.
static OVER: AtomicBool = AtomicBool::new(false);

/// The session, beginning it if need be; for calls that CUDA allows before `cuInit`.
pub fn connected() -> Result<&'static Session, CUresult> {
    if OVER.load(Ordering::Relaxed) {
        return Err(CUDA_ERROR_DEINITIALIZED);
    }
    if FORKED.load(Ordering::Relaxed) {
        return Err(CUDA_ERROR_NOT_INITIALIZED);
    }
    *SESSION.get_or_init(|| {
        let session: &'static Session = Box::leak(Box::new(begin::begin().map_err(|failure| {
            say(LogLevel::Quiet, &failure.to_string());
            failure.code
        })?));
        begin::start_flusher(session);
        watch_process();
        Ok(session)
    })
}

/// The session, for every call that needs `cuInit` first.
#[inline]
pub fn session() -> Result<&'static Session, CUresult> {
    lifecycle::check()?;
    SESSION
        .get()
        .copied()
        .unwrap_or(Err(CUDA_ERROR_NOT_INITIALIZED))
}

/// `cuInit`: from now on the program may call everything.
pub fn attach_program() -> Result<&'static Session, CUresult> {
    let session = connected()?;
    lifecycle::start()?;
    Ok(session)
}

/// True once exit handlers ran.
pub fn is_over() -> bool {
    OVER.load(Ordering::Relaxed)
}

/// Registers what happens at fork and exit; both only once a session exists, so that programs that
/// never use CUDA see nothing of the interposer.
fn watch_process() {
    // SAFETY: both take plain functions that live as long as the process; this library is not
    // unloaded, since it was preloaded or is held by the runtime that opened it.
    unsafe {
        libc::pthread_atfork(None, None, Some(in_child));
        libc::atexit(at_exit);
    }
}

/// In the child of a fork: the parent keeps the conversation, the child gives up its copy of the
/// socket without a word. Only async-signal-safe calls are allowed here.
extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
    if let Some(Ok(session)) = SESSION.get() {
        // SAFETY: closing a descriptor that only this library knows.
        unsafe { libc::close(session.link.socket) };
    }
}

extern "C" fn at_exit() {
    if FORKED.load(Ordering::Relaxed) || OVER.swap(true, Ordering::Relaxed) {
        return;
    }
    lifecycle::finish();
    let Some(Ok(session)) = SESSION.get() else {
        return;
    };
    session.outgoing.end(EXIT_BOUND);
    if settings().print_stats {
        say(LogLevel::Quiet, &session.summary());
    }
}
