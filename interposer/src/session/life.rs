//! When the sessions begin and end in the life of a process: first call, fork, exit.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harp_cuda_abi::types::*;
use harp_driver_front::lifecycle;
use harp_driver_front::threads::Uncancelled;

use super::settings::{say, settings, LogLevel};
use super::{begin, Session, Sessions};
use crate::{profile, recording};

/// How long the exit of a program may wait for its last calls to leave.
const EXIT_BOUND: Duration = Duration::from_millis(500);

/// How the attempt to begin the sessions has ended; empty while it is under way.
type Attempt = OnceLock<Result<&'static Sessions, CUresult>>;

/// This process's attempt, made once: null before it. A forked child that may still begin for
/// itself forgets its parent's, be that under way in a thread that the child does not have.
static ATTEMPT: AtomicPtr<Attempt> = AtomicPtr::new(null_mut());

fn attempt() -> Option<&'static Attempt> {
    // SAFETY: null or a leaked box.
    unsafe { ATTEMPT.load(Ordering::Acquire).as_ref() }
}

fn attempt_or_new() -> &'static Attempt {
    attempt().unwrap_or_else(|| {
        let new = Box::into_raw(Box::default());
        match ATTEMPT.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: both are leaked boxes.
            Ok(_) => unsafe { &*new },
            Err(first) => unsafe {
                drop(Box::from_raw(new));
                &*first
            },
        }
    })
}

/// The sessions, beginning them if need be; for calls that CUDA allows before `cuInit`.
pub fn connected() -> Result<&'static Sessions, CUresult> {
    if lifecycle::finished() {
        return Err(CUDA_ERROR_DEINITIALIZED);
    }
    if lifecycle::forked() {
        return Err(CUDA_ERROR_NOT_INITIALIZED);
    }
    // Before anything is there that a child or an exit could leave in disorder.
    lifecycle::watch(lifecycle::Hooks {
        forked: in_child,
        over: at_exit,
    });
    let _uncancelled = Uncancelled::new();
    *attempt_or_new().get_or_init(|| {
        let sessions: &'static Sessions =
            Box::leak(Box::new(begin_recorded().map_err(|failure| {
                say(LogLevel::Quiet, &failure.to_string());
                failure.code
            })?));
        sessions.iter().for_each(begin::start_flusher);
        Ok(sessions)
    })
}

fn begin_recorded() -> Result<Sessions, begin::Failure> {
    recording::begin();
    begin::begin()
}

/// The sessions, for every call that needs `cuInit` first.
#[inline]
pub fn sessions() -> Result<&'static Sessions, CUresult> {
    lifecycle::check()?;
    begun().ok_or(CUDA_ERROR_NOT_INITIALIZED)
}

/// The sessions if there are any, in a forked child its parent's: for what was learned from them.
#[inline]
pub fn begun() -> Option<&'static Sessions> {
    attempt()?.get().copied()?.ok()
}

/// `cuInit`: from now on the program may call everything.
pub fn attach_program() -> Result<&'static Sessions, CUresult> {
    lifecycle::starting()?;
    let sessions = connected().inspect_err(|_| lifecycle::start_failed())?;
    lifecycle::start()?;
    Ok(sessions)
}

/// True where nothing may touch the network: exit handlers have run, or the connections are those of
/// the process that this one was forked from.
pub fn is_over() -> bool {
    lifecycle::finished() || lifecycle::forked()
}

/// In the child of a fork: the parent keeps the conversations, the child gives up its copies of the
/// sockets without a word.
fn in_child(initialised: bool) {
    recording::forget();
    if let Some(sessions) = begun() {
        for session in sessions.iter() {
            disconnect(session.keeper.socket());
        }
    }
    if !initialised {
        ATTEMPT.store(null_mut(), Ordering::Release);
    }
}

/// Puts a socket that leads nowhere in the place of this one. Closed alone, its number would become
/// that of a file of the child's, and a call that the fork has interrupted would write there.
pub fn disconnect(socket: libc::c_int) {
    // SAFETY: system calls on a descriptor that only this library knows.
    unsafe {
        let nowhere = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if nowhere < 0 || libc::dup3(nowhere, socket, libc::O_CLOEXEC) < 0 {
            libc::close(socket);
        }
        if nowhere >= 0 {
            libc::close(nowhere);
        }
    }
}

fn at_exit() {
    let Some(sessions) = begun() else {
        return recording::end();
    };
    let end = Instant::now() + EXIT_BOUND;
    for session in sessions.iter() {
        // A server that takes nothing costs the others their patience, not their goodbye.
        let left = end.saturating_duration_since(Instant::now());
        session.outgoing.end(left.max(Duration::from_millis(1)));
    }
    recording::end();
    if settings().print_stats {
        for session in sessions.iter() {
            let devices = sessions.device_names(session);
            say(LogLevel::Quiet, &session.summary(&devices));
            for line in session.profile() {
                say(LogLevel::Quiet, &line);
            }
        }
    }
    if settings().print_profile {
        let waits = sessions.iter().flat_map(Session::profile);
        profile::tell(&waits.collect::<Vec<_>>());
    }
}
