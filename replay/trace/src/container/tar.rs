//! A trace packed into one tar (POSIX ustar, nothing compressed): the manifest, the calls, the blobs.
//!
//! Members are found by their names, and only names that a trace has are looked at; nothing is ever
//! extracted by the name that stands in the tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::blobs::{create, hash_of, path_of};
use super::member::Member;
use super::{Trace, TraceError, CALLS, INCOMPLETE, MANIFEST};
use crate::block::Hash;

const RECORD: u64 = 512;
const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
/// Sizes from here on do not fit eleven octal digits and are written in binary, as GNU tar does.
const OCTAL_MAX: u64 = 1 << 33;

/// Where the members of a packed trace lie.
pub struct Packed {
    path: String,
    file: Arc<File>,
    members: BTreeMap<String, (u64, u64)>,
    bytes: u64,
    cut: bool,
}

impl Packed {
    /// Reads the heads of all members.
    ///
    /// # Errors
    /// For a file that is no tar, and for a member that no trace has, with its place.
    pub fn open(path: &Path, file: File) -> Result<Packed, TraceError> {
        let name = path.display().to_string();
        let bytes = file
            .metadata()
            .map_err(|error| TraceError::system(&name, "read", &error))?
            .len();
        let mut packed = Packed {
            path: name,
            file: Arc::new(file),
            members: BTreeMap::new(),
            bytes,
            cut: false,
        };
        packed.read_heads()?;
        Ok(packed)
    }

    fn read_heads(&mut self) -> Result<(), TraceError> {
        let mut at = 0;
        loop {
            if self.bytes < at + RECORD {
                self.cut = true;
                return self.some(at);
            }
            let mut head = [0; RECORD as usize];
            self.file
                .read_exact_at(&mut head, at)
                .map_err(|error| TraceError::system(&self.path, "read", &error))?;
            if head == [0; RECORD as usize] {
                return self.some(at);
            }
            let damaged = |what: &str| TraceError::damaged(&self.path, at, what);
            if octal(&head[CHECKSUM]) != Some(checksum(&head)) {
                let what = "it is neither a trace's folder nor a tar of one";
                return Err(match at {
                    0 => TraceError::no_trace(&self.path, what),
                    _ => damaged("the head of a member has a wrong checksum"),
                });
            }
            let size = number(&head[SIZE]).ok_or_else(|| damaged("a member's size is none"))?;
            let start = at + RECORD;
            let next = size
                .checked_next_multiple_of(RECORD)
                .and_then(|padded| start.checked_add(padded))
                .ok_or_else(|| damaged("a member is larger than any file"))?;
            if let Some(name) = self.name_of(&head, at)? {
                let there = size.min(self.bytes - start);
                if self.members.insert(name, (start, there)).is_some() {
                    let what = "a member is there twice";
                    return Err(TraceError::damaged(&self.path, at, what));
                }
            }
            if start + size > self.bytes {
                self.cut = true;
                return self.some(at);
            }
            at = next.min(self.bytes);
        }
    }

    fn some(&self, at: u64) -> Result<(), TraceError> {
        match self.members.is_empty() {
            true => Err(TraceError::no_trace(
                &self.path,
                format!("it is neither a trace's folder nor a tar of one: byte {at} ends it"),
            )),
            false => Ok(()),
        }
    }

    /// The name of a member that is a file of a trace; `None` for what every tar may have besides.
    fn name_of(&self, head: &[u8; RECORD as usize], at: u64) -> Result<Option<String>, TraceError> {
        let kind = head[KIND];
        let name = &head[NAME];
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).unwrap_or_default();
        let name = name.strip_prefix("./").unwrap_or(name);
        // Folders, and headers of pax and GNU tar.
        if matches!(kind, b'5' | b'x' | b'g') {
            return Ok(None);
        }
        let is_blob = || {
            let hash = name.rsplit('/').next().and_then(hash_of);
            hash.is_some_and(|hash| path_of(&hash) == name)
        };
        if !matches!(kind, b'0' | 0)
            || !(matches!(name, MANIFEST | INCOMPLETE | CALLS) || is_blob())
        {
            let what = format!("a member called {name:?} has no place in a trace");
            return Err(TraceError::damaged(&self.path, at, what));
        }
        Ok(Some(name.to_owned()))
    }

    pub fn member(&self, name: &str) -> Option<Member> {
        let (start, bytes) = *self.members.get(name)?;
        Some(Member {
            name: name.to_owned(),
            file: self.file.clone(),
            start,
            bytes,
            cut: self.cut && start + bytes == self.bytes,
        })
    }

    pub fn blobs(&self) -> Vec<Hash> {
        let names = self.members.keys();
        names
            .filter_map(|name| hash_of(name.rsplit('/').next()?))
            .collect()
    }

    pub fn cut(&self) -> bool {
        self.cut
    }
}

/// The sum of a head's bytes, those of the sum itself taken as spaces.
fn checksum(head: &[u8; RECORD as usize]) -> u64 {
    let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = head[CHECKSUM].iter().map(|byte| u64::from(*byte)).sum();
    sum - own + 8 * u64::from(b' ')
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches([' ', '\0']), 8).ok()
}

/// A number in octal digits, or in binary where its first bit says so.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 == 0 {
        return octal(field);
    }
    let (low, high) = (field.last_chunk::<8>()?, &field[1..field.len() - 8]);
    (field[0] == 0x80 && high.iter().all(|byte| *byte == 0)).then(|| u64::from_be_bytes(*low))
}

fn head(name: &str, size: u64) -> [u8; RECORD as usize] {
    let mut head = [0; RECORD as usize];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < OCTAL_MAX {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(KIND, b"0");
    put(257, b"ustar\x0000");
    let sum = checksum(&head);
    head[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

/// Packs what `trace` holds into one file, which is there only when it is whole.
///
/// # Errors
/// What the system says, and damage of the trace.
pub fn pack(trace: &Trace, path: &Path) -> Result<(), TraceError> {
    let shown = path.display().to_string();
    let failed = |error: io::Error| TraceError::system(&shown, "write", &error);
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".incomplete");
    let unfinished = Path::new(&unfinished);
    let packed = (|| {
        let mut out = io::BufWriter::new(create(unfinished).map_err(failed)?);
        for name in trace.files()? {
            let member = trace.file(&name)?;
            out.write_all(&head(&name, member.bytes()))
                .map_err(failed)?;
            let mut buffer = vec![0; 1 << 20];
            let mut at = 0;
            while at < member.bytes() {
                let count = (member.bytes() - at).min(buffer.len() as u64) as usize;
                member.read(at, &mut buffer[..count])?;
                out.write_all(&buffer[..count]).map_err(failed)?;
                at += count as u64;
            }
            let padding = member.bytes().next_multiple_of(RECORD) - member.bytes();
            io::copy(&mut io::repeat(0).take(padding), &mut out).map_err(failed)?;
        }
        out.write_all(&[0; 2 * RECORD as usize]).map_err(failed)?;
        out.flush().map_err(failed)?;
        std::fs::rename(unfinished, path).map_err(failed)
    })();
    if packed.is_err() {
        let _ = std::fs::remove_file(unfinished);
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for size in [0, 1, OCTAL_MAX - 1, OCTAL_MAX, 1 << 40, u64::MAX] {
            let head = head("calls.zst", size);
            assert_eq!(number(&head[SIZE]), Some(size));
            assert_eq!(octal(&head[CHECKSUM]), Some(checksum(&head)));
        }
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            None
        );
        assert_eq!(number(b"zzzzzzzzzzz\0"), None);
    }
}
