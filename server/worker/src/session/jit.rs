//! Options of the driver's compiler and the messages that it writes.
//!
//! The driver takes options as two arrays, of which the second holds numbers in pointers, or pointers to buffers. A
//! client sends numbers only; buffers for messages are the worker's own.

use std::ffi::c_void;
use std::ptr;

use harp_cuda_abi::jit::is_number;
use harp_cuda_abi::types::*;

use super::Violation;

/// Room for one kind of messages, in bytes. A program that offers more gets no more.
const MOST_LOG_BYTES: u32 = 1 << 20;

/// Messages of one load or link: what it did, and why it failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JitLogs {
    pub info: Vec<u8>,
    pub error: Vec<u8>,
}

/// Where the driver writes messages.
#[derive(Default)]
pub struct LogBuffers {
    info: Box<[u8]>,
    error: Box<[u8]>,
}

impl LogBuffers {
    fn new(bytes: u32) -> Self {
        let bytes = bytes.min(MOST_LOG_BYTES) as usize;
        Self {
            info: vec![0; bytes].into(),
            error: vec![0; bytes].into(),
        }
    }

    /// What has been written so far.
    pub fn read(&self) -> JitLogs {
        let text = |buffer: &[u8]| {
            let end = buffer
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(buffer.len());
            buffer[..end].to_vec()
        };
        JitLogs {
            info: text(&self.info),
            error: text(&self.error),
        }
    }
}

/// Options as the driver takes them. Those of a link have to live as long as the link: the driver may write to
/// their buffers and values at any of its calls.
pub struct JitOptions {
    names: Vec<CUjit_option>,
    values: Vec<*mut c_void>,
    pub logs: LogBuffers,
}

impl JitOptions {
    /// Numeric options as the client sent them, and message buffers of `log_bytes` bytes each if that is not 0.
    pub fn new(names: &[u32], values: &[u64], log_bytes: u32) -> Result<Self, Violation> {
        if names.len() != values.len() {
            return Err(Violation::new(
                "compiler options and values differ in number",
            ));
        }
        if let Some(name) = names.iter().find(|name| !is_number(**name)) {
            return Err(Violation::new(format!(
                "compiler option {name} is not a number's"
            )));
        }
        let mut options = Self {
            names: names.to_vec(),
            values: values
                .iter()
                .map(|v| ptr::without_provenance_mut(*v as usize))
                .collect(),
            logs: LogBuffers::default(),
        };
        if log_bytes > 0 {
            options.logs = LogBuffers::new(log_bytes);
            let size = ptr::without_provenance_mut(options.logs.info.len());
            let info = options.logs.info.as_mut_ptr().cast();
            let error = options.logs.error.as_mut_ptr().cast();
            for (name, value) in [
                (CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, size),
                (CU_JIT_INFO_LOG_BUFFER, info),
                (CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, size),
                (CU_JIT_ERROR_LOG_BUFFER, error),
            ] {
                options.names.push(name);
                options.values.push(value);
            }
        }
        Ok(options)
    }

    pub fn count(&self) -> u32 {
        self.names.len() as u32
    }

    /// The two arrays, for one call of the driver. It may write to the values.
    pub fn arrays(&mut self) -> (*mut CUjit_option, *mut *mut c_void) {
        (self.names.as_mut_ptr(), self.values.as_mut_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_points_somewhere_is_a_violation() {
        let option = |name| JitOptions::new(&[name], &[0x1000], 0).map(|o| o.count());
        assert_eq!(option(CU_JIT_OPTIMIZATION_LEVEL), Ok(1));
        assert!(option(CU_JIT_INFO_LOG_BUFFER).is_err());
        assert!(option(CU_JIT_GLOBAL_SYMBOL_ADDRESSES).is_err());
        assert!(option(4711).is_err());
        assert!(JitOptions::new(&[CU_JIT_LTO], &[], 0).is_err());
    }

    #[test]
    fn messages_end_at_their_nul_and_are_bounded() {
        let mut options = JitOptions::new(&[], &[], u32::MAX).unwrap();
        assert_eq!(options.count(), 4);
        assert_eq!(options.logs.info.len(), MOST_LOG_BYTES as usize);
        options.logs.error[..6].copy_from_slice(b"oops\0x");
        assert_eq!(
            options.logs.read(),
            JitLogs {
                info: vec![],
                error: b"oops".to_vec()
            }
        );
    }
}
