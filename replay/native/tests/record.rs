//! `harp-trace record`: what programs put into their rings is in the traces, whatever ends them.

mod support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harp_trace::block::{Block, Message, Payload, Policy};
use harp_trace::container::Trace;
use harp_trace::ring::Patience;
use support::{each, Program, Recorder, TRACE};

const RING: usize = 1 << 20;

#[test]
fn a_program_is_recorded_and_its_contents_are_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path());
    let mut program = recorder.program(RING);
    program.put(&Block::Define(b"{}"));
    // Larger than a ring, than a part, than what the recorder keeps in memory.
    let large: Vec<u8> = (0..3 << 20).map(|n: u32| (n / 5) as u8).collect();
    for time in 0..2 {
        program.call_with(time, Policy::Full, &large);
        program.call_with(time, Policy::Full, &[3; 100]);
        program.call_with(time, Policy::Hash, &[4; 100]);
        program.call_with(time, Policy::Shape, &[5; 100]);
        program.call(time, b"a small one");
    }
    program.put(&Block::End(b"{\"reason\": \"exit\"}"));
    drop(program);
    let lines = recorder.end();
    recorder.wait();
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    let path = folder.path().join("out.htrace");
    assert_eq!(line["type"], "trace");
    assert_eq!(line["path"], path.display().to_string());
    assert_eq!(line["pid"], std::process::id());
    assert_eq!(line["program"], "vector_add");
    assert_eq!(
        (&line["calls"], &line["ended"]),
        (&10.into(), &"exit".into())
    );
    assert_eq!(line["blobs"], 2);
    assert_eq!(line["blob_bytes"], large.len() + 100);
    assert_eq!(line["lost"]["blocks"], 0);
    let trace = Trace::open(&path).unwrap();
    assert!(trace.complete());
    let mut payloads = Vec::new();
    each(&path, |block| {
        if let Block::Call(message) = block {
            payloads.extend(message.payload);
        }
    })
    .unwrap();
    let name = |content: &[u8]| *blake3::hash(content).as_bytes();
    let expected = |policy, content: &[u8], named: bool| Payload {
        policy,
        length: content.len() as u64,
        hash: if named { name(content) } else { [0; 32] },
    };
    assert_eq!(payloads.len(), 8);
    for four in payloads.chunks(4) {
        assert_eq!(four[0], expected(Policy::Full, &large, true));
        assert_eq!(four[1], expected(Policy::Full, &[3; 100], true));
        assert_eq!(four[2], expected(Policy::Hash, &[4; 100], true));
        assert_eq!(four[3], expected(Policy::Shape, &[5; 100], false));
        assert!(trace.blob(&four[0].hash).unwrap() == large);
        assert_eq!(trace.blob(&four[1].hash).unwrap(), [3; 100]);
        assert!(!trace.has_blob(&four[2].hash).unwrap());
    }
}

#[test]
fn a_program_that_is_killed_leaves_all_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path());
    // SAFETY: the child connects, appends, and kills itself.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut program = recorder.program(RING);
        for time in 0..5000 {
            program.call(time, b"the last of these calls is the one that crashes");
        }
        // SAFETY: this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    // SAFETY: the child of this test.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    let lines = recorder.end();
    recorder.wait();
    assert_eq!(
        (&lines[0]["calls"], &lines[0]["ended"]),
        (&5000.into(), &"gone".into())
    );
    let mut last = 0;
    let path = folder.path().join("out.htrace");
    each(&path, |block| {
        if let Block::Call(message) = block {
            last = message.time;
        }
    })
    .unwrap();
    assert_eq!(last, 4999);
    assert_eq!(
        Trace::open(&path).unwrap().manifest().ended["reason"],
        "gone"
    );
}

#[test]
fn each_program_has_its_trace_and_who_goes_on_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path());
    let mut first = recorder.program(RING);
    first.call(1, b"first");
    drop(first);
    assert_eq!(
        recorder.line().unwrap()["path"],
        shown(folder.path(), "out.htrace")
    );
    let mut daemon = recorder.program(RING);
    daemon.call(1, b"daemon");
    let lines = recorder.end();
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert_eq!(line["path"], shown(folder.path(), "out.2.htrace"));
    assert_eq!(line["ended"], "running");
    // Who comes now finds nobody, rather than one who never looks.
    assert!(!recorder.folder.exists());
    daemon.call(2, b"daemon again");
    drop(daemon);
    recorder.wait();
    let trace = Trace::open(&folder.path().join("out.2.htrace")).unwrap();
    assert!(trace.complete());
    assert_eq!(trace.manifest().counts.calls, 2);
}

fn shown(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// A program that says `bytes` bytes, which do not compress, where there is room for fewer, `why` being the
/// reason: what the recorder says afterwards. `out` is the trace, once it has ended.
fn fill(mut recorder: Recorder, out: &Path, bytes: usize, why: &str) {
    let mut program = recorder.program(RING);
    let mut random = 1u64;
    let mut sent = 0;
    for time in 0..(bytes / 4096) as u64 {
        let mut noise = [0; 4096];
        for word in noise.chunks_exact_mut(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.copy_from_slice(&random.to_le_bytes());
        }
        program.call(time, &noise);
        sent += 1;
    }
    drop(program);
    let lines = recorder.end();
    recorder.wait();
    let line = &lines[0];
    assert_eq!(line["ended"], "gone", "{line}");
    let lost = line["lost"]["blocks"].as_u64().unwrap();
    let kept = line["calls"].as_u64().unwrap();
    assert!(lost > 0 && kept > 0, "{line}");
    assert_eq!(kept + lost, sent, "{line}");
    assert_eq!(line["lost"]["reasons"], serde_json::json!([why]));
    let trace = Trace::open(out).unwrap();
    assert!(trace.complete());
    assert_eq!(trace.manifest().counts.lost_blocks, lost);
    // The trace itself says what it has lost, on a disk that is full.
    let (mut calls, mut told) = (0, 0);
    let cut = each(out, |block| match block {
        Block::Call(_) => calls += 1,
        Block::Loss { lost, .. } => told += lost.blocks,
        _ => {}
    })
    .unwrap();
    assert_eq!((calls, told, cut), (kept, lost, false));
}

#[test]
fn files_that_may_not_grow_cost_blocks_and_not_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(TRACE);
    // SAFETY: a system call that may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: 3 << 20,
                rlim_max: 3 << 20,
            };
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
            Ok(())
        });
    }
    let recorder = Recorder::start_by(command, folder.path(), folder.path());
    let out = folder.path().join("out.htrace");
    fill(recorder, &out, 8 << 20, "size limit");
}

/// A recorder of traces that have this many bytes at most.
fn limited(folder: &Path, bytes: u64) -> Recorder {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" --limit {bytes}"), TRACE]);
    Recorder::start_by(command, folder, folder)
}

#[test]
fn a_trace_is_no_larger_than_it_may_be() {
    const LIMIT: u64 = 3 << 20;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.htrace");
    fill(limited(folder.path(), LIMIT), &out, 8 << 20, "size limit");
    let calls = std::fs::metadata(out.join("calls.zst")).unwrap().len();
    // A frame more would have fitted in what is less than that by as much as one has.
    assert!(
        calls > LIMIT - (3 << 19) && calls < LIMIT + (64 << 10),
        "{calls}"
    );
}

#[test]
fn contents_that_a_trace_has_no_room_for_are_told_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = limited(folder.path(), 2 << 20);
    let mut program = recorder.program(RING);
    program.put(&Block::Define(b"{}"));
    // The third is too large for what is left, the fourth is there already.
    let (large, half, other) = (vec![1; 1 << 20], vec![2; 1 << 19], vec![3; 1 << 20]);
    let contents = [&large[..], &half, &other, &large, b"small"];
    for (time, content) in contents.into_iter().enumerate() {
        program.call_with(time as u64, Policy::Full, content);
    }
    program.put(&Block::End(b"{\"reason\": \"exit\"}"));
    drop(program);
    let line = recorder.end().remove(0);
    recorder.wait();
    assert_eq!(line["blob_bytes"], (3 << 19) + 5);
    assert_eq!(line["lost"]["reasons"], serde_json::json!(["size limit"]));
    assert_eq!(
        (&line["lost"]["blocks"], &line["calls"]),
        (&0.into(), &5.into())
    );
    let mut policies = Vec::new();
    each(&folder.path().join("out.htrace"), |block| {
        if let Block::Call(message) = block {
            policies.push(message.payload.unwrap().policy);
        }
    })
    .unwrap();
    use Policy::{Full, Hash};
    assert_eq!(policies, [Full, Full, Hash, Full, Full]);
}

/// A file system of 2 MiB, mounted for the recorder alone.
#[test]
fn a_full_disk_costs_blocks_and_not_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = |script: &str| {
        let mut command = Command::new("unshare");
        let script = format!(
            "mount -t tmpfs -o size=2m none {} && {script}",
            small.display()
        );
        command.args(["-rm", "sh", "-c", &script, "sh"]);
        command
    };
    if !mounted("true")
        .output()
        .is_ok_and(|done| done.status.success())
    {
        return eprintln!("skipped: where users may mount (`unshare -rm`), a disk would be filled");
    }
    // What lies there is gone with the recorder.
    let copy = format!(
        "\"$@\" && cp -r {}/. {}",
        small.display(),
        folder.path().display()
    );
    let mut command = mounted(&copy);
    command.arg(TRACE);
    let recorder = Recorder::start_by(command, folder.path(), &small);
    let out = folder.path().join("out.htrace");
    fill(recorder, &out, 8 << 20, "disk full");
}

/// What a disk that hangs does to a recorder.
#[test]
fn a_recorder_that_stands_still_costs_blocks_and_not_the_programs_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path());
    let mut program = recorder.program(RING);
    program.call(0, b"so that the recorder has it");
    while program.producer.consumed() == 0 {
        program.producer.wake();
        std::thread::yield_now();
    }
    recorder.stop();
    let message = |time| {
        Block::Call(Message {
            time,
            session: 0,
            bytes: &[7; 1000],
            payload: None,
        })
    };
    // It returns at all, with nobody who takes anything.
    let kept = (1..5000).filter(|time| program.producer.append(*time, &message(*time)));
    let kept = kept.count() as u64;
    assert!(kept < RING as u64 / 1000);
    recorder.signal(libc::SIGCONT);
    let mut after = 0;
    while !program.producer.append(5000, &message(5000)) {
        after += 1;
        std::thread::yield_now();
    }
    drop(program);
    let lines = recorder.end();
    recorder.wait();
    let line = &lines[0];
    assert_eq!(line["calls"], kept + 2, "{line}");
    assert_eq!(line["lost"]["blocks"], 4999 - kept + after, "{line}");
    let reasons = serde_json::json!(["no room in the ring"]);
    assert_eq!(line["lost"]["reasons"], reasons);
}

#[test]
fn a_recorder_that_is_killed_leaves_a_trace_that_opens() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path());
    let mut program = recorder.program(RING);
    let path = folder.path().join("out.htrace");
    // A frame is written at least every second.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut calls = 0;
    while calls == 0 && Instant::now() < deadline {
        program.call(1, b"a call");
        std::thread::sleep(Duration::from_millis(20));
        let _ = each(&path, |_| calls += 1);
    }
    recorder.signal(libc::SIGKILL);
    drop(recorder);
    let trace = Trace::open(&path).unwrap();
    assert!(!trace.complete());
    let mut found = 0;
    each(&path, |_| found += 1).unwrap();
    assert!(found >= calls && calls > 0);
    // What waits for it does not wait for ever.
    let mut patience = Patience::for_bytes(&program.producer, 1 << 50);
    let payload =
        program
            .producer
            .append_payload(Policy::Full, &[&vec![0; 2 * RING]], &mut patience);
    assert_eq!(payload.policy, Policy::Lost);
}

#[test]
fn a_ring_that_makes_no_sense_ends_the_trace_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path());
    let (mut producer, fds) = harp_trace::ring::Producer::create(RING).unwrap();
    let memory = std::fs::File::from(fds.memory.try_clone().unwrap());
    let connection =
        harp_trace::greeting::greet(&recorder.folder.join("socket"), "wild", fds).unwrap();
    producer.try_append_block(&Block::Annotation(b"{}"));
    std::os::unix::fs::FileExt::write_all_at(&memory, &[0xff; 8], 64).unwrap();
    let line = recorder.line().unwrap();
    assert_eq!(line["ended"], "broken");
    drop(Program {
        producer,
        connection,
    });
    assert!(recorder.end().is_empty());
    recorder.wait();
    let trace = Trace::open(&folder.path().join("out.htrace")).unwrap();
    let what = trace.manifest().ended["what"].as_str().unwrap();
    assert!(what.contains("ring is broken"), "{what}");
}

#[test]
fn a_trace_that_is_there_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("out.htrace")).unwrap();
    let told = Command::new(TRACE)
        .args(["record", "--socket"])
        .arg(folder.path().join("socket"))
        .arg("--out")
        .arg(folder.path().join("out.htrace"))
        .output()
        .unwrap();
    assert_eq!(told.status.code(), Some(1));
    let message = String::from_utf8(told.stderr).unwrap();
    assert!(message.contains("exists; name another file"), "{message}");
}
