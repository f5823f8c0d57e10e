//! A trace as a folder: files are opened within it, without following a link.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blobs::{hash_of, name_of};
use super::member::Member;
use super::{TraceError, BLOBS};
use crate::block::Hash;

pub struct Folder {
    path: PathBuf,
    folder: OwnedFd,
}

impl Folder {
    pub fn open(path: &Path) -> io::Result<Folder> {
        let folder = File::open(path)?;
        Ok(Folder {
            path: path.to_owned(),
            folder: folder.into(),
        })
    }

    /// The file `name`, whose parts are separated by `/`; `None` if it is not there.
    pub fn member(&self, name: &str) -> Result<Option<Member>, TraceError> {
        match self.open_within(name) {
            Ok(file) => {
                let told = file
                    .metadata()
                    .map_err(|error| TraceError::system(name, "read", &error))?;
                if !told.is_file() {
                    return Err(TraceError::damaged(name, 0, "it is no file"));
                }
                Ok(Some(Member {
                    name: name.to_owned(),
                    file: Arc::new(file),
                    start: 0,
                    bytes: told.len(),
                    cut: false,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => Err(
                TraceError::damaged(name, 0, "it is a link, which no trace has"),
            ),
            Err(error) => Err(TraceError::system(name, "open", &error)),
        }
    }

    fn open_within(&self, name: &str) -> io::Result<File> {
        let mut folder: Option<OwnedFd> = None;
        let mut parts = name.split('/').peekable();
        loop {
            let part = parts.next().ok_or(io::ErrorKind::NotFound)?;
            let whole = parts.peek().is_none();
            let within = folder.as_ref().unwrap_or(&self.folder);
            // A pipe would be waited for without O_NONBLOCK.
            let kind = if whole {
                libc::O_NONBLOCK
            } else {
                libc::O_DIRECTORY
            };
            let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW | kind;
            let part = CString::new(part)?;
            // SAFETY: a C string and a folder that is held; the descriptor is new and nobody else's.
            let opened = unsafe {
                let descriptor = libc::openat(within.as_raw_fd(), part.as_ptr(), flags);
                if descriptor < 0 {
                    return Err(io::Error::last_os_error());
                }
                OwnedFd::from_raw_fd(descriptor)
            };
            if whole {
                return Ok(opened.into());
            }
            folder = Some(opened);
        }
    }

    /// The blobs that are there, and names below `blobs` that are none.
    pub fn blobs(&self) -> Result<(Vec<Hash>, Vec<String>), TraceError> {
        let (mut blobs, mut strange) = (Vec::new(), Vec::new());
        let root = self.path.join(BLOBS);
        for (name, folder) in entries(&root)? {
            if !folder {
                strange.push(name);
                continue;
            }
            for (inner, _) in entries(&root.join(&name))? {
                match hash_of(&inner) {
                    Some(hash) if name_of(&hash).starts_with(&name) && name.len() == 2 => {
                        blobs.push(hash);
                    }
                    _ => strange.push(format!("{name}/{inner}")),
                }
            }
        }
        blobs.sort_unstable();
        strange.sort_unstable();
        Ok((blobs, strange))
    }
}

/// The names in a folder, and which of them are folders themselves. None if it is not there.
fn entries(folder: &Path) -> Result<Vec<(String, bool)>, TraceError> {
    let failed =
        |error: io::Error| TraceError::system(&folder.display().to_string(), "list", &error);
    let entries = match std::fs::symlink_metadata(folder) {
        Ok(told) if told.is_dir() => std::fs::read_dir(folder).map_err(failed)?,
        Ok(_) => return Err(TraceError::damaged(BLOBS, 0, "it is no folder")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let told = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Ok((name, entry.file_type()?.is_dir()))
    };
    entries.map(told).collect::<io::Result<_>>().map_err(failed)
}
