//! Contents, each kept once under its BLAKE3 hash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::BLOBS;
use crate::block::Hash;

/// Shorter contents are not written before their name is known, and then only if they are new.
const BUFFER_BYTES: usize = 1 << 20;

/// The hash in hexadecimal digits.
pub fn name_of(hash: &Hash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

/// The hash that 64 lower-case hexadecimal digits are.
pub fn hash_of(name: &str) -> Option<Hash> {
    let hash = blake3::Hash::from_hex(name).ok()?;
    (hash.to_hex().as_str() == name).then(|| *hash.as_bytes())
}

/// Where a blob lies within the trace.
pub fn path_of(hash: &Hash) -> String {
    let name = name_of(hash);
    format!("{BLOBS}/{}/{name}", &name[..2])
}

/// One content on its way into a trace: hashed, and kept if it is to be.
#[derive(Debug)]
pub struct BlobWriter {
    trace: PathBuf,
    keep: bool,
    /// Bytes that may be kept.
    room: u64,
    hasher: blake3::Hasher,
    bytes: u64,
    buffer: Vec<u8>,
    file: Option<(PathBuf, File)>,
    failed: Option<io::Error>,
}

/// What has become of a content.
#[derive(Debug)]
pub struct Kept {
    pub hash: Hash,
    pub bytes: u64,
    /// Whether it is new to the trace; `Err` if it could not be kept.
    pub new: io::Result<bool>,
}

impl BlobWriter {
    /// For the trace in folder `trace`; without `keep` it is hashed only, and so is one of more than `room` bytes.
    pub(super) fn new(trace: &Path, keep: bool, room: u64) -> BlobWriter {
        BlobWriter {
            trace: trace.to_owned(),
            keep,
            room,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            buffer: Vec::new(),
            file: None,
            failed: None,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        if !self.keep || self.failed.is_some() {
            return;
        }
        if self.bytes > self.room {
            return self.fail(io::Error::from_raw_os_error(libc::EFBIG));
        }
        if self.buffer.len() + bytes.len() <= BUFFER_BYTES {
            self.buffer.extend_from_slice(bytes);
            return;
        }
        if let Err(error) = self.spill(bytes) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.buffer = Vec::new();
    }

    fn spill(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let root = make_folder(self.trace.join(BLOBS))?;
            let path = root.join("incoming");
            self.file = Some((path.clone(), create(&path)?));
        }
        if let Some((_, file)) = &mut self.file {
            file.write_all(&self.buffer)?;
            self.buffer.clear();
            file.write_all(bytes)?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Kept {
        let hash = *self.hasher.finalize().as_bytes();
        let new = match self.failed.take() {
            // It was too large to be kept, and is there already.
            Some(_) if self.trace.join(path_of(&hash)).exists() => Ok(false),
            Some(error) => Err(error),
            None if !self.keep => Ok(false),
            None => self.keep_as(&hash),
        };
        Kept {
            hash,
            bytes: self.bytes,
            new,
        }
    }

    fn keep_as(&mut self, hash: &Hash) -> io::Result<bool> {
        let path = self.trace.join(path_of(hash));
        if path.try_exists()? {
            return Ok(false);
        }
        if self.file.is_none() {
            self.spill(&[])?;
        }
        if let Some((incoming, mut file)) = self.file.take() {
            let moved = file
                .write_all(&self.buffer)
                .and_then(|()| make_folder(path.with_file_name("")))
                .and_then(|_| fs::rename(&incoming, &path));
            if moved.is_err() {
                let _ = fs::remove_file(&incoming);
            }
            moved?;
        }
        Ok(true)
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if let Some((incoming, _)) = self.file.take() {
            let _ = fs::remove_file(incoming);
        }
    }
}

/// Makes a folder for this user alone, and the one above it, if they are not there.
pub fn make_folder(path: PathBuf) -> io::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)?;
    Ok(path)
}

/// Makes a file for this user alone.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}
