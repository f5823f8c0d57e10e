//! The container on disk: what is written is read, also where it is cut, packed, or damaged.
#![cfg(feature = "container")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use harp_trace::block::{Block, Hash, Message, Payload, Policy};
use harp_trace::container::{name_of, pack, ErrorKind, Manifest, Trace, TraceError, Writer};

fn call(time: u64, payload: Option<Payload>) -> Block<'static> {
    Block::Call(Message {
        time,
        session: 0,
        bytes: b"the record of a call on the wire",
        payload,
    })
}

/// A trace of `frames` frames with `blocks` calls each, and one content that occurs twice.
fn write(folder: &Path, frames: u64, blocks: u64) -> Hash {
    let mut writer = Writer::create(folder, Manifest::new("vector_add", "all=full"), 3).unwrap();
    writer.write_block(&Block::Define(b"{}")).unwrap();
    let mut hash = Hash::default();
    for _ in 0..2 {
        let mut blob = writer.blob(true);
        blob.write(&[7; 5000]);
        blob.write(b"more");
        let kept = blob.finish();
        writer.kept(&kept);
        hash = kept.hash;
        let payload = Payload {
            policy: Policy::Full,
            length: kept.bytes,
            hash,
        };
        writer.write_block(&call(0, Some(payload))).unwrap();
    }
    for frame in 0..frames {
        for block in 0..blocks {
            writer
                .write_block(&call(frame * blocks + block, None))
                .unwrap();
        }
        writer.flush().unwrap();
    }
    let ended = BTreeMap::from([("reason".to_owned(), "exit".into())]);
    writer.finish(ended).unwrap();
    hash
}

/// How many blocks can be read, and whether the calls are cut.
fn read(path: &Path) -> Result<(u64, bool), TraceError> {
    content_of(path).map(|(bodies, cut)| (bodies.len() as u64, cut))
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.htrace");
    (folder, path)
}

#[test]
fn what_was_written_is_read_from_a_folder_and_from_a_tar() {
    let (folder, path) = folder();
    let hash = write(&path, 3, 100);
    let packed = folder.path().join("packed.htrace");
    pack(&Trace::open(&path).unwrap(), &packed).unwrap();
    for path in [&path, &packed] {
        let trace = Trace::open(path).unwrap();
        assert!(trace.complete());
        let counts = &trace.manifest().counts;
        assert_eq!((counts.blocks, counts.calls), (303, 302));
        assert_eq!((counts.blobs, counts.blob_bytes), (1, 5004));
        assert_eq!((counts.full_payloads, counts.full_bytes), (2, 10008));
        assert_eq!(trace.manifest().ended["reason"], "exit");
        assert_eq!(read(path), Ok((303, false)));
        let blob = trace.blob(&hash).unwrap();
        assert_eq!((blob.len(), &blob[4998..]), (5004, &b"\x07\x07more"[..]));
        assert_eq!(trace.blobs().unwrap(), (vec![hash], vec![]));
        let missing = trace.blob(&[1; 32]).unwrap_err();
        assert_eq!(missing.kind, ErrorKind::Missing);
    }
}

/// Other tools read the calls, and the tar.
#[test]
fn the_formats_are_those_of_other_tools() {
    let (folder, path) = folder();
    let hash = write(&path, 2, 50);
    let packed = folder.path().join("packed.tar");
    pack(&Trace::open(&path).unwrap(), &packed).unwrap();
    let calls = fs::read(path.join("calls.zst")).unwrap();
    let plain = zstd::stream::decode_all(&calls[..]).unwrap();
    // A block, and a run of such as are like it, in each of two frames.
    assert!(plain.len() as u64 <= Trace::open(&path).unwrap().manifest().counts.bytes / 10);
    // The seek table is the last 9 + 2 * 8 bytes behind a skippable frame's head.
    let footer = &calls[calls.len() - 9..];
    assert_eq!(footer, b"\x02\x00\x00\x00\x00\xb1\xea\x92\x8f");
    let entries = &calls[calls.len() - 25..calls.len() - 9];
    let sizes: Vec<u32> = entries
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(sizes[0] + sizes[2] + 25 + 8, calls.len() as u32);
    assert_eq!(sizes[1] + sizes[3], plain.len() as u32);
    let Ok(listed) = std::process::Command::new("tar")
        .arg("tf")
        .arg(&packed)
        .output()
    else {
        return eprintln!("skipped: `tar` would list the packed trace");
    };
    let name = name_of(&hash);
    let blob = format!("blobs/{}/{name}", &name[..2]);
    let expected = format!("MANIFEST.json\ncalls.zst\n{blob}\n");
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), expected);
}

#[test]
fn a_trace_whose_writer_is_gone_opens_up_to_its_last_frame() {
    let (_folder, path) = folder();
    let mut writer = Writer::create(&path, Manifest::new("p", ""), 1).unwrap();
    writer.write_block(&call(1, None)).unwrap();
    writer.flush().unwrap();
    writer.write_block(&call(2, None)).unwrap();
    drop(writer);
    let trace = Trace::open(&path).unwrap();
    assert!(!trace.complete());
    assert_eq!(trace.manifest().program, "p");
    assert_eq!(read(&path), Ok((1, false)));
}

#[test]
fn a_trace_ends_where_it_is_as_large_as_it_may_be() {
    let (_folder, path) = folder();
    let mut writer = Writer::create(&path, Manifest::new("p", ""), 1).unwrap();
    writer.write_block(&call(1, None)).unwrap();
    writer.flush().unwrap();
    writer.limit_to(4096);
    let noise: Vec<u8> = (0..256u32)
        .flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes())
        .collect();
    // The second has room, and would come after a gap.
    for block in [Block::Annotation(&noise), call(2, None)] {
        writer.write_block(&block).unwrap();
        assert_eq!(writer.flush().unwrap_err().kind, ErrorKind::TooLarge);
        assert_eq!(writer.give_up().blocks, 1);
    }
    writer.finish(BTreeMap::new()).unwrap();
    assert_eq!(read(&path), Ok((1, false)));
}

#[test]
fn calls_cut_anywhere_open_up_to_the_cut() {
    let (_folder, path) = folder();
    write(&path, 3, 4);
    let calls = fs::read(path.join("calls.zst")).unwrap();
    let mut before = 0;
    for bytes in 0..calls.len() {
        fs::write(path.join("calls.zst"), &calls[..bytes]).unwrap();
        let (count, _) = read(&path).unwrap_or_else(|error| panic!("{bytes}: {error}"));
        assert!(count >= before, "{bytes}");
        before = count;
    }
    assert_eq!(before, 15);
}

#[test]
fn a_tar_cut_anywhere_opens_up_to_the_cut_or_says_why_not() {
    let (folder, path) = folder();
    write(&path, 3, 4);
    let packed = folder.path().join("packed");
    pack(&Trace::open(&path).unwrap(), &packed).unwrap();
    let bytes = fs::read(&packed).unwrap();
    let mut opened = 0;
    for cut in (0..bytes.len()).step_by(7) {
        fs::write(&packed, &bytes[..cut]).unwrap();
        match Trace::open(&packed) {
            Ok(trace) => {
                assert!(!trace.complete() || cut >= bytes.len() - 1024, "{cut}");
                opened += u32::from(read(&packed).is_ok());
            }
            Err(error) => assert_ne!(error.kind, ErrorKind::System, "{cut}: {error}"),
        }
    }
    assert!(opened > 100);
}

#[test]
fn a_flipped_bit_in_the_calls_is_noticed() {
    let (_folder, path) = folder();
    write(&path, 2, 20);
    let calls = fs::read(path.join("calls.zst")).unwrap();
    let content = content_of(&path).unwrap();
    let mut seen = 0;
    for at in 0..calls.len() {
        let mut flipped = calls.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(path.join("calls.zst"), &flipped).unwrap();
        match content_of(&path) {
            // Heads have bits without a meaning, and the seek table is not needed.
            Ok(read) if read == content => continue,
            Ok((read, cut)) => assert!(read.len() <= content.0.len() && cut, "{at}"),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Damaged, "{error}");
                assert!(error.offset.is_some());
            }
        }
        seen += 1;
    }
    assert!(seen + 80 > calls.len(), "{seen} of {}", calls.len());
}

/// The bodies of all blocks, and whether the calls are cut.
fn content_of(path: &Path) -> Result<(Vec<Vec<u8>>, bool), TraceError> {
    let mut blocks = Trace::open(path)?.blocks()?;
    let mut bodies = Vec::new();
    while let Some(block) = blocks.next()? {
        block.decode()?;
        bodies.push(block.raw.body.to_vec());
    }
    Ok((bodies, blocks.cut()))
}

#[test]
fn another_content_under_a_name_is_noticed() {
    let (_folder, path) = folder();
    let hash = write(&path, 1, 1);
    let name = name_of(&hash);
    fs::write(path.join("blobs").join(&name[..2]).join(&name), "other").unwrap();
    let error = Trace::open(&path).unwrap().blob(&hash).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Damaged);
    assert!(error.file.ends_with(&name));
}

#[test]
fn links_pipes_and_folders_in_a_trace_are_refused() {
    let (folder, path) = folder();
    let hash = write(&path, 1, 1);
    let name = name_of(&hash);
    let blobs = path.join("blobs").join(&name[..2]);
    let blob = blobs.join(&name);
    let outside = folder.path().join("outside");
    fs::rename(&blob, &outside).unwrap();
    symlink(&outside, &blob).unwrap();
    let refused = |what: &str| {
        let error = Trace::open(&path).unwrap().blob(&hash).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Damaged, "{error}");
        assert!(error.what.contains(what), "{error}");
    };
    refused("link");
    // A folder on the way that is a link.
    fs::remove_dir_all(&blobs).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::copy(&outside, elsewhere.join(&name)).unwrap();
    symlink(&elsewhere, &blobs).unwrap();
    refused("link");
    fs::remove_file(&blobs).unwrap();
    fs::create_dir_all(&blob).unwrap();
    refused("no file");
    fs::remove_dir(&blob).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&blob).status();
    if made.is_ok_and(|status| status.success()) {
        refused("no file");
    }
}

#[test]
fn what_is_no_trace_is_told() {
    let (folder, path) = folder();
    let kind = |path: &Path| Trace::open(path).err().map(|error| error.kind);
    assert_eq!(kind(&path), Some(ErrorKind::NoTrace));
    assert_eq!(kind(folder.path()), Some(ErrorKind::NoTrace));
    for bytes in [&b""[..], b"#!/bin/sh\n", &[0; 4096]] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(kind(&path), Some(ErrorKind::NoTrace));
    }
    assert_eq!(kind(Path::new("/dev/null")), Some(ErrorKind::NoTrace));
    fs::remove_file(&path).unwrap();
    write(&path, 1, 1);
    let again = Writer::create(&path, Manifest::new("", ""), 1)
        .err()
        .unwrap();
    assert!(again.to_string().contains("exists"), "{again}");
    assert!(Trace::open(&path).unwrap().complete());
}

/// A tar of one member, as anybody may make it.
fn tar(name: &str, kind: u8, size: &[u8], content: &[u8]) -> Vec<u8> {
    let mut head = [0u8; 512];
    head[..name.len()].copy_from_slice(name.as_bytes());
    head[124..124 + size.len()].copy_from_slice(size);
    head[156] = kind;
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

#[test]
fn members_that_escape_or_lie_are_refused_with_their_place() {
    let (_folder, path) = folder();
    let name = "f".repeat(64);
    let good = tar(
        "MANIFEST.json",
        b'0',
        b"00000000055\0",
        br#"{"format_major": 1, "min_reader": 1, "a": 10}"#,
    );
    for (name, kind) in [
        ("../MANIFEST.json", b'0'),
        ("/etc/passwd", b'0'),
        ("blobs/../../escaped", b'0'),
        (&*format!("blobs/ff/../ff/{name}"), b'0'),
        (&*format!("blobs/00/{name}"), b'0'),
        (&*format!("blobs/{}", name.to_uppercase()), b'0'),
        ("calls.zst", b'2'),
        ("calls.zst", b'1'),
        ("calls.zst\n", b'0'),
        ("MANIFEST.json", b'0'),
    ] {
        let mut bytes = good[..1024].to_vec();
        bytes.extend(tar(name, kind, b"00000000000\0", b""));
        fs::write(&path, bytes).unwrap();
        let error = Trace::open(&path).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Damaged, "{name}");
        assert_eq!(error.offset, Some(1024), "{name}");
    }
    for size in [
        &b"\x80\0\0\0\x80\0\0\0\0\0\0\0"[..],
        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"-1\0",
        b"77777777777\0",
    ] {
        let mut bytes = good[..1024].to_vec();
        bytes.extend(tar("calls.zst", b'0', size, b""));
        fs::write(&path, bytes).unwrap();
        match Trace::open(&path) {
            Ok(trace) => assert!(!trace.complete()),
            Err(error) => assert_eq!((error.kind, error.offset), (ErrorKind::Damaged, Some(1024))),
        }
    }
}
