//! The program's host functions in streams: the server says when a stream has reached one, a
//! thread of this process runs it, and the server is told that the stream may go on.
//!
//! A function is known to the server by a number that this client made and that is good once, so
//! a hostile server can neither call what it likes nor call anything twice.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use harp_cuda_abi::types::*;
use harp_wire::calls::encode_harp_callback_done;
use harp_wire::CallId;

use super::Session;

/// What a program queued.
#[derive(Clone, Copy)]
pub enum HostFunction {
    /// `cuLaunchHostFunc`.
    Plain {
        function: unsafe extern "C" fn(*mut c_void),
        data: usize,
    },
    /// `cuStreamAddCallback`: also told the stream and how it fares.
    WithStatus {
        function: unsafe extern "C" fn(CUstream, CUresult, *mut c_void),
        stream: usize,
        data: usize,
    },
}

/// The host functions that have not run yet.
#[derive(Default)]
pub struct Callbacks {
    last: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queued: HashMap<u64, HostFunction>,
    /// Reached by their streams, in that order.
    reached: VecDeque<(u64, HostFunction, CUresult)>,
    /// The contexts of all that have not returned.
    contexts: HashMap<u64, u64>,
}

impl Callbacks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    /// Gives a function in a stream of that context its number.
    pub fn queue(&self, function: HostFunction, context: u64) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut state = self.lock();
        state.queued.insert(number, function);
        state.contexts.insert(number, context);
        number
    }

    /// Forgets a function that the server did not take.
    pub fn forget(&self, number: u64) {
        let mut state = self.lock();
        state.queued.remove(&number);
        state.contexts.remove(&number);
    }

    /// A stream has reached a function.
    ///
    /// # Errors
    /// A sentence, when there is no such function or it was reached before.
    pub fn reached(&self, number: u64, status: CUresult) -> Result<(), String> {
        let mut state = self.lock();
        let function = state.queued.remove(&number).ok_or_else(|| {
            format!("the server called a host function that was not queued ({number})")
        })?;
        state.reached.push_back((number, function, status));
        Ok(())
    }

    /// Whether any function may still have to run.
    pub fn any(&self) -> bool {
        !self.lock().contexts.is_empty()
    }

    /// The contexts in whose streams functions may still have to run.
    pub fn contexts(&self) -> HashSet<u64> {
        self.lock().contexts.values().copied().collect()
    }

    /// Whether a function waits to be run.
    pub fn any_reached(&self) -> bool {
        !self.lock().reached.is_empty()
    }

    /// Runs the functions of a session that have been reached, one after the other.
    pub fn run_reached(&self, session: &Session) {
        loop {
            let next = self.lock().reached.pop_front();
            let Some((number, function, status)) = next else {
                return;
            };
            // The function may look at what kernels before it have written, and write for those after it.
            session.pull_twins();
            // SAFETY: the program gave the function and its data to be called like this, once.
            unsafe {
                match function {
                    HostFunction::Plain { function, data } => function(data as *mut c_void),
                    HostFunction::WithStatus {
                        function,
                        stream,
                        data,
                    } => {
                        function(stream as CUstream, status, data as *mut c_void);
                    }
                }
            }
            if super::life::is_over() {
                return; // the locks of this module may be another process's
            }
            session.push_twins();
            session.tell(CallId::harp_callback_done, |encoder| {
                encode_harp_callback_done(encoder, number);
            });
            session.flush();
            self.lock().contexts.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn nothing(_: *mut c_void) {}

    const NOTHING: HostFunction = HostFunction::Plain {
        function: nothing,
        data: 0,
    };

    #[test]
    fn a_function_is_reached_once_and_only_if_it_was_queued() {
        let callbacks = Callbacks::default();
        assert!(!callbacks.any());
        let number = callbacks.queue(NOTHING, 7);
        assert!(callbacks.any() && !callbacks.any_reached());
        assert!(callbacks.reached(number + 1, CUDA_SUCCESS).is_err());
        assert_eq!(callbacks.reached(number, CUDA_SUCCESS), Ok(()));
        assert!(callbacks.any_reached());
        assert!(callbacks.reached(number, CUDA_SUCCESS).is_err());
    }

    #[test]
    fn a_forgotten_function_is_never_reached() {
        let callbacks = Callbacks::default();
        let number = callbacks.queue(NOTHING, 7);
        assert_eq!(callbacks.contexts(), HashSet::from([7]));
        callbacks.forget(number);
        assert!(!callbacks.any());
        assert!(callbacks.reached(number, CUDA_SUCCESS).is_err());
    }
}
