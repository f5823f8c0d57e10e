//! The commands that read traces: what they print, and how they fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harp_trace::container::{FORMAT_MINOR, READER};
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_harp-trace"))
        .args(arguments)
        .output()
        .unwrap()
}

fn golden(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/replay/golden/v1");
    folder.join(name).display().to_string()
}

/// The one line on standard error, and the exit status.
fn failure(output: &Output) -> (String, i32) {
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("harp-trace: "), "{told}");
    (told, output.status.code().unwrap())
}

fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap();
    text.lines().map(parse).collect()
}

#[test]
fn a_recorded_trace_verifies_and_goes_through_lines_tar_and_folder_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let recorded = golden("recorded.htrace");
    let verified = run(&["verify", &recorded]);
    assert!(verified.status.success(), "{verified:?}");
    let found = &lines(&verified)[0];
    assert_eq!(
        (&found["found"], &found["complete"]),
        (&0.into(), &true.into())
    );
    let events = run(&["events", &recorded, "--full"]);
    assert!(events.status.success());
    let all = lines(&events);
    assert_eq!(all.last().unwrap()["calls"], found["calls"]);
    assert!(all.iter().any(|line| line["kernel"].is_string()));

    fs::write(path("lines"), &events.stdout).unwrap();
    let made = run(&["assemble", &path("lines"), "--out", &path("made")]);
    assert!(made.status.success(), "{made:?}");
    let packed = run(&["repack", &path("made"), "--out", &path("packed"), "--tar"]);
    assert!(packed.status.success(), "{packed:?}");
    assert_eq!(lines(&packed)[0]["calls"], found["calls"]);
    let unpacked = run(&[
        "repack",
        &path("packed"),
        "--out",
        &path("unpacked"),
        "--folder",
    ]);
    assert!(unpacked.status.success(), "{unpacked:?}");
    assert!(PathBuf::from(path("packed")).is_file() && PathBuf::from(path("unpacked")).is_dir());
    let again = lines(&run(&["events", &path("unpacked"), "--full"]));
    // But for where it lies.
    assert_eq!(again[..again.len() - 1], all[..all.len() - 1]);
    // What is written now is of today's version.
    let mut manifest = all.last().unwrap()["manifest"].clone();
    manifest["format_minor"] = FORMAT_MINOR.into();
    manifest["min_reader"] = READER.into();
    assert_eq!(again.last().unwrap()["manifest"], manifest);
}

#[test]
fn damage_is_told_in_one_line_with_its_place_and_what_comes_before_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.htrace");
    let out = path.display().to_string();
    run(&[
        "repack",
        &golden("recorded.htrace"),
        "--out",
        &out,
        "--folder",
    ]);
    let calls = fs::read(path.join("calls.zst")).unwrap();
    // The same frames once more, with one bit changed.
    let mut more = [&calls[..], &calls[..]].concat();
    more[calls.len() + calls.len() / 2] ^= 1;
    fs::write(path.join("calls.zst"), &more).unwrap();
    let events = run(&["events", &out]);
    let (told, status) = failure(&events);
    let place = format!("calls.zst at byte {}", calls.len());
    assert!(told.contains(&place) && status == 1, "{told}");
    let shown = lines(&events);
    let last = shown.last().unwrap();
    assert_eq!(
        (&last["type"], &last["complete"]),
        (&"trace".into(), &false.into())
    );
    assert!(last["error"].as_str().unwrap().contains(&place));
    assert!(shown.len() > 100);
    let (told, status) = failure(&run(&["verify", &out]));
    assert!(told.contains(&place) && status == 1, "{told}");
    let again = folder.path().join("again").display().to_string();
    let (told, _) = failure(&run(&["repack", &out, "--out", &again]));
    assert!(told.contains(&place), "{told}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_done_is_told_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere").display().to_string();
    let recorded = golden("recorded.htrace");
    for (arguments, cause, status) in [
        (&["events", &nowhere][..], "there is no such trace", 1),
        (
            &["verify", env!("CARGO_MANIFEST_DIR")],
            "has no MANIFEST.json",
            1,
        ),
        (&["verify", file!()], "no such trace", 1),
        (&["repack", &recorded, "--out", &recorded], "exists", 1),
        (&["assemble", &recorded, "--out", &nowhere], "line 1:", 1),
        (&["repack", &recorded], "--out is missing", 2),
        (&["repack", &recorded, "--out"], "--out wants a value", 2),
        (
            &["repack", &recorded, "--out", &nowhere, "--level", "high"],
            "--level cannot be",
            2,
        ),
        (
            &["repack", &recorded, "--out", &nowhere, "--tar", "--folder"],
            "exclude each other",
            2,
        ),
        (&["events"], "a trace is missing", 2),
        (&["events", &recorded, &recorded], "one too many", 2),
        (&["record", "--out", &nowhere], "--socket is missing", 2),
        (&["play"], "play is no command", 2),
        (&[], "is no command", 2),
    ] {
        let (told, code) = failure(&run(arguments));
        assert!(
            told.contains(cause) && code == status,
            "{arguments:?}: {told}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let script = format!(
        "{} events {} | head -n 1 > /dev/null; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_harp-trace"),
        golden("recorded.htrace")
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(output.stdout, b"0\n");
    assert_eq!(output.stderr, b"");
}
