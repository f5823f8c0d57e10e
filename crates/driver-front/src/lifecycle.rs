//! Where a driver is in the life of its process.
//!
//! Threads and connections do not survive `fork`, so a child of an initialised parent gets
//! `CUDA_ERROR_NOT_INITIALIZED` from every call, `cuInit` included, as from a real driver. A child
//! of a parent that never initialised may start for itself. After exit handlers have run every call
//! gets `CUDA_ERROR_DEINITIALIZED`: runtimes call in from handlers of their own and must not hang.
//!
//! A child is recognised in two ways: by a handler of `pthread_atfork`, registered when the library
//! is loaded, so that no fork comes too early for it; and by a page that the kernel wipes in every
//! child, for those that were made without the handlers (`_Fork`, `clone`). Nothing here waits for
//! a lock: in a child whoever held it is gone.

use core::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_DEINITIALIZED, CUDA_ERROR_NOT_INITIALIZED};
use once_cell::race::OnceBox;

const FRESH: u8 = 0;
/// A thread is in `cuInit`.
const STARTING: u8 = 1;
const RUNNING: u8 = 2;
const FORKED: u8 = 3;
const FINISHED: u8 = 4;

static STATE: AtomicU8 = AtomicU8::new(FRESH);

/// What a driver has to do when its process forks or ends.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// In a forked child. It may be told more than once, and only async-signal-safe calls are
    /// allowed. With `initialised` the parent had called `cuInit`; otherwise the child may start.
    pub forked: fn(initialised: bool),
    /// When exit handlers run, in the process itself and never in a forked child.
    pub over: fn(),
}

static HOOKS: OnceBox<Hooks> = OnceBox::new();

/// Calls that answer whatever the state: codes, addresses and the driver's version.
pub const ANSWERED_ALWAYS: [&str; 6] = [
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGetExportTable",
    "cuGetProcAddress",
    "cuGetProcAddress_v2",
];

/// Whether calls that need an initialised driver may go on.
///
/// # Errors
/// `CUDA_ERROR_NOT_INITIALIZED` before [`start`] and in a forked child, `CUDA_ERROR_DEINITIALIZED`
/// once the process is ending.
#[inline]
pub fn check() -> Result<(), CUresult> {
    if STATE.load(Ordering::Acquire) == RUNNING && !is_copy() {
        Ok(())
    } else {
        Err(refusal())
    }
}

/// Whether the exported call `name` may go on to the driver.
///
/// # Errors
/// As for [`check`], also for `cuInit` where it cannot start the driver any more.
#[inline]
pub fn admit(name: &str) -> Result<(), CUresult> {
    if STATE.load(Ordering::Acquire) == RUNNING && !is_copy() {
        Ok(())
    } else {
        admit_otherwise(name)
    }
}

#[cold]
fn admit_otherwise(name: &str) -> Result<(), CUresult> {
    let code = refusal();
    if ANSWERED_ALWAYS.contains(&name) {
        return Ok(());
    }
    match STATE.load(Ordering::Acquire) {
        RUNNING => Ok(()),
        FRESH | STARTING if name == "cuInit" => Ok(()),
        FORKED if name == "cuInit" => {
            explain_once();
            Err(code)
        }
        _ => Err(code),
    }
}

#[cold]
fn refusal() -> CUresult {
    notice_copy();
    match STATE.load(Ordering::Acquire) {
        FINISHED => CUDA_ERROR_DEINITIALIZED,
        _ => CUDA_ERROR_NOT_INITIALIZED,
    }
}

/// A program that calls `cuInit` in a child wants to know why it fails. Programs that merely end
/// there, with objects that free device memory, hear nothing.
fn explain_once() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        crate::notice(
            "this process was forked from one that had initialised CUDA, and gets \
             CUDA_ERROR_NOT_INITIALIZED as from any driver: fork before the first use of CUDA, or \
             start processes afresh (Python: the start methods spawn and forkserver)",
        );
    }
}

/// Says what the driver does when the process forks or ends; to be called before anything is set up
/// that a child must not touch. Again is harmless.
pub fn watch(hooks: Hooks) {
    let _ = HOOKS.set(Box::new(hooks));
    mark_process();
    watch_exit();
}

/// `cuInit` begins: a child that is forked from now on is one of an initialised parent.
///
/// # Errors
/// As for [`check`] in a forked child and once the process is ending.
pub fn starting() -> Result<(), CUresult> {
    notice_copy();
    crate::quiet(); // a child may have to know, and a handler of forks must not be the first to ask
    let _ = STATE.compare_exchange(FRESH, STARTING, Ordering::AcqRel, Ordering::Acquire);
    match STATE.load(Ordering::Acquire) {
        STARTING | RUNNING => {
            mark_process();
            Ok(())
        }
        _ => Err(refusal()),
    }
}

/// `cuInit` has failed: the process is as before it.
pub fn start_failed() {
    let _ = STATE.compare_exchange(STARTING, FRESH, Ordering::AcqRel, Ordering::Acquire);
}

/// Marks the driver as initialised; again is harmless.
///
/// # Errors
/// As for [`check`] in a forked child and once the process is ending.
pub fn start() -> Result<(), CUresult> {
    starting()?;
    watch_exit();
    let _ = STATE.compare_exchange(STARTING, RUNNING, Ordering::AcqRel, Ordering::Acquire);
    check()
}

/// Marks the driver as shut down for good, except in a forked child, which stays one.
pub fn finish() {
    notice_copy();
    if !forked() {
        STATE.store(FINISHED, Ordering::Release);
    }
}

/// Whether exit handlers have run.
pub fn finished() -> bool {
    STATE.load(Ordering::Acquire) == FINISHED
}

/// Whether this process is the forked child of an initialised parent.
pub fn forked() -> bool {
    notice_copy();
    STATE.load(Ordering::Acquire) == FORKED
}

/// Registered when the library is loaded; a failure (no memory) leaves the wiped page.
#[used]
#[link_section = ".init_array"]
static WATCH_FORKS: extern "C" fn() = {
    extern "C" fn watch_forks() {
        // SAFETY: the handler is a function of this library, which stays loaded.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
    watch_forks
};

unsafe extern "C" fn in_child() {
    let initialised = match STATE.load(Ordering::Acquire) {
        STARTING | RUNNING => {
            STATE.store(FORKED, Ordering::Release);
            true
        }
        FRESH => false,
        _ => return,
    };
    if let Some(hooks) = HOOKS.get() {
        (hooks.forked)(initialised);
    }
}

/// Points to a byte that is not zero in the process that wrote it.
static MARK: AtomicPtr<AtomicU8> = AtomicPtr::new(null_mut());

/// Whether this process is a copy of the one that used the driver first.
#[inline]
pub fn is_copy() -> bool {
    let mark = MARK.load(Ordering::Acquire);
    // SAFETY: the page is never unmapped.
    !mark.is_null() && unsafe { &*mark }.load(Ordering::Relaxed) == 0
}

fn notice_copy() {
    if is_copy() {
        // SAFETY: has no preconditions; it does again what `pthread_atfork` may have had done.
        unsafe { in_child() };
    }
}

fn mark_process() {
    let mut mark = MARK.load(Ordering::Acquire);
    if mark.is_null() {
        mark = wiped_page();
        if mark.is_null() {
            return; // the handler of `pthread_atfork` alone has to do
        }
        // Two threads at a time may each make a page, of which one stays unused.
        let _ = MARK.compare_exchange(null_mut(), mark, Ordering::AcqRel, Ordering::Acquire);
        mark = MARK.load(Ordering::Acquire);
    }
    // SAFETY: the page is writable and never unmapped.
    unsafe { &*mark }.store(1, Ordering::Relaxed);
}

/// A page that reads as zero in every child; null where the kernel has no such thing.
fn wiped_page() -> *mut AtomicU8 {
    const PAGE: usize = 4096;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, advice about it, and its removal where the advice is not understood.
    unsafe {
        let page = libc::mmap(null_mut(), PAGE, access, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return null_mut();
        }
        if libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(page, PAGE);
            return null_mut();
        }
        // Not zero before anybody can see it.
        page.cast::<AtomicU8>().write(AtomicU8::new(1));
        page.cast()
    }
}

/// Handlers run in reverse: what the program registers after it has first used CUDA can use it
/// still, what it registered before gets `CUDA_ERROR_DEINITIALIZED`.
fn watch_exit() {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    extern "C" fn at_exit() {
        if forked() || finished() {
            return;
        }
        finish();
        if let Some(hooks) = HOOKS.get() {
            (hooks.over)();
        }
    }
    if !WATCHED.swap(true, Ordering::AcqRel) {
        // SAFETY: a plain function of this library, which stays loaded.
        unsafe { libc::atexit(at_exit) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a child with `fork`, ends it with whether `holds`, and says what it found.
    fn in_a_child(fork: impl Fn() -> libc::pid_t, holds: impl Fn() -> bool) -> bool {
        let child = fork();
        if child == 0 {
            let code = i32::from(!holds());
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        assert!(child > 0);
        let mut status = -1;
        // SAFETY: waits for the child above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        status == 0
    }

    fn fork() -> libc::pid_t {
        // SAFETY: the child makes no allocation and leaves with _exit.
        unsafe { libc::fork() }
    }

    /// A fork that runs no handlers, as sandboxes and other languages' runtimes make it.
    fn bare_fork() -> libc::pid_t {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_fork) as libc::pid_t }
    }

    fn refuses_everything() -> bool {
        let not_initialised = Err(CUDA_ERROR_NOT_INITIALIZED);
        admit("cuMemAlloc_v2") == not_initialised
            && check() == not_initialised
            && start() == not_initialised
            && starting() == not_initialised
            && admit("cuDriverGetVersion") == Ok(())
            && forked()
    }

    /// One test for the whole life: the state belongs to the process.
    #[test]
    fn from_fresh_over_fork_to_finished() {
        assert_eq!(check(), Err(CUDA_ERROR_NOT_INITIALIZED));
        assert_eq!(admit("cuMemAlloc_v2"), Err(CUDA_ERROR_NOT_INITIALIZED));
        assert_eq!(admit("cuInit"), Ok(()));
        assert!(in_a_child(fork, || start() == Ok(())));
        assert_eq!(starting(), Ok(()));
        assert!(in_a_child(fork, refuses_everything));
        assert!(in_a_child(bare_fork, refuses_everything));
        start_failed();
        assert!(in_a_child(bare_fork, || start() == Ok(()) && !forked()));
        assert_eq!(start(), Ok(()));
        assert_eq!(start(), Ok(()));
        assert_eq!(admit("cuMemAlloc_v2"), Ok(()));
        for fork in [fork, bare_fork] {
            assert!(in_a_child(fork, refuses_everything));
            assert!(in_a_child(fork, || in_a_child(fork, refuses_everything)));
        }
        assert!(!forked());
        assert!(in_a_child(fork, || {
            finish();
            refuses_everything()
        }));
        finish();
        assert_eq!(check(), Err(CUDA_ERROR_DEINITIALIZED));
        assert_eq!(start(), Err(CUDA_ERROR_DEINITIALIZED));
        assert_eq!(admit("cuInit"), Err(CUDA_ERROR_DEINITIALIZED));
        assert_eq!(admit("cuGetErrorName"), Ok(()));
    }
}
