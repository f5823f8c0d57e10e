//! One client's session: its state, and the loop that executes its calls in order.
//!
//! | file | holds |
//! |---|---|
//! | `handles`, `id_map` | which driver object each client handle stands for |
//! | `client_threads` | the current context and default stream of each client thread |
//! | `blobs` | module images while they arrive |
//! | `cache` | pieces that need not be sent, and those to be kept |
//! | `callbacks` | the program's functions in streams |
//! | `jit` | compiler options and messages |
//! | `image` | device code as the driver takes it |
//! | `intake` | frames from the client, cut into records |
//! | `staging` | page-locked buffers of large copies |
//! | `device_times` | how long launches and copies take, where the client asks |
//! | `downloads` | large copies to the client, beside the loop |
//! | `landings` | copies to the client that nobody waits for |
//! | `reached` | device memory that this process reaches |
//! | `recording` | a trace of the session |
//! | `replies` | the shared way back, and errors that wait for a reply to carry them |
//! | `waits` | calls that may block for long |
//! | `engine` | the loop |
//! | `twins` | memory that kernels share with the program |
//! | `relay` | which thread runs the loop while another is blocked in a wait |
//! | `tending` | the thread that tells what nobody waits for |
//! | `watches` | events that the client wants to hear of |
//! | `ending` | statistics, and the one way out of the process |

mod blobs;
mod cache;
mod callbacks;
mod client_threads;
pub mod device_times;
mod downloads;
mod ending;
mod engine;
mod handles;
mod id_map;
mod image;
mod intake;
mod jit;
mod landings;
mod reached;
pub mod recording;
mod relay;
mod replies;
mod staging;
mod tending;
mod twins;
mod violation;
mod waits;
mod watches;

pub use blobs::Blobs;
pub use cache::Cache;
pub use ending::Ending;
pub use engine::{lead, Engine, Shared};
pub use handles::{Found, HandleTable};
pub use id_map::IdMap;
pub use image::{Image, KeptImages};
pub use intake::{Intake, Stopped};
pub use jit::{JitLogs, JitOptions};
pub use reached::Reached;
pub use relay::Relay;
pub use replies::Replies;
pub use staging::{Buffer as Staged, Staging, Uploads, BUFFER_BYTES};
pub use twins::reserve as reserve_twins;
pub use violation::Violation;
pub use waits::Wait;
pub use watches::Line;

use std::collections::HashMap;
use std::sync::Arc;

use harp_cuda_abi::types::{CUcontext, CUdevice, CUevent, CUresult, CUDA_ERROR_INVALID_DEVICE};

use callbacks::Callbacks;
use client_threads::{ClientThreads, ThreadStreams};
use twins::Twins;

use crate::calls::Launches;
use crate::generated::driver::Driver;

/// What a call may read and change while it is executed.
pub struct Session {
    pub driver: &'static Driver,
    /// The driver's numbers of the session's devices.
    devices: Vec<CUdevice>,
    /// Devices whose primary contexts the worker has made before anybody asked for them, and still holds.
    pub contexts: Vec<CUdevice>,
    pub handles: HandleTable,
    pub threads: ClientThreads,
    pub blobs: Blobs,
    pub cache: Cache,
    pub launches: Launches,
    /// What libraries were loaded from, by library handle.
    pub images: KeptImages,
    /// Compiler messages of each client thread's last load or link.
    pub logs: HashMap<u32, JitLogs>,
    /// Options of running links, by link handle: the driver writes messages to their buffers.
    pub link_options: IdMap<JitOptions>,
    pub callbacks: Arc<Callbacks>,
    pub replies: Arc<Replies>,
    pub twins: Twins,
    pub staging: Staging,
    pub uploads: Uploads,
    /// Set by a call that has to wait for the device: its reply follows when the wait is over.
    pub wait: Option<Wait>,
}

// SAFETY: `launches` holds nothing that is used between calls; everything else is Send.
unsafe impl Send for Session {}

impl Session {
    /// A session with those of the driver's devices, in this order.
    pub fn new(
        driver: &'static Driver,
        devices: Vec<CUdevice>,
        replies: Arc<Replies>,
        cache: Cache,
    ) -> Self {
        Self {
            driver,
            devices,
            contexts: Vec::new(),
            handles: HandleTable::new(ThreadStreams::new(driver)),
            threads: ClientThreads::new(),
            blobs: Blobs::default(),
            cache,
            launches: Launches::default(),
            images: KeptImages::default(),
            logs: HashMap::new(),
            link_options: IdMap::default(),
            callbacks: Callbacks::new(replies.clone()),
            replies,
            twins: Twins::default(),
            staging: Staging::default(),
            uploads: Uploads::default(),
            wait: None,
        }
    }

    /// The driver's number of a device of the session.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_DEVICE`, as from a driver that has no other devices.
    pub fn device(&self, number: CUdevice) -> Result<CUdevice, CUresult> {
        let known = usize::try_from(number)
            .ok()
            .and_then(|index| self.devices.get(index));
        known.copied().ok_or(CUDA_ERROR_INVALID_DEVICE)
    }

    /// Whether the client may have something to say that is not to wait for a stream: what its other threads do, or that
    /// a host function has returned.
    pub fn has_others(&self) -> bool {
        self.threads.count() > 1 || self.callbacks.any()
    }

    /// The call waits, and is answered when that is over.
    pub fn wait_for(&mut self, wait: Wait) -> Result<CUresult, Violation> {
        self.wait = Some(wait);
        Ok(0)
    }

    /// The client thread that is being served has made `context` current.
    pub fn set_context(&mut self, context: CUcontext) {
        self.threads.set_context(context);
        self.handles
            .thread_streams
            .enter(self.threads.thread(), context);
    }

    /// Has the client told when an event's last record has completed.
    pub fn watch_event(&mut self, event: CUevent, number: u64) -> Result<(), Violation> {
        self.replies.watch(self.threads.context(), event, number)
    }

    /// Makes everything per-thread that of client thread `thread`, in the driver too.
    #[inline]
    pub fn enter(&mut self, thread: u32) -> Result<(), Violation> {
        if self.threads.enter(thread)? {
            self.handles
                .thread_streams
                .enter(thread, self.threads.context());
        }
        self.threads.apply(self.driver);
        Ok(())
    }
}
