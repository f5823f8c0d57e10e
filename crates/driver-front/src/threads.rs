//! Good manners of a library in other people's threads, and in threads of its own.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

extern "C" {
    fn pthread_setcancelstate(state: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
}

/// `PTHREAD_CANCEL_DISABLE` of Linux's C libraries.
const CANCEL_DISABLE: libc::c_int = 1;

/// While it lives, `pthread_cancel` does not end the calling thread: cancellation unwinds the stack
/// from inside a system call, which no Rust frame survives, and would leave locks taken. The thread
/// ends at its next cancellation point after that, as if the call had been uninterruptible.
#[must_use]
#[derive(Debug)]
pub struct Uncancelled {
    before: libc::c_int,
    /// It belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl Uncancelled {
    /// Holds cancellation back from now on.
    #[allow(clippy::new_without_default)] // it acts
    pub fn new() -> Self {
        let mut before = 0;
        // SAFETY: the pointer is to a local; the call has no other conditions.
        unsafe { pthread_setcancelstate(CANCEL_DISABLE, &mut before) };
        Self {
            before,
            not_send: PhantomData,
        }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut ignored = 0;
        // SAFETY: as above; the state is the one that was found.
        unsafe { pthread_setcancelstate(self.before, &mut ignored) };
    }
}

/// Starts a thread of the driver's own. It handles no signals: they belong to the program's threads.
///
/// # Errors
/// As the system's, where the process may have no more threads.
pub fn start_thread(
    name: impl Into<String>,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::Thread> {
    let builder = std::thread::Builder::new().name(name.into());
    let started = with_signals_blocked(|| builder.spawn(body));
    started.map(|handle| handle.thread().clone())
}

/// Says once per process that a thread could not be started, and what that means.
pub fn no_thread(error: &std::io::Error, consequence: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        crate::notice(&format!(
            "this process may start no more threads ({error}): {consequence}; raise `ulimit -u` or \
             the container's limit of processes"
        ));
    }
}

fn with_signals_blocked<T>(act: impl FnOnce() -> T) -> T {
    // SAFETY: plain signal-mask calls on local storage.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = act();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancellation_is_held_back_and_given_free_again() {
        let state = || {
            let mut before = -1;
            // SAFETY: as in `Uncancelled::new`, and back.
            unsafe {
                pthread_setcancelstate(CANCEL_DISABLE, &mut before);
                pthread_setcancelstate(before, &mut 0);
            }
            before
        };
        let found = state();
        {
            let _outer = Uncancelled::new();
            assert_eq!(state(), CANCEL_DISABLE);
            drop(Uncancelled::new());
            assert_eq!(state(), CANCEL_DISABLE);
        }
        assert_eq!(state(), found);
    }

    #[test]
    fn a_thread_of_our_own_handles_no_signals() {
        let (tell, hear) = std::sync::mpsc::channel();
        start_thread("test", move || {
            // SAFETY: reads this thread's mask into local storage.
            let blocked = unsafe {
                let mut mask: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut mask);
                libc::sigismember(&mask, libc::SIGALRM)
            };
            tell.send(blocked).unwrap();
        })
        .unwrap();
        assert_eq!(hear.recv(), Ok(1));
    }
}
