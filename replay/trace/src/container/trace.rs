//! A trace that is there: opened, looked into.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::blobs::path_of;
use super::calls::Blocks;
use super::folder::Folder;
use super::manifest::MANIFEST_MAX;
use super::member::Member;
use super::tar::Packed;
use super::{Manifest, TraceError, CALLS, INCOMPLETE, MANIFEST};
use crate::block::{Hash, BODY_MAX};

enum Place {
    Folder(Folder),
    Packed(Packed),
}

/// A trace to be read.
pub struct Trace {
    path: PathBuf,
    place: Place,
    manifest: Manifest,
    complete: bool,
}

impl Trace {
    /// Opens the trace that `path` names: a folder, or a tar of one.
    ///
    /// # Errors
    /// For what is no trace, one that needs a newer reader, and damage.
    pub fn open(path: &Path) -> Result<Trace, TraceError> {
        let place = Place::open(path)?;
        let shown = path.display().to_string();
        let (complete, manifest) = match (place.member(MANIFEST)?, place.member(INCOMPLETE)?) {
            (Some(manifest), _) => (true, manifest),
            (None, Some(manifest)) => (false, manifest),
            (None, None) => {
                return Err(TraceError::no_trace(
                    &shown,
                    format!("it has no {MANIFEST}, so it is no trace"),
                ))
            }
        };
        let json = manifest.read_whole(MANIFEST_MAX)?;
        Ok(Trace {
            path: path.to_owned(),
            manifest: Manifest::decode(manifest.name(), &json)?,
            complete: complete && !place.cut(),
            place,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the recorder has finished it, and nothing of it is missing as far as that shows already.
    pub fn complete(&self) -> bool {
        self.complete
    }

    pub fn packed(&self) -> bool {
        matches!(self.place, Place::Packed(_))
    }

    /// Its blocks from the first on.
    ///
    /// # Errors
    /// Where there are none, or the system refuses.
    pub fn blocks(&self) -> Result<Blocks, TraceError> {
        self.file(CALLS).map(Blocks::new)
    }

    /// The content that `hash` names, which has been checked.
    ///
    /// # Errors
    /// `Missing` if it is not there; `Damaged` for another content, or one longer than any payload.
    pub fn blob(&self, hash: &Hash) -> Result<Vec<u8>, TraceError> {
        let name = path_of(hash);
        let file = self
            .place
            .member(&name)?
            .ok_or_else(|| TraceError::missing(&name, "the trace does not hold this content"))?;
        let bytes = file.read_whole(BODY_MAX as u64)?;
        if *blake3::hash(&bytes).as_bytes() != *hash {
            return Err(file.damaged(0, "the content has another hash than its name"));
        }
        Ok(bytes)
    }

    /// Whether the content that `hash` names is there; it has not been looked at.
    pub fn has_blob(&self, hash: &Hash) -> Result<bool, TraceError> {
        Ok(self.place.member(&path_of(hash))?.is_some())
    }

    /// The contents that are there, and names in their folder that have no place there.
    pub fn blobs(&self) -> Result<(Vec<Hash>, Vec<String>), TraceError> {
        match &self.place {
            Place::Folder(folder) => folder.blobs(),
            Place::Packed(packed) => Ok((packed.blobs(), Vec::new())),
        }
    }

    /// The bytes that it takes on disk.
    pub fn disk_bytes(&self) -> Result<u64, TraceError> {
        self.files()?
            .iter()
            .map(|name| Ok(self.file(name)?.bytes()))
            .sum()
    }

    /// The names of its files, in the order in which they are packed.
    pub(super) fn files(&self) -> Result<Vec<String>, TraceError> {
        let mut files = Vec::new();
        for name in [MANIFEST, INCOMPLETE, CALLS] {
            if self.place.member(name)?.is_some() {
                files.push(name.to_owned());
            }
        }
        files.extend(self.blobs()?.0.iter().map(path_of));
        Ok(files)
    }

    pub(super) fn file(&self, name: &str) -> Result<Member, TraceError> {
        self.place
            .member(name)?
            .ok_or_else(|| TraceError::missing(name, "the trace does not have this file"))
    }
}

impl Place {
    fn open(path: &Path) -> Result<Place, TraceError> {
        let shown = path.display().to_string();
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => TraceError::no_trace(&shown, "there is no such trace"),
            _ => TraceError::system(&shown, "open", &error),
        };
        let told = fs::metadata(path).map_err(failed)?;
        if told.is_dir() {
            return Folder::open(path).map(Place::Folder).map_err(failed);
        }
        if !told.is_file() {
            let what = "it is neither a trace's folder nor a file";
            return Err(TraceError::no_trace(&shown, what));
        }
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(failed)?;
        Packed::open(path, file).map(Place::Packed)
    }

    fn member(&self, name: &str) -> Result<Option<Member>, TraceError> {
        match self {
            Place::Folder(folder) => folder.member(name),
            Place::Packed(packed) => Ok(packed.member(name)),
        }
    }

    fn cut(&self) -> bool {
        matches!(self, Place::Packed(packed) if packed.cut())
    }
}
