//! The thread that tells the client what nobody else's frame has told it: that an event which it watches has completed,
//! and the bytes of copies that have landed. It is there from the first of them on, and looks as long as some are open.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use harp_cuda_abi::types::CUcontext;

use super::replies::Replies;
use crate::generated::driver::Driver;

/// The thread looks this often, and after every time without success half as often as before, down to the second.
pub const PAUSE: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);

#[derive(Default)]
struct State {
    is_there: bool,
    /// It looks for nothing.
    is_idle: bool,
    /// What is to be sent behind all that there is to tell then.
    frames: Vec<Vec<u8>>,
}

#[derive(Default)]
pub struct Tending {
    state: Mutex<State>,
    more: Condvar,
}

impl Tending {
    /// Starts the thread where there is none, which asks the driver in `context`; false where there can be none.
    pub fn start(
        &self,
        driver: &'static Driver,
        replies: &Arc<Replies>,
        context: CUcontext,
    ) -> bool {
        let mut state = self.lock();
        if !state.is_there {
            let (replies, context) = (replies.clone(), context as usize);
            let thread = thread::Builder::new().name("tending".to_owned());
            let started = thread.spawn(move || {
                // SAFETY: a context of the session; where it is gone the driver says so to whoever asks.
                unsafe { (driver.cuCtxSetCurrent)(context as CUcontext) };
                replies.tending.tend(&replies)
            });
            state.is_there = started.is_ok();
        }
        state.is_there
    }

    /// There is something more to look for, which [`Replies::open`] counts already.
    pub fn look(&self) {
        if self.lock().is_idle {
            self.more.notify_one();
        }
    }

    /// Has the thread send a frame behind all that there is to tell by then.
    pub fn hand_over(&self, frame: &[u8]) {
        self.lock().frames.push(frame.to_owned());
        self.more.notify_one();
    }

    fn tend(&self, replies: &Replies) -> ! {
        let mut pause = PAUSE;
        loop {
            let mut state = self.lock();
            while state.frames.is_empty() && replies.open() == 0 {
                state.is_idle = true;
                let woken = self.more.wait(state);
                state = woken.unwrap_or_else(|poison| poison.into_inner());
                pause = PAUSE;
            }
            state.is_idle = false;
            if state.frames.is_empty() {
                let waited = self.more.wait_timeout(state, pause);
                state = waited.unwrap_or_else(|poison| poison.into_inner()).0;
            }
            let frames = std::mem::take(&mut state.frames);
            drop(state);
            let before = replies.open();
            replies.send_completed();
            for frame in frames {
                // If the client is gone, whoever reads from it ends the session.
                let _ = replies.send(&frame);
            }
            pause = match replies.open() {
                now if now < before => PAUSE,
                _ => (pause * 2).min(PAUSE_MAX),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}
