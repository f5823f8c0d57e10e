//! Traces that somebody has cut, damaged or made up: a clear error with its place, and nothing else.
#![cfg(feature = "container")]

mod support;

use std::fs;
use std::path::Path;

use harp_mutation::Random;
use harp_trace::block::{Block, Lost, Message, Payload, Policy};
use harp_trace::container::{pack, ErrorKind, Manifest, Trace, TraceError, Writer};
use harp_trace::event::{assemble, Lines};
use harp_trace::repack::{repack, Options};
use harp_trace::verify::verify;
use harp_wire::calls::*;
use harp_wire::{CallId, HandleKind};
use support::{record, small_define, small_sample, Sample};

/// The lines of a trace until its end or what is wrong with it.
fn lines(trace: &Trace) -> (Vec<String>, Option<TraceError>) {
    let mut found = Vec::new();
    let mut lines = match Lines::new(trace, true) {
        Ok(lines) => lines,
        Err(error) => return (found, Some(error)),
    };
    loop {
        match lines.next_line() {
            Ok(Some(line)) => found.push(line),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

fn parsed(lines: &[String]) -> Vec<serde_json::Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap();
    lines.iter().map(parse).collect()
}

/// Every error says where: a place in a file, or the file that is missing.
fn is_clear(error: &TraceError) {
    let placed = error.offset.is_some() || error.kind != ErrorKind::Damaged;
    assert!(placed && !error.file.is_empty(), "{error:?}");
    assert_ne!(error.kind, ErrorKind::System, "{error}");
}

#[test]
fn a_packed_trace_cut_at_every_byte_is_read_up_to_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_of(folder.path(), |s| {
        s.call(CallId::cuMemAlloc_v2, Some(1), |e| {
            encode_cuMemAlloc_v2(e, 64)
        });
        s.writer.flush().unwrap();
        s.call_with(CallId::cuMemcpyHtoD_v2, Policy::Full, &[7; 64], |e| {
            encode_cuMemcpyHtoD_v2(e, support::ADDRESS, 0);
        });
    });
    let small = folder.path().join("small.htrace");
    pack(&trace, &small).unwrap();
    let packed = fs::read(&small).unwrap();
    let whole = lines(&trace).0;
    let path = folder.path().join("cut.htrace");
    let (mut opened, mut complete) = (0, 0);
    for cut in 0..packed.len() {
        fs::write(&path, &packed[..cut]).unwrap();
        match Trace::open(&path) {
            Ok(trace) => {
                opened += 1;
                let (read, error) = lines(&trace);
                assert!(read[..] == whole[..read.len()], "{cut}");
                if let Some(error) = error {
                    is_clear(&error);
                }
                complete += u32::from(trace.complete());
            }
            Err(error) => is_clear(&error),
        }
    }
    // But for the blocks at the end of the tar, which nobody needs.
    assert!(complete <= 1024, "{complete}");
    assert!(opened > packed.len() / 2);
    assert_eq!(whole.len(), 3);
}

#[test]
fn two_thousand_flipped_bits_are_noticed_or_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let (packed, _, _) = small_sample(folder.path());
    let whole = lines(&Trace::open(&folder.path().join("sample.tar")).unwrap()).0;
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("flipped.htrace");
    let out = room.path().join("out");
    let mut random = Random::new(6);
    let (mut noticed, mut repacked) = (0, 0);
    for case in 0..2000 {
        let mut bytes = packed.clone();
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        fs::write(&path, &bytes).unwrap();
        let trace = match Trace::open(&path) {
            Ok(trace) => trace,
            Err(error) => {
                is_clear(&error);
                noticed += 1;
                continue;
            }
        };
        let (read, error) = lines(&trace);
        assert!(read[..] == whole[..read.len()], "byte {at}");
        // Two calls of the sample cannot be decoded, damaged or not.
        let report = verify(&trace);
        report.problems.iter().for_each(is_clear);
        noticed += u32::from(error.is_some() || report.found > 2);
        if case % 10 == 0 {
            let options = Options {
                packed: case % 20 == 0,
                level: 1,
            };
            if repack(&trace, &out, options).is_ok() {
                repacked += 1;
                let _ = fs::remove_dir_all(&out).or_else(|_| fs::remove_file(&out));
            }
            assert_eq!(fs::read_dir(room.path()).unwrap().count(), 1);
        }
    }
    // What does not matter are padding, and words of JSON that mean nothing.
    assert!(noticed > 1000 && repacked > 10, "{noticed}, {repacked}");
}

/// A trace of one session with what `fill` puts into it.
fn trace_of(folder: &Path, fill: impl FnOnce(&mut Sample)) -> Trace {
    let path = folder.join("made.htrace");
    let _ = fs::remove_dir_all(&path);
    let mut sample = Sample::new(&path);
    sample.put(&Block::Define(&small_define()));
    fill(&mut sample);
    sample.finish();
    Trace::open(&path).unwrap()
}

#[test]
fn enormous_sizes_are_numbers_and_not_memory() {
    let folder = tempfile::tempdir().unwrap();
    const HUGE: u64 = 1 << 63;
    let trace = trace_of(folder.path(), |s| {
        s.put(&Block::Allocation {
            time: 0,
            session: 0,
            device: 0,
            address: 1 << 40,
            bytes: u64::MAX,
        });
        s.put(&Block::Loss {
            time: 0,
            lost: Lost {
                blocks: u64::MAX,
                bytes: u64::MAX,
                ..Lost::default()
            },
        });
        s.put(&Block::Loss {
            time: 0,
            lost: Lost {
                blocks: HUGE,
                bytes: HUGE,
                ..Lost::default()
            },
        });
        let payload = Payload {
            length: HUGE,
            ..Payload::unnamed(Policy::Full, 0)
        };
        s.put(&Block::Snapshot {
            session: 0,
            device: 0,
            address: u64::MAX,
            bytes: HUGE,
            payload,
        });
        // A run of bytes, a text and a list that are longer than everything there is.
        s.call(CallId::cuLaunchKernel, None, |e| {
            encode_cuLaunchKernel(
                e,
                HandleKind::Function.handle(1),
                [1; 3],
                [1; 3],
                0,
                0,
                0,
                &[],
            );
        });
        s.call(CallId::harp_blob_append, None, |e| {
            e.u64(1);
            e.u64(HUGE);
        });
        s.call(CallId::cuLibraryGetKernel, None, |e| {
            e.u64(HandleKind::Kernel.handle(1));
            e.u64(HandleKind::Library.handle(1));
            e.u32(u32::MAX);
        });
        s.call(CallId::cuModuleLoadData, None, |e| {
            e.u64(HandleKind::Module.handle(1));
            e.u64(HUGE);
            e.u32(u32::MAX);
        });
        let upload = record(
            CallId::cuMemcpyHtoD_v2,
            None,
            |e| encode_cuMemcpyHtoD_v2(e, 0, 0),
            0,
        );
        s.put(&Block::Call(Message {
            time: 0,
            session: 0,
            bytes: &upload,
            payload: Some(payload),
        }));
    });
    let (read, error) = lines(&trace);
    let error = error.expect("the snapshot's content is not there");
    assert_eq!((error.kind, read.len()), (ErrorKind::Missing, 4));
    let report = verify(&trace);
    // Three sizes, the record that is not as long as its payload says, the content, and the manifest's counts agree.
    assert_eq!(report.found, 5, "{:#?}", report.problems);
    assert_eq!(report.counts.lost_blocks, u64::MAX);
}

#[test]
fn what_is_made_twice_or_never_is_told_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let function = HandleKind::Function.handle(1);
    let kernel = HandleKind::Kernel.handle(1);
    let library = HandleKind::Library.handle(1);
    let trace = trace_of(folder.path(), |s| {
        let launch = |s: &mut Sample| {
            s.call(CallId::cuLaunchKernel, None, |e| {
                encode_cuLaunchKernel(e, function, [1; 3], [1; 3], 0, 0, 0, &[]);
            });
        };
        launch(s);
        for name in [c"first", c"second"] {
            s.call(CallId::cuLibraryGetKernel, Some(7), |e| {
                encode_cuLibraryGetKernel(e, kernel, library, name);
            });
            s.call(CallId::cuKernelGetFunction, None, |e| {
                encode_cuKernelGetFunction(e, function, kernel);
            });
            launch(s);
        }
        // The ticket is given twice and answered three times.
        for _ in 0..3 {
            s.reply(7, 1, |_| ());
        }
        for bytes in [100, 200] {
            s.put(&Block::Allocation {
                time: 0,
                session: 0,
                device: 0,
                address: 4096,
                bytes,
            });
        }
        for _ in 0..2 {
            s.put(&Block::Free {
                time: 0,
                session: 0,
                address: 4096,
            });
        }
        s.leave(0);
        s.leave(0);
    });
    let (lines, error) = lines(&trace);
    assert_eq!(error, None);
    let lines = parsed(&lines);
    let of = |kind: &str, key: &str| -> Vec<String> {
        let fits = lines.iter().filter(|line| line["type"] == kind);
        fits.map(|line| line[key].to_string()).collect()
    };
    let kernels = of("call", "kernel");
    assert_eq!(
        [&kernels[0], &kernels[3], &kernels[6]],
        ["null", "\"first\"", "\"second\""]
    );
    assert_eq!(of("reply", "call"), ["4", "null", "null"]);
    assert_eq!(of("free", "allocation"), ["1", "null"]);
    assert_eq!(of("leave", "enter"), ["null", "null"]);
}

#[test]
fn a_schema_that_lies_is_refused_with_its_place_or_leaves_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let call = |kind: &str| {
        format!(
            r#"{{"handle_kinds":{{"Function":4}},"calls":[{{"id":1,"name":"x","inputs":[{{"name":"a","type":"{kind}"}}]}}]}}"#
        )
    };
    for schema in [
        "",
        "{",
        "[]",
        "{\"calls\":[]}",
        "{\"handle_kinds\":{},\"calls\":[{\"id\":65536}]}",
    ] {
        let path = folder.path().join("bad.htrace");
        let mut writer = Writer::create(&path, Manifest::new("", ""), 1).unwrap();
        writer
            .write_block(&Block::Define(schema.as_bytes()))
            .unwrap();
        writer.finish(Default::default()).unwrap();
        let error = lines(&Trace::open(&path).unwrap()).1.unwrap();
        assert_eq!(
            (error.kind, error.offset),
            (ErrorKind::Damaged, Some(0)),
            "{schema}"
        );
        fs::remove_dir_all(&path).unwrap();
    }
    for kind in [
        "list(u8[0])",
        "u8[99999999999]",
        "list(list(list(list(list(list(u8))))))",
        "handle(Gadget)",
        "handle(",
        "u128",
        "list(u8[4096])",
    ] {
        let trace = trace_of(folder.path(), |s| {
            s.put(&Block::Define(call(kind).as_bytes()));
            s.call(CallId(1), None, |e| {
                e.u32(u32::MAX);
                e.u64(0);
            });
        });
        let (lines, error) = lines(&trace);
        assert_eq!(error, None, "{kind}");
        assert!(lines[2].contains("\"undecoded\":"), "{kind}: {}", lines[2]);
    }
}

#[test]
fn lines_that_name_paths_make_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, lines) = small_sample(folder.path());
    let text = String::from_utf8(lines).unwrap();
    let hash = text
        .split("\"hash\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    for wrong in [
        "../../escaped",
        "/tmp/escaped",
        "",
        &hash[1..],
        &hash.to_uppercase(),
    ] {
        let changed = text.replacen(hash, wrong, 1);
        let out = folder.path().join("made");
        let writer = Writer::create(&out, Manifest::new("", ""), 1).unwrap();
        let error = assemble(changed.as_bytes(), writer).unwrap_err();
        assert!(error.contains("hash is none"), "{error}");
        let files = fs::read_dir(&out).unwrap().count();
        assert_eq!(files, 2, "the manifest and the calls");
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_newer_trace_is_refused_in_a_folder_and_packed() {
    let folder = tempfile::tempdir().unwrap();
    small_sample(folder.path());
    let path = folder.path().join("sample.htrace");
    let manifest = fs::read_to_string(path.join("MANIFEST.json")).unwrap();
    let packed = folder.path().join("newer.tar");
    let newer = manifest.replace("\"min_reader\": 2", "\"min_reader\": 9");
    // The packer does not read what it packs.
    let trace = Trace::open(&path).unwrap();
    fs::write(path.join("MANIFEST.json"), &newer).unwrap();
    pack(&trace, &packed).unwrap();
    for path in [&path, &packed] {
        let error = Trace::open(path).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Newer);
        let text = error.to_string();
        assert!(
            text.contains("version 9") && text.contains("version 2;"),
            "{text}"
        );
    }
}

#[test]
fn a_line_tells_of_no_other_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.htrace");
    let writer = Writer::create(&path, Manifest::new("", ""), 1).unwrap();
    let line = br#"{"type": "block", "raw": {"number": 18, "flags": 0, "hex": "0101"}}"#;
    let wrong = assemble(&line[..], writer).unwrap_err();
    assert!(wrong.starts_with("line 1: blocks of this type"), "{wrong}");
}
