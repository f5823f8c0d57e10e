//! The in and out values of JIT options: only the logs are of interest to an interpreter.

use core::ffi::{c_char, c_void};

use harp_cuda_abi::types::*;

/// The option list of a call.
#[derive(Clone, Copy)]
pub struct JitOptions {
    count: usize,
    options: *mut CUjit_option,
    values: *mut *mut c_void,
}

impl JitOptions {
    /// The options of a call.
    ///
    /// # Safety
    /// Both arrays have `count` elements, or `count` is 0; they outlive this.
    pub unsafe fn new(count: u32, options: *mut CUjit_option, values: *mut *mut c_void) -> Self {
        let count = if options.is_null() || values.is_null() {
            0
        } else {
            count as usize
        };
        Self {
            count,
            options,
            values,
        }
    }

    /// The place of an option's value.
    fn place(&self, option: CUjit_option) -> Option<*mut *mut c_void> {
        // SAFETY: as `new` was promised.
        (0..self.count)
            .find(|index| unsafe { *self.options.add(*index) } == option)
            .map(|index| unsafe { self.values.add(index) })
    }

    /// Reports to the program's log buffers: `error` is empty on success.
    pub fn report(&self, error: &str) {
        self.log(
            CU_JIT_INFO_LOG_BUFFER,
            CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
            "",
        );
        self.log(
            CU_JIT_ERROR_LOG_BUFFER,
            CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            error,
        );
        if let Some(place) = self.place(CU_JIT_WALL_TIME) {
            // SAFETY: the option's value slot receives a float.
            unsafe { place.cast::<f32>().write(0.0) };
        }
    }

    /// Stores text in the buffer of an option; its size option receives the length.
    fn log(&self, buffer: CUjit_option, size: CUjit_option, text: &str) {
        let (Some(buffer), Some(size)) = (self.place(buffer), self.place(size)) else {
            return;
        };
        // SAFETY: the values are a buffer and its size in bytes, the size is also an output.
        unsafe {
            let (start, room) = ((*buffer).cast::<c_char>(), *size as usize);
            if start.is_null() || room == 0 {
                return;
            }
            let length = text.len().min(room - 1);
            start.copy_from_nonoverlapping(text.as_ptr().cast(), length);
            *start.add(length) = 0;
            *size = core::ptr::without_provenance_mut(length);
        }
    }
}
