//! Page-locked memory that large copies go through: the device reads and writes it by itself while the connection
//! goes on. Buffers of one size are used again and again; what is between the driver and the connection belongs to
//! neither until it is dropped.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use harp_cuda_abi::types::{
    CUevent, CUresult, CUstream, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, CUDA_ERROR_NOT_READY,
    CU_EVENT_DISABLE_TIMING, CU_MEMHOSTREGISTER_PORTABLE,
};

use crate::generated::driver::Driver;

/// The size of a large buffer, which is that of the pieces that clients cut copies into.
pub const BUFFER_BYTES: usize = 1 << 20;
/// Small buffers are this long; [`BUFFER_BYTES`] are made at a time.
const SMALL_BYTES: usize = 16 << 10;

/// What a session may have.
#[derive(Clone, Copy)]
struct Most {
    large: usize,
    /// Times [`BUFFER_BYTES`] of small ones.
    small: usize,
}

/// What is kept for a connection that may break, and what is being filled.
const MOST: Most = Most {
    large: 12,
    small: 1,
};
/// The same where the stream of a copy may wait for the client, which goes on meanwhile.
const MOST_BEHIND: Most = Most {
    large: 128,
    small: 16,
};
/// Buffers that uploads may have of them.
const MOST_UPLOADS: usize = 4;
/// The same where the client has more to say that must not wait for a stream.
const MOST_UPLOADS_BEHIND: usize = 64;
const ALIGNMENT: usize = 4096;

/// Memory of [`BUFFER_BYTES`] that the driver has registered, and that is never freed: a session's stays until its
/// end. `None` where the driver locks no more pages for this process, or no context is current.
fn registered(driver: &Driver) -> Option<*mut u8> {
    let layout = std::alloc::Layout::from_size_align(BUFFER_BYTES, ALIGNMENT).ok()?;
    // SAFETY: the layout has a size. Zeroed, because a reply may never carry what others left there.
    let start = unsafe { std::alloc::alloc_zeroed(layout) };
    if start.is_null() {
        return None;
    }
    // SAFETY: memory of that size that is never freed once the driver has it.
    if unsafe { register(driver, start) } != 0 {
        // SAFETY: allocated above with this layout, and nobody has it.
        unsafe { std::alloc::dealloc(start, layout) };
        return None;
    }
    Some(start)
}

/// # Safety
/// [`BUFFER_BYTES`] of memory that is never freed once the driver has it.
unsafe fn register(driver: &Driver, start: *mut u8) -> CUresult {
    // SAFETY: the caller's promise.
    unsafe {
        (driver.cuMemHostRegister_v2)(start.cast(), BUFFER_BYTES, CU_MEMHOSTREGISTER_PORTABLE)
    }
}

/// Where a buffer lies.
#[derive(Clone, Copy)]
struct Place {
    start: *mut u8,
    /// How many contexts had ended when it was registered.
    ended: u64,
}

// SAFETY: plain memory that has one owner.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    /// Sees that it is registered, though its context may be one of those that have `ended`. False where the driver
    /// refuses: it is not used any more.
    fn renew(&mut self, driver: &Driver, ended: u64) -> bool {
        if self.ended == ended {
            return true;
        }
        self.ended = ended;
        // SAFETY: memory that was `registered`, and so is never freed.
        let status = unsafe { register(driver, self.start) };
        // Its context may not be among them.
        matches!(status, 0 | CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)
    }
}

/// Buffers that lie side by side.
#[derive(Default)]
struct Small {
    regions: Vec<Place>,
    unused: Vec<Place>,
}

#[derive(Default)]
struct Home {
    large: Vec<Place>,
    /// Of large buffers, all that there are.
    made: usize,
    small: Small,
    in_use: usize,
    /// How many contexts have ended.
    ended: u64,
    /// There will be no more: the driver refuses.
    exhausted: bool,
}

/// A session's buffers. They are of all its contexts, but where that ends in which one was registered it is ordinary
/// memory, with which the device would do nothing by itself: it is registered again before its next use.
#[derive(Clone, Default)]
pub struct Staging(Arc<Mutex<Home>>);

/// A buffer, which goes back when it is dropped.
pub struct Buffer {
    place: Place,
    len: usize,
    home: Arc<Mutex<Home>>,
}

impl Home {
    fn take(&mut self, driver: &Driver, len: usize, most: Most) -> Option<Place> {
        if len <= SMALL_BYTES {
            return self.take_small(driver, most.small);
        }
        match self.large.pop() {
            Some(mut place) => place.renew(driver, self.ended).then_some(place),
            None if self.made < most.large => {
                let place = self.make(driver)?;
                self.made += 1;
                Some(place)
            }
            None => None,
        }
    }

    fn take_small(&mut self, driver: &Driver, most: usize) -> Option<Place> {
        let ended = self.ended;
        for region in &mut self.small.regions {
            // What is in use of them only the connection reads.
            if !region.renew(driver, ended) {
                self.small.unused.clear();
            }
        }
        if self.small.unused.is_empty() && self.small.regions.len() < most {
            let region = self.make(driver)?;
            let place = |at| Place {
                start: region.start.wrapping_add(at),
                ..region
            };
            let places = (0..BUFFER_BYTES).step_by(SMALL_BYTES).map(place);
            self.small.unused.extend(places);
            self.small.regions.push(region);
        }
        self.small.unused.pop()
    }

    /// Memory for one large buffer, or for small ones.
    fn make(&mut self, driver: &Driver) -> Option<Place> {
        if self.exhausted {
            return None;
        }
        let start = registered(driver);
        self.exhausted = start.is_none();
        let ended = self.ended;
        start.map(|start| Place { start, ended })
    }
}

impl Staging {
    /// A buffer for `len` bytes, which a context must be current for; `None` if all are in use.
    pub fn take(&self, driver: &Driver, len: usize) -> Option<Buffer> {
        self.take_of(driver, len, MOST)
    }

    /// As [`take`](Self::take), for a copy whose stream may have to wait for the client: nobody else may wait for the
    /// copy, who might be what the client needs.
    pub fn take_behind(&self, driver: &Driver, len: usize) -> Option<Buffer> {
        self.take_of(driver, len, MOST_BEHIND)
    }

    fn take_of(&self, driver: &Driver, len: usize, most: Most) -> Option<Buffer> {
        if len > BUFFER_BYTES {
            return None;
        }
        let mut home = lock(&self.0);
        let place = home.take(driver, len, most)?;
        home.in_use += 1;
        Some(Buffer {
            place,
            len,
            home: self.0.clone(),
        })
    }

    /// A context may have ended. Buffers that are taken from now on are registered in others.
    pub fn context_ended(&self) {
        lock(&self.0).ended += 1;
    }

    /// Whether some are between the driver and the connection.
    pub fn is_in_use(&self) -> bool {
        lock(&self.0).in_use > 0
    }
}

impl Buffer {
    pub fn start(&self) -> *mut c_void {
        self.place.start.cast()
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory is this buffer's alone, and initialised.
        unsafe { std::slice::from_raw_parts_mut(self.start().cast(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`.
        unsafe { std::slice::from_raw_parts(self.start().cast(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let place = self.place;
        let mut home = lock(&self.home);
        home.in_use -= 1;
        if self.len > SMALL_BYTES {
            home.large.push(place);
        } else {
            home.small.unused.push(place);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// When a stream has got to where it was when this was made.
pub struct Passed(CUevent);

// SAFETY: an opaque value for the driver, which takes it on any thread.
unsafe impl Send for Passed {}

impl Passed {
    /// # Errors
    /// The driver's.
    pub fn after(driver: &Driver, stream: CUstream) -> Result<Passed, CUresult> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the event is written before it is used; the stream is the driver's.
        unsafe {
            match (driver.cuEventCreate)(&mut event, CU_EVENT_DISABLE_TIMING) {
                0 => {}
                code => return Err(code),
            }
            match (driver.cuEventRecord)(event, stream) {
                0 => Ok(Passed(event)),
                code => {
                    (driver.cuEventDestroy_v2)(event);
                    Err(code)
                }
            }
        }
    }

    /// How it has; `None` if it has not. An error counts, because nothing comes any more.
    pub fn status(&self, driver: &Driver) -> Option<CUresult> {
        // SAFETY: the event is alive.
        let status = unsafe { (driver.cuEventQuery)(self.0) };
        (status != CUDA_ERROR_NOT_READY).then_some(status)
    }

    /// Waits for it.
    pub fn wait(self, driver: &Driver) -> CUresult {
        // SAFETY: the event is alive.
        let status = unsafe { (driver.cuEventSynchronize)(self.0) };
        self.end(driver);
        status
    }

    /// Nobody asks any more.
    pub fn end(self, driver: &Driver) {
        // SAFETY: the event is alive, and not used afterwards.
        unsafe { (driver.cuEventDestroy_v2)(self.0) };
    }
}

/// Buffers that the device still reads.
#[derive(Default)]
pub struct Uploads {
    /// None are used to be faster: there is no core for the device's own part of a copy, where it has one.
    pub at_once: bool,
    read: VecDeque<(Buffer, Passed)>,
}

impl Uploads {
    /// A buffer for `len` bytes, unless the device is behind with those before. Without one the session's loop waits for
    /// the stream of the copy: `others` may have calls that are not to.
    pub fn take(
        &mut self,
        (staging, driver): (&Staging, &Driver),
        len: usize,
        others: bool,
    ) -> Option<Buffer> {
        let is_read = |(_, read): &(Buffer, Passed)| read.status(driver).is_some();
        while self.read.front().is_some_and(is_read) {
            if let Some((buffer, read)) = self.read.pop_front() {
                read.end(driver);
                drop(buffer);
            }
        }
        match self.read.len() {
            0..MOST_UPLOADS if !self.at_once => staging.take(driver, len),
            0..MOST_UPLOADS_BEHIND if others => staging.take_behind(driver, len),
            _ => None,
        }
    }

    /// Waits until the device has read all of them: before their context ends.
    pub fn drain(&mut self, driver: &Driver) {
        for (buffer, read) in self.read.drain(..) {
            read.wait(driver);
            drop(buffer);
        }
    }

    /// Keeps a buffer that copies queued in `stream` read until they are done.
    pub fn keep(&mut self, driver: &Driver, buffer: Buffer, stream: CUstream) -> CUresult {
        match Passed::after(driver, stream) {
            Ok(read) => {
                self.read.push_back((buffer, read));
                0
            }
            Err(code) => {
                // Nobody could tell when the device has read it.
                std::mem::forget(buffer);
                code
            }
        }
    }
}
