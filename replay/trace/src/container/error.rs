//! What is wrong with a trace.

use std::fmt;
use std::io;

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no trace.
    NoTrace,
    /// It needs a newer reader.
    Newer,
    /// Its bytes are not what they should be.
    Damaged,
    /// A blob that it names is not there.
    Missing,
    /// The system refused to read or write.
    System,
    /// The disk, or the user's part of it, is full.
    DiskFull,
    /// It would be larger than it may be.
    TooLarge,
}

/// One line with a cause, where it is, and a next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    pub kind: ErrorKind,
    /// The file within the trace, or the trace itself.
    pub file: String,
    /// Bytes from the start of that file.
    pub offset: Option<u64>,
    pub what: String,
    pub next_step: String,
}

impl TraceError {
    pub(crate) fn damaged(file: &str, offset: u64, what: impl Into<String>) -> TraceError {
        TraceError {
            kind: ErrorKind::Damaged,
            file: file.to_owned(),
            offset: Some(offset),
            what: what.into(),
            next_step: "record it again, or take an undamaged copy".to_owned(),
        }
    }

    pub(crate) fn no_trace(file: &str, what: impl Into<String>) -> TraceError {
        TraceError {
            kind: ErrorKind::NoTrace,
            file: file.to_owned(),
            offset: None,
            what: what.into(),
            next_step: "name what `harp-run --trace` has written".to_owned(),
        }
    }

    pub(crate) fn missing(file: &str, what: impl Into<String>) -> TraceError {
        TraceError {
            kind: ErrorKind::Missing,
            file: file.to_owned(),
            offset: None,
            what: what.into(),
            next_step: "record with the payload policy `full`, or take a whole copy".to_owned(),
        }
    }

    pub fn system(file: &str, doing: &str, error: &io::Error) -> TraceError {
        let (kind, next_step) = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                (ErrorKind::DiskFull, "make room, or write elsewhere")
            }
            Some(libc::EFBIG) => (ErrorKind::TooLarge, "let files be larger (ulimit -f)"),
            _ => (ErrorKind::System, "see what the system says"),
        };
        TraceError {
            kind,
            file: file.to_owned(),
            offset: None,
            what: format!("cannot {doing} it: {error}"),
            next_step: next_step.to_owned(),
        }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}; {}", self.what, self.next_step)
    }
}

impl std::error::Error for TraceError {}
