//! Traces of earlier versions of the format open for ever, and say what they said.
#![cfg(feature = "container")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use harp_trace::container::{pack, Trace, FORMAT_MAJOR, FORMAT_MINOR};
use harp_trace::event::Lines;
use harp_trace::verify::verify;
use serde_json::Value;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/replay/golden")
}

/// The lines of a trace, but for the schema and what it says of the whole.
fn lines(trace: &Trace) -> Vec<String> {
    let mut lines = Lines::new(trace, false).unwrap();
    let mut text = Vec::new();
    while let Some(line) = lines.next_line().unwrap() {
        if !line.starts_with("{\"type\":\"define\"") {
            text.push(line);
        }
    }
    text
}

/// Whether `now` says all that `then` does.
fn says(now: &Value, then: &Value) -> bool {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => then
            .iter()
            .all(|(key, value)| now.get(key).is_some_and(|now| says(now, value))),
        (Value::Array(now), Value::Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| says(now, then))
        }
        _ => now == then,
    }
}

#[test]
fn traces_of_all_versions_open_and_say_what_they_said() {
    let mut versions = BTreeSet::new();
    let folders = fs::read_dir(golden()).unwrap().map(|each| each.unwrap());
    for version in folders.filter(|each| each.path().is_dir()) {
        for file in fs::read_dir(version.path()).unwrap() {
            let path = file.unwrap().path();
            if path
                .extension()
                .is_none_or(|extension| extension != "htrace")
            {
                continue;
            }
            let trace = Trace::open(&path).unwrap_or_else(|error| panic!("{error}"));
            assert!(trace.complete(), "{path:?}");
            let manifest = trace.manifest();
            versions.insert((manifest.format_major, manifest.format_minor));
            let report = verify(&trace);
            let undecoded = lines(&trace)
                .iter()
                .filter(|line| line.contains("\"undecoded\":"))
                .count();
            assert_eq!(report.found as usize, undecoded, "{:?}", report.problems);
            let counts = &manifest.counts;
            assert_eq!(report.counts.blocks, counts.blocks, "{path:?}");
            assert_eq!(report.blobs, counts.blobs, "{path:?}");
            let Ok(then) = fs::read_to_string(path.with_extension("jsonl")) else {
                continue;
            };
            let now = lines(&trace);
            assert_eq!(now.len(), then.lines().count(), "{path:?}");
            for (now, then) in now.iter().zip(then.lines()) {
                let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
                assert!(says(&parse(now), &parse(then)), "{now}\n{then}");
            }
        }
    }
    // There are some of today's too; golden/README.md says how they are made.
    let all = (0..=FORMAT_MINOR).map(|minor| (FORMAT_MAJOR, minor));
    assert_eq!(versions, all.collect());
}

#[test]
#[ignore = "writes tests/replay/golden/NEW, for a new version of the format: cargo test -p harp-trace --features container --test golden -- --ignored"]
fn write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("synthetic");
    support::write_sample_with(&path, &support::small_define());
    let trace = Trace::open(&path).unwrap();
    let new = golden().join("NEW");
    fs::create_dir_all(&new).unwrap();
    pack(&trace, &new.join("synthetic.htrace")).unwrap();
    let text = lines(&trace).join("\n") + "\n";
    fs::write(new.join("synthetic.jsonl"), text).unwrap();
}
