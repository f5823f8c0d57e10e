//! Options of a load or link: numbers travel, buffers for messages stay here and are filled from what
//! the server's compiler said.

use std::ffi::{c_uint, c_void};

use harp_cuda_abi::jit::is_number;
use harp_cuda_abi::types::*;
use harp_wire::{calls, CallId};

use super::image::Refusal;
use crate::session::Session;

/// The options of one call. What they name in the program's memory stays there as long as this.
#[derive(Default)]
pub struct JitOptions {
    /// Options that are numbers, and their values.
    pub names: Vec<u32>,
    pub values: Vec<u64>,
    info: Option<Log>,
    error: Option<Log>,
}

// SAFETY: the pointers are the program's, which keeps them valid as `new` was promised; they are
// written only by calls that the program makes.
unsafe impl Send for JitOptions {}
// SAFETY: as above.
unsafe impl Sync for JitOptions {}

/// A buffer for text.
struct Log {
    start: *mut u8,
    room: usize,
    /// Receives the text's length.
    length: *mut *mut c_void,
}

impl JitOptions {
    /// The options of a call.
    ///
    /// # Safety
    /// `options` and `values` are NULL or have `count` elements. What the values point to, and the
    /// values themselves, outlive this.
    pub unsafe fn new(count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void) -> Self {
        let mut found = Self::default();
        if options.is_null() || values.is_null() {
            return found;
        }
        let place = |wanted: CUjit_option| {
            // SAFETY: the caller's promise.
            (0..count as usize)
                .find(|index| unsafe { *options.add(*index) } == wanted)
                .map(|index| unsafe { values.add(index) })
        };
        let log = |buffer, size| {
            let (buffer, length) = (place(buffer)?, place(size)?);
            // SAFETY: the values are a buffer and its size in bytes; the size is also an output.
            let (start, room) = unsafe { ((*buffer).cast::<u8>(), number(*length) as usize) };
            (!start.is_null() && room > 0).then_some(Log {
                start,
                room,
                length,
            })
        };
        found.info = log(CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES);
        found.error = log(CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
        for index in 0..count as usize {
            // SAFETY: the caller's promise.
            let (option, value) = unsafe { (*options.add(index), *values.add(index)) };
            if option == CU_JIT_WALL_TIME {
                // SAFETY: the value's place receives a float. Nobody waits for the real one.
                unsafe { values.add(index).cast::<f32>().write(0.0) };
            } else if is_number(option) {
                found.names.push(option);
                found.values.push(number(value).into());
            }
        }
        found
    }

    /// Bytes of each message that there is room for, 0 where the program wants none.
    pub fn log_bytes(&self) -> u32 {
        let room = |log: &Option<Log>| log.as_ref().map_or(0, |log| log.room);
        u32::try_from(room(&self.info).max(room(&self.error))).unwrap_or(u32::MAX)
    }

    /// Writes why an image was refused before the server saw it, if that is so; the refusal's code.
    pub fn refuse(&self, refusal: &Refusal) -> CUresult {
        if !refusal.words.is_empty() {
            for (log, text) in [(&self.info, ""), (&self.error, refusal.words.as_str())] {
                if let Some(log) = log {
                    log.write(text.as_bytes());
                }
            }
        }
        refusal.code
    }

    /// Fills the program's buffers with what the compiler said at this thread's last load or link in a
    /// session.
    pub fn report(&self, session: &Session) {
        if self.log_bytes() == 0 {
            return;
        }
        session.request(
            CallId::harp_jit_logs,
            calls::encode_harp_jit_logs,
            |decoder| {
                let logs = calls::HarpJitLogsReply::read(decoder);
                for (log, text) in [(&self.info, logs.info), (&self.error, logs.error)] {
                    if let Some(log) = log {
                        log.write(text);
                    }
                }
            },
        );
    }
}

/// The number that a value is.
fn number(value: *mut c_void) -> u32 {
    value as usize as u32
}

impl Log {
    fn write(&self, text: &[u8]) {
        let length = text.len().min(self.room - 1);
        // SAFETY: `room` bytes are the program's buffer, as `JitOptions::new` was promised.
        unsafe {
            self.start.copy_from_nonoverlapping(text.as_ptr(), length);
            *self.start.add(length) = 0;
            *self.length = std::ptr::without_provenance_mut(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lower_half_of_a_value_is_a_number() {
        let mut text = [1u8; 8];
        let garbage = 0xdead_beef_0000_0000_usize;
        let mut options = [
            CU_JIT_OPTIMIZATION_LEVEL,
            CU_JIT_ERROR_LOG_BUFFER,
            CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut values: [*mut c_void; 3] = [
            std::ptr::without_provenance_mut(garbage | 3),
            text.as_mut_ptr().cast(),
            std::ptr::without_provenance_mut(garbage | text.len()),
        ];
        // SAFETY: arrays of as many elements, and a buffer of that size.
        let read = unsafe { JitOptions::new(3, options.as_mut_ptr(), values.as_mut_ptr()) };
        assert_eq!(read.names, [CU_JIT_OPTIMIZATION_LEVEL]);
        assert_eq!(read.values, [3]);
        assert_eq!(read.log_bytes(), 8);
    }
}
