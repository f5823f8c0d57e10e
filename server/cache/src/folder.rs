//! A tenant's folder: one file for each piece, named by the content, and the tenant's key.
//!
//! ```text
//! key                              32 random bytes
//! <name>-<fingerprint>             a piece, in hexadecimal; its time of change says when it was last used
//! new-<process>-<number>           one that is being written
//! ```
//!
//! A file gets its name when all of it is written. Nothing is synchronised to the disk: what a crash of the machine
//! leaves of a file is not what the file is called, which whoever reads it finds out.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use harp_content::{Key, Name, PIECE};

const KEY: &CStr = c"key";
const UNFINISHED: &str = "new-";
/// An unfinished file that is older is nobody's any more.
const ABANDONED_SECONDS: i64 = 600;
/// Hexadecimal digits of a name, and of a fingerprint behind it.
const NAME_DIGITS: usize = 2 * Name::BYTES;
const PRINT_DIGITS: usize = 16;
/// The disk keeps at least one part in so many free.
const FREE_PART: u64 = 20;

/// A piece as its file tells.
pub struct Found {
    pub name: Name,
    pub fingerprint: u64,
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub used: u64,
}

pub struct Folder {
    descriptor: OwnedFd,
    pub key: Key,
}

impl Folder {
    /// The folder called `label` in `parent`, made if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(parent: RawFd, label: &str) -> io::Result<Folder> {
        let label = CString::new(label)?;
        // SAFETY: C strings and an open folder.
        let descriptor = unsafe {
            if libc::mkdirat(parent, label.as_ptr(), 0o700) < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(error);
                }
            }
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            open_at(parent, &label, flags, 0)?
        };
        let key = read_or_make_key(&descriptor)?;
        Ok(Folder { descriptor, key })
    }

    /// What is in it. Files that nobody finished are removed, as is what is no piece.
    ///
    /// # Errors
    /// What the system says.
    pub fn pieces(&self) -> io::Result<Vec<Found>> {
        let now = now() as i64 / 1_000_000_000;
        let mut found = Vec::new();
        for file in entries(self.descriptor.as_raw_fd())? {
            if file.as_c_str() == KEY {
                continue;
            }
            let Some(status) = self.status(&file) else {
                continue;
            };
            let text = file.to_str().unwrap_or_default();
            let Some((name, fingerprint)) = parse(text) else {
                let abandoned = status.st_mtime.saturating_add(ABANDONED_SECONDS) < now;
                if abandoned && text.starts_with(UNFINISHED) {
                    self.remove(&file);
                }
                continue;
            };
            found.push(Found {
                name,
                fingerprint,
                bytes: status.st_size as u64,
                used: (status.st_mtime as u64 * 1_000_000_000)
                    .saturating_add(status.st_mtime_nsec as u64),
            });
        }
        Ok(found)
    }

    /// When something came into the folder or left it, in nanoseconds since 1970.
    pub fn changed(&self) -> u64 {
        // SAFETY: an all-zero stat is one, and lives.
        unsafe {
            let mut status: libc::stat = std::mem::zeroed();
            match libc::fstat(self.descriptor.as_raw_fd(), &mut status) {
                0 => status.st_mtime as u64 * 1_000_000_000 + status.st_mtime_nsec as u64,
                _ => 0,
            }
        }
    }

    /// Opens a piece to be read, and says that it was used at `used`.
    ///
    /// # Errors
    /// What the system says.
    pub fn open_piece(&self, name: &Name, fingerprint: u64, used: u64) -> io::Result<OwnedFd> {
        let file = file_name(name, fingerprint);
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW;
        let descriptor = open_at(self.descriptor.as_raw_fd(), &file, flags, 0)?;
        self.touch(&file, used);
        Ok(descriptor)
    }

    /// Says that a piece was used at `used`.
    pub fn used(&self, name: &Name, fingerprint: u64, used: u64) {
        self.touch(&file_name(name, fingerprint), used);
    }

    fn touch(&self, file: &CStr, used: u64) {
        let time = libc::timespec {
            tv_sec: (used / 1_000_000_000) as i64,
            tv_nsec: (used % 1_000_000_000) as i64,
        };
        // SAFETY: a C string and two times. Where it fails the piece is evicted earlier than it should be.
        unsafe {
            libc::utimensat(
                self.descriptor.as_raw_fd(),
                file.as_ptr(),
                [time, time].as_ptr(),
                libc::AT_SYMLINK_NOFOLLOW,
            );
        }
    }

    /// Writes a piece.
    ///
    /// # Errors
    /// `StorageFull` where the disk would be too full with it, else what the system says. Nothing is left of it then.
    pub fn write(&self, name: &Name, fingerprint: u64, content: &[u8]) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        self.check_room(content.len() as u64)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unfinished = CString::new(format!("{UNFINISHED}{}-{number}", std::process::id()))?;
        let folder = self.descriptor.as_raw_fd();
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = open_at(folder, &unfinished, flags, 0o600)?;
        let written = write_all(&file, content).and_then(|()| {
            let finished = file_name(name, fingerprint);
            // SAFETY: C strings.
            check(unsafe { libc::renameat(folder, unfinished.as_ptr(), folder, finished.as_ptr()) })
        });
        written.inspect_err(|_| self.remove(&unfinished))
    }

    /// Removes a piece, if it is there.
    pub fn forget(&self, name: &Name, fingerprint: u64) {
        self.remove(&file_name(name, fingerprint));
    }

    fn remove(&self, file: &CStr) {
        // SAFETY: a C string.
        unsafe { libc::unlinkat(self.descriptor.as_raw_fd(), file.as_ptr(), 0) };
    }

    fn status(&self, file: &CStr) -> Option<libc::stat> {
        // SAFETY: an all-zero stat is one, and lives; a C string.
        unsafe {
            let mut status: libc::stat = std::mem::zeroed();
            let flags = libc::AT_SYMLINK_NOFOLLOW;
            let folder = self.descriptor.as_raw_fd();
            (libc::fstatat(folder, file.as_ptr(), &mut status, flags) == 0).then_some(status)
        }
    }

    fn check_room(&self, bytes: u64) -> io::Result<()> {
        // SAFETY: an all-zero statfs is one, and lives.
        let status = unsafe {
            let mut status: libc::statfs = std::mem::zeroed();
            check(libc::fstatfs(self.descriptor.as_raw_fd(), &mut status))?;
            status
        };
        let block = status.f_bsize as u64;
        let free = (status.f_bavail * block).saturating_sub(bytes);
        if free < status.f_blocks * block / FREE_PART {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// A piece's content, as long as its file is, up to [`PIECE`].
///
/// # Errors
/// What the system says.
pub fn read_piece(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut content = vec![0; PIECE];
    let mut length = 0;
    while length < content.len() {
        let rest = &mut content[length..];
        // SAFETY: the slice's own pointer and length.
        match unsafe { libc::read(file.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len()) } {
            0 => break,
            count if count > 0 => length += count as usize,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    content.truncate(length);
    Ok(content)
}

/// The names of what is in a folder.
///
/// # Errors
/// What the system says.
pub fn entries(folder: RawFd) -> io::Result<Vec<CString>> {
    let mut found = Vec::new();
    // SAFETY: the descriptor is opened for this and goes with the stream; an entry is copied before the next is read.
    unsafe {
        let again = open_at(folder, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let stream = libc::fdopendir(again.as_raw_fd());
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        std::mem::forget(again);
        while let Some(entry) = libc::readdir(stream).as_ref() {
            let name = CStr::from_ptr(entry.d_name.as_ptr());
            if name != c"." && name != c".." {
                found.push(name.to_owned());
            }
        }
        libc::closedir(stream);
    }
    Ok(found)
}

/// Opens what `file` names in a folder.
///
/// # Errors
/// What the system says.
pub fn open_at(folder: RawFd, file: &CStr, flags: i32, mode: libc::mode_t) -> io::Result<OwnedFd> {
    // SAFETY: a C string; the new descriptor is owned once.
    unsafe {
        let descriptor = libc::openat(folder, file.as_ptr(), flags | libc::O_CLOEXEC, mode);
        check(descriptor)?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// What a system call that answers with a negative number has failed with.
pub fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes all of it.
///
/// # Errors
/// What the system says.
pub fn write_all(file: &OwnedFd, mut content: &[u8]) -> io::Result<()> {
    while !content.is_empty() {
        // SAFETY: the slice's own pointer and length.
        match unsafe { libc::write(file.as_raw_fd(), content.as_ptr().cast(), content.len()) } {
            count if count >= 0 => content = &content[count as usize..],
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// The tenant's key; a new one where there is none, or not one.
fn read_or_make_key(folder: &OwnedFd) -> io::Result<Key> {
    let folder = folder.as_raw_fd();
    let read = || {
        let file = open_at(folder, KEY, libc::O_RDONLY | libc::O_NOFOLLOW, 0).ok()?;
        let content = read_piece(&file).ok()?;
        content.try_into().ok().map(Key)
    };
    if let Some(key) = read() {
        return Ok(key);
    }
    let mut key = [0u8; Key::BYTES];
    // SAFETY: the array's own pointer and length.
    let count = unsafe { libc::getrandom(key.as_mut_ptr().cast(), key.len(), 0) };
    if count != key.len() as isize {
        return Err(io::Error::last_os_error());
    }
    let unfinished = CString::new(format!("{UNFINISHED}{}-key", std::process::id()))?;
    // SAFETY: C strings. One that is left over is this process's own, from before it.
    unsafe { libc::unlinkat(folder, unfinished.as_ptr(), 0) };
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    write_all(&open_at(folder, &unfinished, flags, 0o600)?, &key)?;
    // SAFETY: C strings. A link, which unlike a renaming never replaces the key that another process has just made.
    unsafe {
        let linked = libc::linkat(folder, unfinished.as_ptr(), folder, KEY.as_ptr(), 0);
        if linked < 0 && read().is_none() {
            // What is there is no key: nothing that was named by it can be used.
            check(libc::renameat(
                folder,
                unfinished.as_ptr(),
                folder,
                KEY.as_ptr(),
            ))?;
        }
        libc::unlinkat(folder, unfinished.as_ptr(), 0);
    }
    read().ok_or_else(|| io::Error::other("the key cannot be read back"))
}

fn file_name(name: &Name, fingerprint: u64) -> CString {
    let mut text = String::with_capacity(NAME_DIGITS + 1 + PRINT_DIGITS);
    for byte in name.0 {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a digit"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("a digit"));
    }
    text.push_str(&format!("-{fingerprint:016x}"));
    CString::new(text).expect("digits")
}

/// The name and the fingerprint that a file is called by.
fn parse(file: &str) -> Option<(Name, u64)> {
    let (digits, print) = file.split_once('-')?;
    let lower = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != NAME_DIGITS || print.len() != PRINT_DIGITS || !lower(digits) || !lower(print)
    {
        return None;
    }
    let mut name = [0; Name::BYTES];
    for (place, pair) in name.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).expect("digits");
        *place = u8::from_str_radix(pair, 16).expect("digits");
    }
    Some((Name(name), u64::from_str_radix(print, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(folder: &std::path::Path, label: &str) -> Folder {
        let parent = std::fs::File::open(folder).unwrap();
        Folder::open(parent.as_raw_fd(), label).unwrap()
    }

    #[test]
    fn a_piece_is_found_again_with_the_same_key() {
        let base = tempfile::tempdir().unwrap();
        let folder = open(base.path(), "tenant");
        let content = b"content".as_slice();
        let (name, print) = (folder.key.name(content), folder.key.fingerprint(content));
        folder.write(&name, print, content).unwrap();
        let again = open(base.path(), "tenant");
        assert!(again.key == folder.key);
        let found = again.pieces().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name, found[0].fingerprint), (name, print));
        assert_eq!(found[0].bytes, content.len() as u64);
        let file = again.open_piece(&name, print, 5_000_000_007).unwrap();
        assert_eq!(read_piece(&file).unwrap(), content);
        assert_eq!(again.pieces().unwrap()[0].used, 5_000_000_007);
        let mode = |path: &str| {
            let path = base.path().join(path);
            path.metadata().unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("tenant"), mode("tenant/key")), (0o700, 0o600));
        again.forget(&name, print);
        assert!(again.pieces().unwrap().is_empty());
    }

    #[test]
    fn tenants_have_different_keys() {
        let base = tempfile::tempdir().unwrap();
        assert!(open(base.path(), "one").key != open(base.path(), "two").key);
    }

    #[test]
    fn what_nobody_finished_goes_and_what_is_no_piece_stays_unseen() {
        let base = tempfile::tempdir().unwrap();
        let folder = open(base.path(), "tenant");
        let path = base.path().join("tenant");
        for file in ["new-1-1", "new-1-2", "README", "0123-4567"] {
            std::fs::write(path.join(file), b"x").unwrap();
        }
        folder.touch(c"new-1-1", 1_000_000_000);
        assert!(folder.pieces().unwrap().is_empty());
        assert!(!path.join("new-1-1").exists() && path.join("new-1-2").exists());
        assert!(path.join("README").exists());
    }

    #[test]
    fn a_key_that_is_none_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let before = open(base.path(), "tenant").key;
        std::fs::write(base.path().join("tenant/key"), b"short").unwrap();
        let after = open(base.path(), "tenant").key;
        assert!(after != before && after == open(base.path(), "tenant").key);
    }

    #[test]
    fn file_names_are_read_as_written() {
        let name = Name(std::array::from_fn(|i| (i * 37) as u8));
        let file = file_name(&name, 0xfeed);
        assert_eq!(parse(file.to_str().unwrap()), Some((name, 0xfeed)));
        for wrong in ["", "key", "-", &file.to_str().unwrap()[1..]] {
            assert_eq!(parse(wrong), None);
        }
        assert_eq!(parse(&file.to_str().unwrap().to_uppercase()), None);
    }
}
