//! Frames of zstd's format (RFC 8878), one after the other, and the seek table behind them
//! (zstd's contrib/seekable_format).

use std::io::Read;

use super::member::Member;
use super::{TraceError, CONTENT_MAX};

const FRAME_MAGIC: u32 = 0xfd2f_b528;
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
const SEEK_TABLE_MAGIC: u32 = 0x184d_2a5e;
const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;
/// Incompressible content is stored in blocks with heads of three bytes.
const COMPRESSED_MAX: usize = CONTENT_MAX + CONTENT_MAX / 128 + 1024;
const BLOCK_MAX: usize = 128 << 10;
/// 2^27: single frames say that their window is their content.
const WINDOW_LOG_MAX: u32 = 27;

/// Compresses the content of one frame at a time.
pub struct Compressor(zstd::bulk::Compressor<'static>);

impl Compressor {
    pub fn new(level: i32) -> std::io::Result<Compressor> {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.include_checksum(true)?;
        Ok(Compressor(compressor))
    }

    pub fn frame(&mut self, content: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0.compress(content)
    }
}

/// A seek table for frames of (compressed, content) bytes.
pub fn seek_table(frames: &[(u32, u32)]) -> Vec<u8> {
    let mut table = Vec::with_capacity(8 * frames.len() + 17);
    let mut put = |word: u32| table.extend_from_slice(&word.to_le_bytes());
    put(SEEK_TABLE_MAGIC);
    put(8 * frames.len() as u32 + 9);
    for (compressed, content) in frames {
        put(*compressed);
        put(*content);
    }
    put(frames.len() as u32);
    // The descriptor: no checksums, frames have their own.
    table.push(0);
    table.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
    table
}

/// The frames of a file, in order.
pub struct Frames {
    file: Member,
    at: u64,
    compressed: Vec<u8>,
    content: Vec<u8>,
    cut: bool,
}

/// What the walk over a frame came to.
enum Walk {
    /// It lies in `compressed`, and this content is promised.
    Whole(Option<u64>),
    /// The file ends within it.
    Cut,
}

impl Frames {
    pub fn new(file: Member) -> Frames {
        Frames {
            file,
            at: 0,
            compressed: Vec::new(),
            content: Vec::new(),
            cut: false,
        }
    }

    /// Whether the file ended within a frame; the frames before it are whole.
    pub fn cut(&self) -> bool {
        self.cut
    }

    pub fn file(&self) -> &Member {
        &self.file
    }

    /// Where the next frame begins, and its content; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(u64, &[u8])>, TraceError> {
        loop {
            let at = self.at;
            if at == self.file.bytes() {
                self.cut |= self.file.cut();
                return Ok(None);
            }
            self.compressed.clear();
            if !self.take(4)? {
                return self.end();
            }
            let magic = self.word(0);
            if magic & !0xf == SKIPPABLE_MAGIC {
                if !self.take(4)? {
                    return self.end();
                }
                self.at += u64::from(self.word(4));
                if self.at > self.file.bytes() {
                    return self.end();
                }
                continue;
            }
            // What a file system kept of a file whose end was never written.
            if magic == 0 {
                return self.end();
            }
            if magic != FRAME_MAGIC {
                return Err(self.file.damaged(at, "here should a zstd frame begin"));
            }
            let promised = match self.walk(at)? {
                Walk::Whole(promised) => promised,
                Walk::Cut => return self.end(),
            };
            self.decompress(at, promised)?;
            return Ok(Some((at, &self.content)));
        }
    }

    fn end(&mut self) -> Result<Option<(u64, &[u8])>, TraceError> {
        self.cut = true;
        self.at = self.file.bytes();
        Ok(None)
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = &self.compressed[at..at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Reads `count` more bytes; `false` if the file ends before.
    fn take(&mut self, count: usize) -> Result<bool, TraceError> {
        let end = self.at.saturating_add(count as u64);
        if end > self.file.bytes() {
            return Ok(false);
        }
        let start = self.compressed.len();
        self.compressed.resize(start + count, 0);
        self.file.read(self.at, &mut self.compressed[start..])?;
        self.at = end;
        Ok(true)
    }

    /// Takes what is left of a frame whose magic has been taken.
    fn walk(&mut self, at: u64) -> Result<Walk, TraceError> {
        if !self.take(1)? {
            return Ok(Walk::Cut);
        }
        let descriptor = self.compressed[4];
        if descriptor & 0b1000 != 0 {
            return Err(self
                .file
                .damaged(at, "the frame's head has a bit that has no meaning"));
        }
        let single = descriptor >> 5 & 1;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = [single, 2, 4, 8][usize::from(descriptor >> 6)];
        let head = usize::from(1 - single) + dictionary + usize::from(size);
        if !self.take(head)? {
            return Ok(Walk::Cut);
        }
        let mut promised = [0; 8];
        let field = &self.compressed[5 + head - usize::from(size)..];
        promised[..field.len()].copy_from_slice(field);
        let promised = match size {
            0 => None,
            2 => Some(u64::from_le_bytes(promised) + 256),
            _ => Some(u64::from_le_bytes(promised)),
        };
        if promised.is_some_and(|bytes| bytes > CONTENT_MAX as u64) {
            return Err(self.too_long(at));
        }
        loop {
            if !self.take(3)? {
                return Ok(Walk::Cut);
            }
            let [.., b0, b1, b2] = self.compressed[..] else {
                unreachable!("three bytes have been taken")
            };
            let block = u32::from_le_bytes([b0, b1, b2, 0]);
            let (last, kind, size) = (block & 1 == 1, block >> 1 & 3, (block >> 3) as usize);
            if kind == 3 || size > BLOCK_MAX {
                return Err(self.file.damaged(at, "the frame has a block that is none"));
            }
            if self.compressed.len() + size > COMPRESSED_MAX {
                return Err(self.too_long(at));
            }
            if !self.take(if kind == 1 { 1 } else { size })? {
                return Ok(Walk::Cut);
            }
            if last {
                break;
            }
        }
        if descriptor & 0b100 != 0 && !self.take(4)? {
            return Ok(Walk::Cut);
        }
        Ok(Walk::Whole(promised))
    }

    fn too_long(&self, at: u64) -> TraceError {
        let what = format!("the frame has more than {CONTENT_MAX} bytes of content");
        self.file.damaged(at, what)
    }

    fn decompress(&mut self, at: u64, promised: Option<u64>) -> Result<(), TraceError> {
        self.content.clear();
        let damaged = |error: std::io::Error| {
            self.file
                .damaged(at, format!("the frame does not decompress: {error}"))
        };
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(&self.compressed[..]).map_err(damaged)?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
        decoder
            .single_frame()
            .take(CONTENT_MAX as u64 + 1)
            .read_to_end(&mut self.content)
            .map_err(damaged)?;
        if self.content.len() > CONTENT_MAX {
            return Err(self.too_long(at));
        }
        if promised.is_some_and(|bytes| bytes != self.content.len() as u64) {
            return Err(self
                .file
                .damaged(at, "the frame has another length than it says"));
        }
        Ok(())
    }
}
