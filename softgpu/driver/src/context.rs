//! Contexts: what a program's memory, streams and modules belong to.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use harp_cuda_abi::types::*;
use harp_driver_front::{context_stack, context_storage, lifecycle};

use crate::call::Outcome;
use crate::console::{self, Fifo};
use crate::device::Device;
use crate::execution::busy::Busy;
use crate::execution::command::Marker;
use crate::execution::host_calls;
use crate::execution::queue::Queue;
use crate::handles::{handle_of, Registry};
use crate::memory::host;
use crate::settings::settings;
use crate::stream::{self, Stream};
use crate::{event, module};

/// Live contexts; a primary context is one for ever, active or not.
pub static CONTEXTS: Registry<Context> = Registry::new();

/// Flags that `cuCtxCreate` and `cuDevicePrimaryCtxSetFlags` know.
const KNOWN_FLAGS: u32 = CU_CTX_FLAGS_MASK;

/// One context.
pub struct Context {
    /// Unique in this process, not 0 (`cuCtxGetId`).
    pub id: u64,
    pub device: &'static Device,
    pub primary: bool,
    flags: AtomicU32,
    /// Retains of a primary context; 1 for a live context of `cuCtxCreate`.
    retains: AtomicUsize,
    /// Whether it can be used: a primary context from its first retain, and after a reset from the next.
    active: AtomicBool,
    /// The default stream of the process in this context.
    pub legacy: Arc<Stream>,
    /// Queues of its streams that have work; the legacy stream's is not among them.
    busy: Arc<Busy>,
    limits: Mutex<[usize; CU_LIMIT_MAX as usize]>,
    /// What its kernels have printed.
    pub printed: Arc<Fifo>,
    cache_config: AtomicU32,
    shared_config: AtomicU32,
}

impl Context {
    /// A context that is not yet known by a handle.
    fn new(device: &'static Device, primary: bool, flags: u32) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new_cyclic(|context| Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            device,
            primary,
            flags: AtomicU32::new(flags),
            retains: AtomicUsize::new(usize::from(!primary)),
            active: AtomicBool::new(!primary),
            legacy: Stream::legacy(context.clone(), Queue::new(device.fault.clone())),
            busy: Arc::default(),
            limits: Mutex::new(default_limits()),
            printed: Arc::new(Fifo::new()),
            cache_config: AtomicU32::new(CU_FUNC_CACHE_PREFER_NONE),
            shared_config: AtomicU32::new(CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE),
        })
    }

    /// The primary context of a device, made once.
    pub fn primary_of(device: &'static Device) -> Arc<Self> {
        let context = Self::new(device, true, 0);
        CONTEXTS.insert::<CUctx_st>(context.clone());
        context
    }

    /// `cuCtxCreate`.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for unknown flags, or the device's sticky error.
    pub fn create(device: &'static Device, flags: u32) -> Outcome<Arc<Self>> {
        check_flags(flags)?;
        device.check_fault()?;
        device.announce();
        let context = Self::new(device, false, flags);
        CONTEXTS.insert::<CUctx_st>(context.clone());
        Ok(context)
    }

    /// The handle of this context.
    pub fn handle(self: &Arc<Self>) -> CUcontext {
        handle_of(self)
    }

    /// The current context of the calling thread, fit for use.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_INITIALIZED`, `CUDA_ERROR_DEINITIALIZED`, `CUDA_ERROR_NOT_PERMITTED` inside a
    /// host function, `CUDA_ERROR_INVALID_CONTEXT` where none is current,
    /// `CUDA_ERROR_CONTEXT_IS_DESTROYED` where it is gone or inactive, or its sticky error.
    pub fn current() -> Outcome<Arc<Self>> {
        lifecycle::check()?;
        host_calls::check()?;
        let handle = context_stack::current();
        if handle.is_null() {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        let context = CONTEXTS
            .get(handle)
            .ok_or(CUDA_ERROR_CONTEXT_IS_DESTROYED)?;
        context.usable()?;
        Ok(context)
    }

    /// The context that a handle names.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_CONTEXT` where it names none; as [`lifecycle::check`].
    pub fn get(handle: CUcontext) -> Outcome<Arc<Self>> {
        lifecycle::check()?;
        CONTEXTS.get(handle).ok_or(CUDA_ERROR_INVALID_CONTEXT)
    }

    /// As [`Context::get`], where null means the current context.
    ///
    /// # Errors
    /// As for [`Context::get`] and [`Context::current`].
    pub fn get_or_current(handle: CUcontext) -> Outcome<Arc<Self>> {
        if handle.is_null() {
            return Self::current();
        }
        let context = Self::get(handle)?;
        context.usable()?;
        Ok(context)
    }

    /// Whether it can be used: it is alive and no kernel has failed in it.
    ///
    /// # Errors
    /// `CUDA_ERROR_CONTEXT_IS_DESTROYED`, or the sticky error.
    pub fn usable(&self) -> Outcome {
        if !self.is_active() {
            return Err(CUDA_ERROR_CONTEXT_IS_DESTROYED);
        }
        self.check_fault()
    }

    /// The sticky error.
    ///
    /// # Errors
    /// The code of the first kernel that failed.
    pub fn check_fault(&self) -> Outcome {
        self.device.check_fault()
    }

    /// Whether it can be used.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// `cuDevicePrimaryCtxRetain`.
    ///
    /// # Errors
    /// The device's sticky error.
    pub fn retain(&self) -> Outcome {
        self.check_fault()?;
        self.device.announce();
        self.retains.fetch_add(1, Ordering::AcqRel);
        self.active.store(true, Ordering::Release);
        Ok(())
    }

    /// `cuDevicePrimaryCtxReset`: everything in it ends, its retains count on, and nothing can be done in it before the
    /// next one.
    pub fn reset(self: &Arc<Self>) {
        self.active.store(false, Ordering::Release);
        self.wipe();
    }

    /// `cuDevicePrimaryCtxRelease`: the last release ends what belongs to the context.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_CONTEXT` where it is not retained.
    pub fn release(self: &Arc<Self>) -> Outcome {
        let one_less = |retains: usize| retains.checked_sub(1);
        let before = self
            .retains
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
            .map_err(|_| CUDA_ERROR_INVALID_CONTEXT)?;
        if before == 1 {
            self.reset();
        }
        Ok(())
    }

    /// `cuCtxDestroy`.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_CONTEXT` for a primary context or one that is destroyed already.
    pub fn destroy(self: &Arc<Self>) -> Outcome {
        if self.primary || CONTEXTS.remove(self.handle()).is_none() {
            return Err(CUDA_ERROR_INVALID_CONTEXT);
        }
        if context_stack::current() == self.handle() {
            context_stack::pop();
        }
        self.reset();
        Ok(())
    }

    /// Waits for all work, then ends everything that belongs to the context.
    fn wipe(self: &Arc<Self>) {
        context_storage::context_ended(self.handle());
        self.drain();
        self.device.await_visits();
        stream::end_all_of(self);
        event::end_all_of(self);
        module::end_all_of(self);
        self.device.end_pools_of(self);
        self.device.heap.free_all_of(self.id);
        host::free_all_of(self.id);
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = default_limits();
        self.printed.resize(console::DEFAULT_BYTES);
        self.cache_config
            .store(CU_FUNC_CACHE_PREFER_NONE, Ordering::Relaxed);
    }

    /// Makes a queue for a new stream.
    pub fn add_queue(&self, blocking: bool, urgent: bool) -> Arc<Queue> {
        let busy = Arc::downgrade(&self.busy);
        Queue::of_stream(self.device.fault.clone(), busy, blocking, urgent)
    }

    /// What the legacy stream has to wait for: all work of the blocking streams so far.
    pub fn ends_of_blocking_streams(&self) -> Vec<Marker> {
        self.busy.ends(Queue::is_blocking)
    }

    /// Waits for all work so far.
    pub fn drain(&self) {
        for end in self.all_ends() {
            end.wait();
        }
        self.printed.flush();
    }

    /// All work so far.
    pub fn all_ends(&self) -> Vec<Marker> {
        let mut ends = self.busy.ends(|_| true);
        ends.push(self.legacy.queue.end());
        ends
    }

    /// `cuCtxSynchronize`.
    ///
    /// # Errors
    /// The sticky error.
    pub fn synchronize(&self) -> Outcome {
        self.drain();
        self.check_fault()
    }

    /// Flags as the program gave them.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the flags.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for unknown ones.
    pub fn set_flags(&self, flags: u32) -> Outcome {
        check_flags(flags)?;
        self.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    /// `cuCtxGetLimit`.
    ///
    /// # Errors
    /// `CUDA_ERROR_UNSUPPORTED_LIMIT` for a limit that this device has not.
    pub fn limit(&self, limit: CUlimit) -> Outcome<usize> {
        let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        supported_limit(limit).map(|index| limits[index])
    }

    /// `cuCtxSetLimit`.
    ///
    /// # Errors
    /// As for [`Context::limit`]; `CUDA_ERROR_OUT_OF_MEMORY` for more than there is,
    /// `CUDA_ERROR_INVALID_VALUE` for a stack beyond a thread's local memory.
    pub fn set_limit(&self, limit: CUlimit, value: usize) -> Outcome {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let index = supported_limit(limit)?;
        let value = rounded(limit, value)?;
        if limit == CU_LIMIT_PRINTF_FIFO_SIZE {
            // The buffer is the device's.
            if value as u64 > settings().memory {
                return Err(CUDA_ERROR_OUT_OF_MEMORY);
            }
            self.printed.resize(value);
        }
        limits[index] = value;
        Ok(())
    }

    /// `cuCtxGetCacheConfig`: kept, without effect.
    pub fn cache_config(&self) -> &AtomicU32 {
        &self.cache_config
    }

    /// `cuCtxGetSharedMemConfig`: kept, without effect.
    pub fn shared_config(&self) -> &AtomicU32 {
        &self.shared_config
    }
}

fn check_flags(flags: u32) -> Outcome {
    let scheduling = flags & CU_CTX_SCHED_MASK;
    if flags & !KNOWN_FLAGS != 0 || scheduling.count_ones() > 1 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    Ok(())
}

fn supported_limit(limit: CUlimit) -> Outcome<usize> {
    match limit {
        CU_LIMIT_STACK_SIZE
        | CU_LIMIT_PRINTF_FIFO_SIZE
        | CU_LIMIT_MALLOC_HEAP_SIZE
        | CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT
        | CU_LIMIT_MAX_L2_FETCH_GRANULARITY
        | CU_LIMIT_PERSISTING_L2_CACHE_SIZE => Ok(limit as usize),
        limit if limit < CU_LIMIT_MAX => Err(CUDA_ERROR_UNSUPPORTED_LIMIT),
        _ => Err(CUDA_ERROR_INVALID_VALUE),
    }
}

/// A limit as driver 580 sets it.
fn rounded(limit: CUlimit, value: usize) -> Outcome<usize> {
    /// Local memory of a thread ("Technical Specifications per Compute Capability").
    const STACK_MAX: usize = 512 << 10;
    match limit {
        CU_LIMIT_STACK_SIZE if value > STACK_MAX => Err(CUDA_ERROR_INVALID_VALUE),
        CU_LIMIT_STACK_SIZE => Ok(value.next_multiple_of(16)),
        CU_LIMIT_PRINTF_FIFO_SIZE => Ok(value.max(512 << 10)),
        CU_LIMIT_MALLOC_HEAP_SIZE => Ok(value.max(4 << 20)),
        _ => Ok(value),
    }
}

fn default_limits() -> [usize; CU_LIMIT_MAX as usize] {
    let mut limits = [0; CU_LIMIT_MAX as usize];
    limits[CU_LIMIT_STACK_SIZE as usize] = 1024;
    limits[CU_LIMIT_PRINTF_FIFO_SIZE as usize] = console::DEFAULT_BYTES;
    limits[CU_LIMIT_MALLOC_HEAP_SIZE as usize] = 8 << 20;
    limits[CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT as usize] = 2048;
    limits[CU_LIMIT_MAX_L2_FETCH_GRANULARITY as usize] = 64;
    limits
}

/// Says once per process that a development device is at work.
pub fn announce_once(device_name: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        harp_driver_front::notice(&format!(
            "{device_name} is a development device: it executes kernels on the CPU \
             (HARP_LOG=quiet hides this line)"
        ));
    }
}
