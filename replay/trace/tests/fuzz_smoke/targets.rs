//! What is fuzzed, shared by the short run here and by cargo-fuzz.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;

use harp_trace::container::{Manifest, Trace, Writer};
use harp_trace::event::{assemble, Lines};
use harp_trace::repack::{repack, Options};
use harp_trace::verify::verify;

/// A file in memory, and a path to it.
fn file(bytes: &[u8]) -> (File, PathBuf) {
    // SAFETY: a name of static life; the descriptor is new and nobody else's.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"trace".as_ptr(), 0)) };
    file.write_all(bytes).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
}

/// Everything that is done with a trace, but for writing it again.
fn read(trace: &Trace) {
    for full in [false, true] {
        let Ok(mut lines) = Lines::new(trace, full) else {
            return;
        };
        let end = loop {
            match lines.next_line() {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        lines.last_line(end.as_ref());
    }
    verify(trace);
}

/// Any bytes as a packed trace.
pub fn packed(bytes: &[u8]) {
    let (_file, path) = file(bytes);
    if let Ok(trace) = Trace::open(&path) {
        read(&trace);
    }
}

/// Any bytes as the blocks of a trace whose frames are in order.
pub fn blocks(bytes: &[u8]) {
    let calls = zstd::bulk::compress(bytes, 1).unwrap();
    let manifest = br#"{"format_major": 1, "min_reader": 1}"#;
    let mut tar = Vec::new();
    for (name, content) in [("MANIFEST.json", &manifest[..]), ("calls.zst", &calls)] {
        let mut head = [0u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        head[148..156].fill(b' ');
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&head);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    packed(&tar);
}

/// Any bytes as the lines of a trace, which is then read and written once more. Nothing but what was asked for may
/// be made.
pub fn lines(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made");
    let writer = Writer::create(&path, Manifest::new("", ""), 1).unwrap();
    let _ = assemble(bytes, writer);
    let options = Options {
        packed: bytes.len().is_multiple_of(2),
        level: 1,
    };
    if let Ok(trace) = Trace::open(&path) {
        read(&trace);
        let _ = repack(&trace, &folder.path().join("again"), options);
    }
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(name == "made" || name == "again", "{name:?}");
    }
}
