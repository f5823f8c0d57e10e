//! Writes a trace, as a folder.
//!
//! A trace that is not finished has its manifest under another name. What lies on disk after every
//! [`flush`](Writer::flush) is a trace that opens; what is needed to finish one is set aside, so that a
//! disk that fills up meanwhile does no harm to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use super::alike::Telling;
use super::blobs::{create, BlobWriter, Kept};
use super::frames::{seek_table, Compressor};
use super::{Counts, Manifest, TraceError, BLOBS, CALLS, FRAME_BYTES, INCOMPLETE, MANIFEST};
use crate::block::{read_head, Block, Hash, Lost, RawBlock, HEAD_BYTES};

/// The room that is set aside for the last frame and the seek table.
const RESERVE: u64 = 64 << 10;
/// Room is taken in steps of this size.
const STEP: u64 = 1 << 20;
/// Of a trace that may not be larger contents leave this part to blocks, whatever else there is.
const BLOCKS_SHARE: u64 = 8;
/// The room that the manifest has from the beginning.
const MANIFEST_ROOM: usize = 16 << 10;

/// A trace being written.
pub struct Writer {
    folder: PathBuf,
    manifest: Manifest,
    manifest_file: File,
    calls: File,
    compressor: Compressor,
    /// The frame that is being filled, and what it adds to the counts.
    frame: Telling,
    counts: Counts,
    frames: Vec<(u32, u32)>,
    end: u64,
    room: u64,
    /// Bytes of blocks and contents that it may have on disk.
    limit: u64,
}

/// A trace that has been finished.
#[derive(Clone, Debug)]
pub struct Finished {
    pub manifest: Manifest,
    /// The bytes of `calls.zst`.
    pub calls_bytes: u64,
}

impl Writer {
    /// Begins a trace in the new folder `folder`. Compression levels are zstd's.
    ///
    /// # Errors
    /// What the system says, also if there is such a folder already.
    pub fn create(folder: &Path, manifest: Manifest, level: i32) -> Result<Writer, TraceError> {
        let failed =
            |error: io::Error| TraceError::system(&folder.display().to_string(), "make", &error);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let began = Writer::begin(folder, manifest, level).map_err(failed);
        if began.is_err() {
            // Only what has just been made.
            for name in [INCOMPLETE, CALLS] {
                let _ = fs::remove_file(folder.join(name));
            }
            let _ = fs::remove_dir(folder);
        }
        began
    }

    fn begin(folder: &Path, mut manifest: Manifest, level: i32) -> io::Result<Writer> {
        manifest.raise_to_this_version();
        let calls = create(&folder.join(CALLS))?;
        let path = folder.join(INCOMPLETE);
        let unnamed = folder.join("MANIFEST.json.new");
        let mut manifest_file = create(&unnamed)?;
        let mut json = manifest.encode();
        // Spaces that a longer one will take the place of.
        json.resize(json.len().max(MANIFEST_ROOM), b' ');
        manifest_file.write_all(&json)?;
        fs::rename(unnamed, path)?;
        let mut writer = Writer {
            folder: folder.to_owned(),
            manifest,
            manifest_file,
            calls,
            compressor: Compressor::new(level)?,
            frame: Telling::new(),
            counts: Counts::default(),
            frames: Vec::new(),
            end: 0,
            room: 0,
            limit: u64::MAX,
        };
        writer.make_room(0)?;
        Ok(writer)
    }

    /// From now on only what makes the trace no larger than `bytes` is written, but for what finishing it takes. After
    /// the first frame that it has no room for it takes none: a trace ends there, and has no gaps.
    pub fn limit_to(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// The room that is left for blocks.
    fn left(&self) -> u64 {
        let used = self.end.saturating_add(self.manifest.counts.blob_bytes);
        self.limit.saturating_sub(used)
    }

    /// The room that is left for contents, which leave some to the blocks that name them.
    fn left_for_contents(&self) -> u64 {
        let most = self.limit - self.limit / BLOCKS_SHARE;
        self.left()
            .min(most.saturating_sub(self.manifest.counts.blob_bytes))
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn manifest_mut(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// Adds a block to the frame that is being filled; a full one is written first.
    ///
    /// # Errors
    /// As of [`flush`](Writer::flush); the block has been added even then.
    #[inline]
    pub fn write(&mut self, raw: RawBlock) -> Result<(), TraceError> {
        if self.frame.bytes() + HEAD_BYTES + raw.body.len() > FRAME_BYTES {
            let flushed = self.flush();
            self.add(raw);
            return flushed;
        }
        self.add(raw);
        Ok(())
    }

    #[inline]
    fn add(&mut self, raw: RawBlock) {
        self.frame.add(raw);
        self.counts.add(raw);
    }

    /// Adds a block with its fields, as [`write`](Writer::write) does.
    ///
    /// # Errors
    /// As of [`write`](Writer::write).
    pub fn write_block(&mut self, block: &Block) -> Result<(), TraceError> {
        let mut bytes = Vec::new();
        block.encode(&mut bytes);
        let (head, body) = bytes.split_at(HEAD_BYTES);
        let (number, flags, _) = read_head(head.try_into().unwrap_or_default());
        self.write(RawBlock {
            number,
            flags,
            body,
        })
    }

    /// Writes the frame that is being filled.
    ///
    /// # Errors
    /// What the system says. The file is as it was before, and the frame is kept: it may be tried again,
    /// or [given up](Writer::give_up).
    pub fn flush(&mut self) -> Result<(), TraceError> {
        self.flush_within(RESERVE)
    }

    /// Writes the frame that is being filled into the room that is set aside for the last one.
    ///
    /// # Errors
    /// As of [`flush`](Writer::flush).
    pub fn flush_last(&mut self) -> Result<(), TraceError> {
        self.flush_within(0)
    }

    fn flush_within(&mut self, reserve: u64) -> Result<(), TraceError> {
        if self.frame.bytes() == 0 {
            return Ok(());
        }
        let failed = |error: io::Error| TraceError::system(CALLS, "write", &error);
        let too_large = || failed(io::Error::from_raw_os_error(libc::EFBIG));
        if reserve > 0 && self.left() == 0 {
            return Err(too_large());
        }
        let content = self.frame.told();
        let frame = self.compressor.frame(content).map_err(failed)?;
        let sizes = (frame.len() as u32, content.len() as u32);
        if reserve > 0 {
            if frame.len() as u64 > self.left() {
                self.limit = 0;
                return Err(too_large());
            }
            self.make_room(frame.len() as u64).map_err(failed)?;
        }
        self.append(&frame).map_err(failed)?;
        self.frames.push(sizes);
        self.manifest.counts.merge(std::mem::take(&mut self.counts));
        self.frame.clear();
        Ok(())
    }

    /// Drops the frame that is being filled: what is lost by that.
    pub fn give_up(&mut self) -> Lost {
        self.counts = Counts::default();
        let mut all = Lost::default();
        for raw in self.frame.blocks() {
            all.add(match Block::decode(raw) {
                Ok(Block::Loss { lost, .. }) => lost,
                _ => Lost::block(raw.number, raw.body.len(), 0),
            });
        }
        self.frame.clear();
        all
    }

    /// A content that belongs to a block; one at a time. Give what has become of it to
    /// [`kept`](Writer::kept).
    pub fn blob(&self, keep: bool) -> BlobWriter {
        BlobWriter::new(&self.folder, keep, self.left_for_contents())
    }

    /// Keeps a content that is at hand, and counts it; what it is called.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&mut self, content: &[u8]) -> Result<Hash, TraceError> {
        let mut blob = self.blob(true);
        blob.write(content);
        let kept = blob.finish();
        self.kept(&kept);
        kept.new
            .map_err(|error| TraceError::system(BLOBS, "write", &error))?;
        Ok(kept.hash)
    }

    /// Counts a content that was to be kept, once.
    pub fn kept(&mut self, kept: &Kept) {
        if let Ok(true) = kept.new {
            let counts = &mut self.manifest.counts;
            counts.blobs += 1;
            counts.blob_bytes += kept.bytes;
        }
    }

    /// Finishes the trace: writes the last frame, the seek table, and the manifest under its name.
    /// `ended` is what the manifest says of the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(
        mut self,
        ended: BTreeMap<String, serde_json::Value>,
    ) -> Result<Finished, TraceError> {
        self.flush_last()?;
        // A trace without one is read as well.
        let _ = self.append(&seek_table(&self.frames));
        let failed = |error: io::Error| TraceError::system(CALLS, "write", &error);
        self.calls.set_len(self.end).map_err(failed)?;
        self.manifest.ended = ended;
        self.manifest.raise_to_this_version();
        let failed = |error: io::Error| TraceError::system(MANIFEST, "write", &error);
        let json = self.manifest.encode();
        self.manifest_file
            .write_all_at(&json, 0)
            .and_then(|()| self.manifest_file.set_len(json.len() as u64))
            .and_then(|()| fs::rename(self.folder.join(INCOMPLETE), self.folder.join(MANIFEST)))
            .map_err(failed)?;
        Ok(Finished {
            manifest: self.manifest,
            calls_bytes: self.end,
        })
    }

    /// Sees to it that `bytes` more fit, and what finishing the trace takes. Where the file system
    /// cannot promise that, nothing is done.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let needed = self.end + bytes + RESERVE + 8 * self.frames.len() as u64;
        if needed <= self.room {
            return Ok(());
        }
        for step in [STEP, 0] {
            let more = needed - self.room + step;
            // SAFETY: a system call on a file that is held.
            let result = unsafe {
                libc::fallocate(
                    self.calls.as_raw_fd(),
                    libc::FALLOC_FL_KEEP_SIZE,
                    self.room as libc::off_t,
                    more as libc::off_t,
                )
            };
            if result == 0 {
                self.room += more;
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) {
                return Ok(());
            }
            if step == 0 {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at the end, or leaves the file as it was.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.calls.write_all_at(bytes, self.end);
        match written {
            Ok(()) => self.end += bytes.len() as u64,
            // This gives back the room as well.
            Err(_) => {
                let _ = self.calls.set_len(self.end);
                self.room = self.end;
            }
        }
        written
    }
}
