//! Events: what blocks say, by the schema of the trace, and lines that a trace can be made of again.
#![cfg(feature = "container")]

mod support;

use std::path::Path;

use harp_mutation::Random;
use harp_trace::block::{Block, Message};
use harp_trace::container::{Manifest, Trace, Writer};
use harp_trace::event::{assemble, Event, Field, Lines, Reader, Schema, Type};
use harp_trace::repack::{repack, Options};
use harp_trace::verify::verify;
use harp_wire::calls::{describe_arguments, describe_outputs};
use harp_wire::{CallId, Decoder, Encoder, HandleKind};
use serde_json::{json, Value};
use support::{define, record, reply, write_sample, ADDRESS, BYTES};

fn lines(path: &Path, full: bool) -> Vec<Value> {
    let trace = Trace::open(path).unwrap();
    let mut lines = Lines::new(&trace, full).unwrap();
    let mut values = Vec::new();
    while let Some(line) = lines.next_line().unwrap() {
        assert!(line.starts_with("{\"type\":"), "{line}");
        values.push(serde_json::from_str(&line).unwrap());
    }
    values.push(serde_json::from_str(&lines.last_line(None)).unwrap());
    values
}

fn sample() -> (tempfile::TempDir, std::path::PathBuf, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.htrace");
    let bodies = write_sample(&path);
    (folder, path, bodies)
}

#[test]
fn events_say_what_was_called_on_what() {
    let (_folder, path, bodies) = sample();
    let lines = lines(&path, false);
    assert_eq!(lines.len(), bodies.len() + 1);
    let of = |kind: &str, key: &str, value: Value| -> Vec<&Value> {
        let fits = |line: &&Value| line["type"] == kind && line[key] == value;
        lines.iter().filter(fits).collect()
    };
    let launch = of("call", "name", json!("cuLaunchKernel"))[0];
    assert_eq!(launch["kernel"], "vector_add");
    assert_eq!(launch["enter"], 2);
    assert_eq!(launch["args"]["grid"], json!([4, 1, 1]));
    assert_eq!(
        launch["args"]["function"],
        json!({"kind": "Function", "id": 2})
    );
    assert_eq!(launch["args"]["stream"], 2);
    assert_eq!(launch["args"]["params"]["bytes"], 12);
    assert_eq!(launch["args"]["params"]["hex"].as_str().unwrap().len(), 24);
    let copy = of("call", "name", json!("cuMemcpyHtoD_v2"))[0];
    let place = json!({"address": ADDRESS, "allocation": 0, "offset": 0});
    assert_eq!(copy["args"]["dst"], place);
    assert_eq!(copy["args"]["stream"], Value::Null);
    assert_eq!(copy["args"]["data"], json!({"bytes": BYTES}));
    assert_eq!(copy["payload"]["policy"], "full");
    let back = of("call", "name", json!("cuMemcpyDtoH_v2"))[0];
    assert_eq!(back["args"]["src"]["offset"], 16);
    assert_eq!(back["args"]["stream"], json!({"kind": "Stream", "id": 3}));
    let answer = of("reply", "call", back["number"].clone())[0];
    assert_eq!(answer["outs"]["data"]["bytes"], 200);
    assert_eq!(answer["payload"]["bytes"], 200);
    let wait = of("wait", "because", json!("data"))[0];
    assert_eq!(wait["call"], back["number"]);
    let failed = of("reply", "status", json!(209))[0];
    assert_eq!(
        (&failed["name"], &failed["outs"]),
        (&json!("cuModuleLoadData"), &json!({}))
    );
    let info = &of("reply", "name", json!("cuKernelGetFunction"))[0]["outs"]["info"];
    assert_eq!(info["params"][1], json!({"offset": 8, "size": 4}));
    assert_eq!(info["attributes"][15], -15);
    assert_eq!(of("enter", "name", json!("cuMemAlloc_v2"))[0]["number"], 1);
    assert_eq!(of("leave", "enter", json!(1))[0]["result"], 0);
    assert_eq!(of("free", "allocation", json!(0)).len(), 1);
    // Freed memory is no allocation any more.
    assert_eq!(
        of("loss", "blocks", json!(3))[0]["reasons"][0],
        "no room in the ring"
    );
    assert_eq!(
        of("push", "kind", json!("output"))[0]["text"],
        "hello from thread 0\n"
    );
    assert_eq!(of("process", "program", json!("vector_add")).len(), 1);
    assert_eq!(of("session", "server", json!("gpu1:7443")).len(), 1);
    let unknown = of("call", "name", json!("call 0x7777"))[0];
    assert!(unknown["undecoded"]
        .as_str()
        .unwrap()
        .contains("schema does not have"));
    assert_eq!(unknown["wire"]["bytes"], 24);
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["type"], &last["complete"]),
        (&json!("trace"), &json!(true))
    );
    assert_eq!(last["calls"], last["manifest"]["counts"]["calls"]);
}

#[test]
fn lines_make_the_trace_again() {
    let (folder, path, bodies) = sample();
    let trace = Trace::open(&path).unwrap();
    let mut lines = Lines::new(&trace, true).unwrap();
    let mut text = String::new();
    while let Some(line) = lines.next_line().unwrap() {
        text += &(line + "\n");
    }
    text += &lines.last_line(None);
    let again = folder.path().join("again.htrace");
    let writer = Writer::create(&again, Manifest::new("", ""), 1).unwrap();
    assemble(text.as_bytes(), writer).unwrap();
    assert!(all_blocks(&again) == bodies);
    let other = Trace::open(&again).unwrap();
    assert_eq!(other.manifest(), trace.manifest());
    assert_eq!(other.blobs().unwrap(), trace.blobs().unwrap());
    // All that is needed of raw bytes is what the fields cannot say.
    let raw = text.lines().filter(|line| line.contains("\"raw\":"));
    assert_eq!(raw.count(), 7);

    // A changed line is a changed trace, and a wrong one is told.
    let changed = text.replace("\"grid\":[4,1,1]", "\"grid\":[5,1,1]");
    let third = folder.path().join("third.htrace");
    let writer = Writer::create(&third, Manifest::new("", ""), 1).unwrap();
    assemble(changed.as_bytes(), writer).unwrap();
    let differs = all_blocks(&third)
        .iter()
        .zip(&bodies)
        .filter(|(a, b)| a != b)
        .count();
    assert_eq!(differs, 1);
    for (from, to, wrong) in [
        ("\"grid\":[4,1,1]", "\"grid\":[4,1]", "grid is no value"),
        (
            "\"kind\":\"Function\"",
            "\"kind\":\"Gadget\"",
            "function is no value",
        ),
        (
            "\"type\":\"enter\"",
            "\"type\":\"entre\"",
            "no event of type",
        ),
        (
            "\"policy\":\"full\"",
            "\"policy\":\"fool\"",
            "no such payload policy",
        ),
        ("\"hex\":\"0001", "\"hex\":\"0002", "another hash"),
        (
            "{\"type\":\"trace\"",
            "{\"type\":\"end\"",
            "the lines are cut",
        ),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let path = folder.path().join("wrong.htrace");
        let writer = Writer::create(&path, Manifest::new("", ""), 1).unwrap();
        let error = assemble(changed.as_bytes(), writer).unwrap_err();
        assert!(error.contains(wrong), "{from}: {error}");
        std::fs::remove_dir_all(&path).unwrap();
    }
}

/// Heads and bodies of all blocks.
fn all_blocks(path: &Path) -> Vec<Vec<u8>> {
    let mut blocks = Trace::open(path).unwrap().blocks().unwrap();
    let mut all = Vec::new();
    while let Some(located) = blocks.next().unwrap() {
        all.push([&located.raw.head()[..], located.raw.body].concat());
    }
    all
}

#[test]
fn a_trace_that_is_whole_verifies_and_repacks_to_the_same() {
    let (folder, path, bodies) = sample();
    let trace = Trace::open(&path).unwrap();
    let report = verify(&trace);
    // The two calls that cannot be decoded, and nothing else.
    assert_eq!(report.found, 2, "{:?}", report.problems);
    assert_eq!((report.blobs, report.unreferenced), (3, 0));
    let stray = folder.path().join("out.htrace/blobs/aa");
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::write(stray.join("stray"), "x").unwrap();
    let report = verify(&trace);
    assert_eq!(report.found, 3, "{:?}", report.problems);
    for (name, packed) in [("packed", true), ("unpacked", false)] {
        let out = folder.path().join(name);
        let options = Options { packed, level: 19 };
        let from = match packed {
            true => Trace::open(&path).unwrap(),
            false => Trace::open(&folder.path().join("packed")).unwrap(),
        };
        repack(&from, &out, options).unwrap();
        let again = Trace::open(&out).unwrap();
        assert_eq!(again.packed(), packed);
        assert_eq!(again.manifest(), trace.manifest());
        assert!(all_blocks(&out) == bodies);
        assert_eq!(again.blobs().unwrap().0.len(), 3);
        assert!(repack(&from, &out, options).is_err(), "it is there");
        assert!(all_blocks(&out) == bodies);
    }
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["out.htrace", "packed", "unpacked"]);
}

#[test]
fn a_missing_content_is_found_and_repack_leaves_nothing() {
    let (folder, path, _) = sample();
    let blobs = path.join("blobs");
    let first = std::fs::read_dir(&blobs).unwrap().next().unwrap().unwrap();
    std::fs::remove_dir_all(first.path()).unwrap();
    let trace = Trace::open(&path).unwrap();
    let report = verify(&trace);
    assert_eq!(report.found, 3, "{:?}", report.problems);
    assert!(report.problems[2]
        .what
        .contains("does not hold this content"));
    for packed in [true, false] {
        let options = Options { packed, level: 1 };
        let error = repack(&trace, &folder.path().join("new"), options).unwrap_err();
        assert!(error.to_string().contains("does not hold this content"));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_cut_trace_is_repacked_up_to_the_cut() {
    let (folder, path, bodies) = sample();
    let calls = std::fs::read(path.join("calls.zst")).unwrap();
    let more = [&calls[..], &calls[..calls.len() / 2]].concat();
    let manifest = std::fs::read_to_string(path.join("MANIFEST.json")).unwrap();
    let manifest = manifest.replace("\"lost_blocks\": 3", "\"lost_blocks\": 5");
    std::fs::write(path.join("MANIFEST.json"), manifest).unwrap();
    std::fs::write(path.join("calls.zst"), more).unwrap();
    let out = folder.path().join("repacked");
    let trace = Trace::open(&path).unwrap();
    assert!(verify(&trace).cut);
    let options = Options {
        packed: false,
        level: 1,
    };
    let finished = repack(&trace, &out, options).unwrap();
    assert_eq!(finished.manifest.ended["reason"], "cut");
    assert_eq!(finished.manifest.counts.lost_blocks, 5);
    assert!(all_blocks(&out) == bodies);
}

/// A value of a type, on the wire.
fn any(kind: &Type, random: &mut Random, out: &mut Vec<u8>) {
    let mut word = |word: u64, size: usize| out.extend_from_slice(&word.to_le_bytes()[..size]);
    match kind {
        Type::Unsigned(size) | Type::Signed(size) => word(random.number(), *size),
        Type::Float => word(random.number(), 4),
        Type::DevicePointer => word(random.number(), 8),
        Type::Bytes => {
            let count = random.below(70);
            word(count as u64, 8);
            out.extend(random.bytes(count));
        }
        Type::Text => {
            let count = random.below(9);
            word(count as u64 + 1, 4);
            out.extend(random.bytes(count).iter().map(|byte| byte | 1));
            out.push(0);
        }
        Type::Stream { copy, .. } => match random.below(3) {
            0 if *copy => word(u64::MAX, 8),
            1 => word(HandleKind::Stream.handle(7), 8),
            _ => word(2, 8),
        },
        Type::Handle { tags, optional } => match random.below(3) {
            0 if *optional => word(0, 8),
            _ => word(u64::from(*random.pick(tags)) << 56 | 9, 8),
        },
        Type::FunctionInfo => {
            // In order, as of a kernel that there may be.
            let count = random.below(4);
            word(count as u64, 4);
            for parameter in 0..count {
                word((16 * parameter + random.below(4)) as u64, 4);
                word(random.below(9) as u64, 4);
            }
            out.extend(random.bytes(64));
        }
        Type::Array(item, count) => (0..*count).for_each(|_| any(item, random, out)),
        Type::List(item) => {
            let count = random.below(5);
            word(count as u64, 4);
            (0..count).for_each(|_| any(item, random, out));
        }
        Type::Unknown(name) => panic!("today's schema has a type {name} that is not known here"),
    }
}

fn message(bytes: &[u8]) -> Message<'_> {
    Message {
        time: 0,
        session: 0,
        bytes,
        payload: None,
    }
}

/// The schema in a trace says the same of every call as the code that is generated of the same spec.
#[test]
fn every_call_of_the_schema_is_read_as_the_worker_reads_it() {
    let schema = Schema::parse(&define()).unwrap();
    let mut reader = Reader::new();
    reader.read(&Block::Define(&define())).unwrap();
    let mut random = Random::new(6);
    let mut encoded = |fields: &[Field]| {
        let mut bytes = Vec::new();
        for field in fields {
            any(&field.kind, &mut random, &mut bytes);
        }
        bytes
    };
    for (id, name) in CallId::ALL {
        let call = schema.call(id.0).unwrap();
        assert_eq!(&*call.name, *name);
        for ticket in 1..20 {
            let (inputs, outputs) = (encoded(&call.inputs), encoded(&call.outputs));
            let put = |e: &mut Encoder, bytes: &[u8]| bytes.iter().for_each(|byte| e.u8(*byte));
            assert!(describe_arguments(*id, &mut Decoder::new(&inputs)).is_ok());
            assert!(describe_outputs(*id, &mut Decoder::new(&outputs)).is_ok());
            let record = record(*id, Some(ticket), |e| put(e, &inputs), 0);
            let Event::Call(event) = reader.read(&Block::Call(message(&record))).unwrap() else {
                panic!("{name}")
            };
            assert_eq!(event.arguments.undecoded, None, "{name}");
            assert_eq!(event.arguments.values.len(), call.inputs.len());
            let reply = reply(ticket, 0, |e| put(e, &outputs));
            let Event::Reply(event) = reader.read(&Block::Reply(message(&reply))).unwrap() else {
                panic!("{name}")
            };
            assert_eq!(event.outputs.undecoded, None, "{name}");
            assert_eq!(event.outputs.values.len(), call.outputs.len());
        }
    }
}

#[test]
fn calls_whose_ends_were_lost_do_not_stand_for_later_ones() {
    let mut reader = Reader::new();
    let thread = 3;
    for time in 0..1000 {
        let enter = Block::Enter {
            time,
            thread,
            symbol: 0,
        };
        reader.read(&enter).unwrap();
    }
    let leave = Block::Leave {
        time: 1000,
        thread,
        result: 0,
    };
    let Event::Leave { enter, .. } = reader.read(&leave).unwrap() else {
        panic!("a call ends")
    };
    assert_eq!(enter, Some(999));
}
