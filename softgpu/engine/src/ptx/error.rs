//! What is wrong with a PTX text, and where.

use std::fmt;

/// A PTX text that cannot be run as it stands: malformed, or using what this engine does not
/// execute. The message names the construct (for an instruction: its whole opcode).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtxError {
    /// Line of the text, counted from 1; 0 where no line applies.
    pub line: u32,
    /// What is wrong, readable without the text at hand.
    pub message: String,
}

impl PtxError {
    /// An error at `line`.
    pub fn new(line: u32, message: impl Into<String>) -> PtxError {
        PtxError {
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "PTX: {}", self.message),
            line => write!(f, "PTX line {line}: {}", self.message),
        }
    }
}

impl std::error::Error for PtxError {}
