//! One file of a trace: by itself, or within a tar.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::TraceError;

/// Bytes of a file that are one file of a trace.
#[derive(Clone, Debug)]
pub struct Member {
    pub(super) name: String,
    pub(super) file: Arc<File>,
    pub(super) start: u64,
    /// Those that are there.
    pub(super) bytes: u64,
    /// Whether there should be more of them.
    pub(super) cut: bool,
}

impl Member {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn cut(&self) -> bool {
        self.cut
    }

    /// Fills `buffer` with the bytes from `at` on.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), TraceError> {
        let end = at.saturating_add(buffer.len() as u64);
        if end > self.bytes {
            return Err(self.damaged(self.bytes, "it ends too early"));
        }
        self.file
            .read_exact_at(buffer, self.start + at)
            .map_err(|error| TraceError::system(&self.name, "read", &error))
    }

    /// All of it, where it has at most `most` bytes.
    pub fn read_whole(&self, most: u64) -> Result<Vec<u8>, TraceError> {
        if self.bytes > most {
            let what = format!("it has {} bytes; {most} are the most", self.bytes);
            return Err(self.damaged(0, what));
        }
        let mut bytes = vec![0; self.bytes as usize];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }

    pub fn damaged(&self, at: u64, what: impl Into<String>) -> TraceError {
        TraceError::damaged(&self.name, at, what)
    }
}
