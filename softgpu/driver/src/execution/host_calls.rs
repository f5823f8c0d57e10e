//! Functions of the program that run in stream order (`cuLaunchHostFunc`, `cuStreamAddCallback`).
//!
//! They run on one thread of their own: they may block for as long as they like, and the threads
//! that execute kernels must not wait for them. CUDA calls from inside one are refused.

use core::ffi::c_void;
use std::cell::Cell;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use harp_cuda_abi::types::{CUresult, CUstream, CUDA_ERROR_NOT_PERMITTED};
use harp_driver_front::threads::{no_thread, start_thread};

use super::queue::Queue;
use crate::call::Outcome;
use crate::console::Fifo;

/// What the program wants called.
#[derive(Clone, Copy)]
pub enum HostFunction {
    /// `cuLaunchHostFunc`: not called once the context has failed.
    Plain(unsafe extern "C" fn(*mut c_void)),
    /// `cuStreamAddCallback`: called in any case, with the stream's state.
    Callback(unsafe extern "C" fn(CUstream, CUresult, *mut c_void), usize),
}

/// A call to make.
pub struct HostCall {
    pub function: HostFunction,
    pub argument: usize,
    /// What kernels before it have printed, which is shown before the call is made.
    pub printed: Arc<Fifo>,
}

impl HostCall {
    /// Makes the call; `status` is the state of its context.
    fn make(self, status: CUresult) {
        self.printed.flush();
        let argument = self.argument as *mut c_void;
        match self.function {
            // SAFETY: the program registered the function for exactly this argument.
            HostFunction::Plain(function) if status == 0 => unsafe { function(argument) },
            HostFunction::Plain(_) => {}
            HostFunction::Callback(function, stream) => {
                // SAFETY: as above.
                unsafe { function(stream as CUstream, status, argument) }
            }
        }
    }
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is running one of the program's functions.
pub fn inside() -> bool {
    INSIDE.get()
}

/// Refuses a call that such a function makes.
///
/// # Errors
/// `CUDA_ERROR_NOT_PERMITTED`
pub fn check() -> Outcome {
    if inside() {
        Err(CUDA_ERROR_NOT_PERMITTED)
    } else {
        Ok(())
    }
}

type Job = (HostCall, Arc<Queue>);

/// Hands a call over; `queue` goes on when it has returned.
pub fn hand_over(call: HostCall, queue: Arc<Queue>) {
    /// None where the process may have no such thread.
    static JOBS: LazyLock<Option<Mutex<Sender<Job>>>> = LazyLock::new(|| {
        let (sender, receiver) = channel();
        match start_thread("harp-host-calls", move || serve(&receiver)) {
            Ok(_) => Some(Mutex::new(sender)),
            Err(error) => {
                no_thread(
                    &error,
                    "host functions hold up the kernels of other streams",
                );
                None
            }
        }
    });
    match &*JOBS {
        Some(jobs) => {
            let sent = jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .send((call, queue));
            assert!(sent.is_ok(), "the thread never ends");
        }
        None => make((call, queue)),
    }
}

fn serve(receiver: &Receiver<Job>) {
    for job in receiver {
        make(job);
    }
}

fn make((call, queue): Job) {
    let outside = INSIDE.replace(true);
    call.make(queue.fault());
    INSIDE.set(outside);
    queue.go_on_elsewhere();
}
