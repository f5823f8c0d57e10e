//! Contexts that are idle: the device has done all that it was given in them, and nothing needs to wait for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_cuda_abi::types::*;

use super::{sessions, Session};
use crate::generated::forward;

/// The context that was idle, and after how many calls that was so: any later one may have given
/// the device work.
#[derive(Default)]
pub struct Idle(Mutex<Option<(u64, u64)>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A context of a session was idle, and no call has been made since.
pub struct StillIdle {
    context: u64,
    calls: u64,
}

impl Session {
    /// Waits until the device has done all that it was given in `context`, the current one: `cuCtxSynchronize`.
    pub fn wait_until_idle(&self, context: u64) -> CUresult {
        let calls = self.outgoing.appended();
        self.stays_idle(StillIdle { context, calls }, || unsafe {
            forward::cuCtxSynchronize()
        })
    }

    /// Whether the device has done all that it was given in a context, as far as is known here.
    pub fn idle(&self, context: u64) -> Option<StillIdle> {
        self.alive().ok()?;
        self.check_fault().ok()?;
        let calls = self.outgoing.appended();
        let known = *self.idle.lock() == Some((context, calls));
        known.then_some(StillIdle { context, calls })
    }

    /// Makes one call that gives the device no work: an idle context stays so, unless other threads have made
    /// calls meanwhile.
    pub fn stays_idle(&self, still: StillIdle, call: impl FnOnce() -> CUresult) -> CUresult {
        let StillIdle { context, calls } = still;
        let status = call();
        // Twins of a context, on other servers, have an order of their own.
        let alone = sessions().is_ok_and(|sessions| !sessions.several());
        if status == CUDA_SUCCESS && alone && self.outgoing.appended() == calls + 1 {
            *self.idle.lock() = Some((context, calls + 1));
        }
        status
    }
}
