//! The in and out values of JIT options: an interpreter heeds a limit on registers and fills the logs.

use core::ffi::{c_char, c_void};

use harp_cuda_abi::types::*;

/// The options of a call. What they name in the program's memory stays there as long as this.
#[derive(Clone, Copy)]
pub struct JitOptions {
    /// `CU_JIT_MAX_REGISTERS`; none for no limit.
    pub max_registers: Option<u32>,
    info: Option<Log>,
    error: Option<Log>,
    wall_time: Option<*mut f32>,
}

// SAFETY: the pointers are the program's, which keeps them valid as `new` was promised; they are
// written only by calls that the program makes.
unsafe impl Send for JitOptions {}
// SAFETY: as above.
unsafe impl Sync for JitOptions {}

/// A buffer for text.
#[derive(Clone, Copy)]
struct Log {
    start: *mut c_char,
    room: usize,
    /// Receives the text's length.
    length: *mut *mut c_void,
}

impl JitOptions {
    /// The options of a call.
    ///
    /// # Safety
    /// Both arrays have `count` elements, or `count` is 0. What the values point to, and the values
    /// themselves, outlive this.
    pub unsafe fn new(count: u32, options: *mut CUjit_option, values: *mut *mut c_void) -> Self {
        let count = if options.is_null() || values.is_null() {
            0
        } else {
            count as usize
        };
        let place = |option: CUjit_option| {
            // SAFETY: the caller's promise.
            (0..count)
                .find(|index| unsafe { *options.add(*index) } == option)
                .map(|index| unsafe { values.add(index) })
        };
        let log = |buffer, size| {
            let (buffer, length) = (place(buffer)?, place(size)?);
            // SAFETY: the values are a buffer and its size in bytes, of 32 bits; the size is also an output.
            let (start, room) =
                unsafe { ((*buffer).cast::<c_char>(), *length as usize as u32 as usize) };
            (!start.is_null() && room > 0).then_some(Log {
                start,
                room,
                length,
            })
        };
        Self {
            // SAFETY: the value is the number itself.
            max_registers: place(CU_JIT_MAX_REGISTERS)
                .map(|place| unsafe { *place } as usize as u32)
                .filter(|most| *most > 0),
            info: log(CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES),
            error: log(CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES),
            wall_time: place(CU_JIT_WALL_TIME).map(|place| place.cast()),
        }
    }

    /// Reports to the program's log buffers: `error` is empty on success.
    pub fn report(&self, error: &str) {
        for (log, text) in [(self.info, ""), (self.error, error)] {
            if let Some(log) = log {
                log.write(text);
            }
        }
        if let Some(place) = self.wall_time {
            // SAFETY: the option's value slot receives a float.
            unsafe { place.write(0.0) };
        }
    }
}

impl Log {
    fn write(&self, text: &str) {
        let length = text.len().min(self.room - 1);
        // SAFETY: `room` bytes are the program's buffer, as `JitOptions::new` was promised.
        unsafe {
            self.start
                .copy_from_nonoverlapping(text.as_ptr().cast(), length);
            *self.start.add(length) = 0;
            *self.length = core::ptr::without_provenance_mut(length);
        }
    }
}
