//! The blocks of a trace, in order.

use super::alike;
use super::frames::Frames;
use super::member::Member;
use super::TraceError;
use crate::block::{read_head, Block, RawBlock, BODY_MAX, HEAD_BYTES};

/// A block and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// Where its frame begins in `calls.zst`.
    pub frame: u64,
    /// Where it begins in the frame's content, told in full.
    pub within: u64,
    pub raw: RawBlock<'a>,
}

/// Reads `calls.zst`, one frame at a time.
pub struct Blocks {
    frames: Frames,
    frame: u64,
    content: Vec<u8>,
    at: usize,
}

impl Blocks {
    pub(super) fn new(calls: Member) -> Blocks {
        Blocks {
            frames: Frames::new(calls),
            frame: 0,
            content: Vec::new(),
            at: 0,
        }
    }

    /// Whether the file ended within a frame, so that blocks at its end are missing.
    pub fn cut(&self) -> bool {
        self.frames.cut()
    }

    /// The next block; `None` at the end, or where the file has been [cut](Blocks::cut).
    ///
    /// # Errors
    /// For damage, with the place of the frame.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Located<'_>>, TraceError> {
        while self.at == self.content.len() {
            match self.frames.next()? {
                Some((frame, content)) => {
                    self.frame = frame;
                    let told = alike::in_full(content, &mut self.content);
                    self.at = 0;
                    if let Err(wrong) = told {
                        self.content.clear();
                        let file = self.frames.file();
                        return Err(damaged(file, frame, wrong.at, wrong.what));
                    }
                }
                None => return Ok(None),
            }
        }
        let within = self.at as u64;
        let rest = &self.content[self.at..];
        let damaged = |what| damaged(self.frames.file(), self.frame, within, what);
        let (head, rest) = rest
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or_else(|| damaged("a block's head is cut short"))?;
        let (number, flags, body_bytes) = read_head(*head);
        if body_bytes > BODY_MAX {
            return Err(damaged("a block is longer than any block may be"));
        }
        let body = rest
            .get(..body_bytes)
            .ok_or_else(|| damaged("a block goes on beyond its frame"))?;
        self.at += HEAD_BYTES + body_bytes;
        Ok(Some(Located {
            frame: self.frame,
            within,
            raw: RawBlock {
                number,
                flags,
                body,
            },
        }))
    }
}

fn damaged(file: &Member, frame: u64, within: u64, what: &str) -> TraceError {
    file.damaged(frame, format!("{what} (byte {within} of the frame there)"))
}

impl<'a> Located<'a> {
    /// The block's fields.
    ///
    /// # Errors
    /// For a body that is malformed, with its place.
    pub fn decode(&self) -> Result<Block<'a>, TraceError> {
        Block::decode(self.raw).map_err(|malformed| self.damaged(malformed.0))
    }

    /// What is wrong with this block.
    pub fn damaged(&self, what: &str) -> TraceError {
        let what = format!(
            "block of type {}: {what} (byte {} of the frame there)",
            self.raw.number, self.within
        );
        TraceError::damaged(super::CALLS, self.frame, what)
    }
}
