//! Where a driver is in the life of its process.
//!
//! Threads and connections do not survive `fork`, so a child of an initialised parent gets
//! `CUDA_ERROR_NOT_INITIALIZED` from every call, as from a real driver. A child of a parent that
//! never initialised may start for itself. After [`finish`] every call gets
//! `CUDA_ERROR_DEINITIALIZED`: runtimes call in from exit handlers and must not hang there.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::Once;

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_DEINITIALIZED, CUDA_ERROR_NOT_INITIALIZED};

const FRESH: u8 = 0;
const RUNNING: u8 = 1;
const FORKED: u8 = 2;
const FINISHED: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(FRESH);

/// Whether calls that need an initialised driver may go on.
///
/// # Errors
/// `CUDA_ERROR_NOT_INITIALIZED` before [`start`] and in a forked child, `CUDA_ERROR_DEINITIALIZED`
/// after [`finish`].
#[inline]
pub fn check() -> Result<(), CUresult> {
    match STATE.load(Ordering::Acquire) {
        RUNNING => Ok(()),
        FINISHED => Err(CUDA_ERROR_DEINITIALIZED),
        _ => Err(CUDA_ERROR_NOT_INITIALIZED),
    }
}

/// Marks the driver as initialised; again is harmless.
///
/// # Errors
/// As for [`check`] in a forked child and after [`finish`].
pub fn start() -> Result<(), CUresult> {
    static WATCH_FORKS: Once = Once::new();
    WATCH_FORKS.call_once(|| {
        // SAFETY: the handler only stores to an atomic. A failure (no memory) loses the child's
        // error code and nothing else.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    let _ = STATE.compare_exchange(FRESH, RUNNING, Ordering::AcqRel, Ordering::Acquire);
    check()
}

/// Marks the driver as shut down for good.
pub fn finish() {
    STATE.store(FINISHED, Ordering::Release);
}

/// Whether this process is the forked child of an initialised parent.
pub fn forked() -> bool {
    STATE.load(Ordering::Acquire) == FORKED
}

unsafe extern "C" fn in_child() {
    let _ = STATE.compare_exchange(RUNNING, FORKED, Ordering::AcqRel, Ordering::Acquire);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test for the whole life: the state belongs to the process.
    #[test]
    fn from_fresh_over_fork_to_finished() {
        assert_eq!(check(), Err(CUDA_ERROR_NOT_INITIALIZED));
        assert_eq!(start(), Ok(()));
        assert_eq!(start(), Ok(()));
        // SAFETY: the child makes no allocation and leaves with _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let refused = start() == Err(CUDA_ERROR_NOT_INITIALIZED) && forked();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: waits for the child above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        assert!(!forked());
        finish();
        assert_eq!(check(), Err(CUDA_ERROR_DEINITIALIZED));
        assert_eq!(start(), Err(CUDA_ERROR_DEINITIALIZED));
    }
}
