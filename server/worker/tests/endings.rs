//! Every way in which a worker's session ends: hostile streams, vanished peers, requests, and the jail.

mod support;

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use harp_wire::calls::*;
use harp_wire::{CallId, Encoder, HandleKind};
use support::{launch, Client, Worker};

/// Sends a frame and returns the cause that both the client and the agent are told.
fn ends_by(frame: impl FnOnce(&mut Client) -> Vec<u8>) -> String {
    let mut worker = Worker::start();
    let mut client = worker.session();
    let frame = frame(&mut client);
    // Of a large frame the worker may have seen enough before it has all.
    let _ = client.sender.send(&[&frame]);
    let cause = worker.end()["cause"].as_str().unwrap().to_owned();
    assert_eq!(client.goodbye(), cause);
    cause
        .strip_prefix("violation: ")
        .expect("a violation")
        .to_owned()
}

fn record(call: CallId, arguments: impl Fn(&mut Encoder)) -> Vec<u8> {
    let mut e = Encoder::new();
    let start = e.begin_record(call, None, 1);
    arguments(&mut e);
    e.end_record(start);
    e.into_bytes()
}

#[test]
fn an_unknown_call_ends_the_session() {
    let cause = ends_by(|_| record(CallId(0xfff0), |_| {}));
    assert!(cause.contains("0xfff0"), "{cause}");
}

#[test]
fn a_handle_of_the_wrong_kind_ends_the_session() {
    let event = HandleKind::Event.handle(1);
    let cause = ends_by(|_| record(CallId::cuStreamDestroy_v2, |e| e.u64(event)));
    assert!(cause.contains("Stream"), "{cause}");
}

#[test]
fn an_invented_handle_ends_the_session() {
    let cause = ends_by(|_| {
        let stream = HandleKind::Stream.handle(4711);
        record(CallId::cuStreamDestroy_v2, |e| {
            encode_cuStreamDestroy_v2(e, stream)
        })
    });
    assert!(cause.ends_with("was never created"), "{cause}");
}

#[test]
fn a_truncated_record_ends_the_session() {
    let mut frame = record(CallId::harp_set_current, |e| e.u64(0));
    let length = frame.len();
    frame.truncate(length - 3);
    let cause = ends_by(|_| frame);
    assert!(
        cause.contains("a record of 8 bytes where its frame has 5 left"),
        "{cause}"
    );
    let cause = ends_by(|_| vec![1, 2, 3]);
    assert!(cause.contains("ends within a record"), "{cause}");
}

#[test]
fn names_that_have_no_room_in_a_reply_end_the_session() {
    let cause = ends_by(|client| {
        client.function(1, "add");
        let module = HandleKind::Module.handle(2);
        let mut e = Encoder::new();
        let start = e.begin_record(CallId::harp_module_functions, Some(9), 1);
        encode_harp_module_functions(&mut e, module);
        e.end_record(start);
        e.into_bytes()
    });
    assert!(cause.ends_with("asked for in one reply"), "{cause}");
}

#[test]
fn an_oversize_record_ends_the_session_before_anything_is_allocated() {
    let mut frame = record(CallId::harp_set_current, |e| e.u64(0));
    frame[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let cause = ends_by(|_| frame);
    assert!(cause.contains("malformed"), "{cause}");
}

#[test]
fn arguments_that_do_not_add_up_end_the_session() {
    let cause = ends_by(|_| record(CallId::harp_set_current, |e| e.u32(0)));
    assert!(cause.contains("cut short"), "{cause}");
    let cause = ends_by(|_| {
        record(CallId::harp_set_current, |e| {
            e.u64(0);
            e.u8(0);
        })
    });
    assert!(cause.contains("too long"), "{cause}");
}

#[test]
fn a_payload_that_lies_about_its_length_ends_the_session() {
    // Large enough to be taken in pieces.
    let cause = ends_by(|client| {
        client.function(1, "add");
        let address = client.allocate(1, 2 << 20);
        record(CallId::cuMemcpyHtoD_v2, |e| {
            encode_cuMemcpyHtoD_v2(e, address, u64::MAX);
            e.u64((2 << 20) + 1);
            (0..2 << 17).for_each(|_| e.u64(0));
        })
    });
    assert!(cause.contains("a payload of 2097153 bytes"), "{cause}");
}

#[test]
fn too_few_launch_parameters_end_the_session() {
    let cause = ends_by(|client| {
        let add = client.function(1, "add");
        record(CallId::cuLaunchKernel, launch(add, 0, &[0; 11]))
    });
    assert!(cause.starts_with("11 bytes of parameters"), "{cause}");
}

#[test]
fn an_image_that_was_never_sent_ends_the_session() {
    let module = HandleKind::Module.handle(1);
    let cause = ends_by(|_| {
        record(CallId::cuModuleLoadData, |e| {
            encode_cuModuleLoadData(e, module, 77, &[], &[], 0);
        })
    });
    assert!(cause.contains("0x4d was never sent"), "{cause}");
}

#[test]
fn a_reply_larger_than_a_record_ends_the_session() {
    let cause = ends_by(|_| record(CallId::cuMemcpyDtoH_v2, support::copy_out(1, u64::MAX)));
    assert!(cause.contains("bytes asked for in one reply"), "{cause}");
}

/// Calls that a correct client may send after `Client::function(1, "add")`, for damage to be done to.
fn sound_calls(add: u64, address: u64) -> Vec<Vec<u8>> {
    let context = HandleKind::Context.handle(1);
    let (stream, event) = (HandleKind::Stream.handle(1), HandleKind::Event.handle(1));
    let params = [address.to_le_bytes().as_slice(), &[1, 0, 0, 0]].concat();
    vec![
        record(CallId::harp_set_current, |e| {
            encode_harp_set_current(e, context)
        }),
        record(CallId::cuStreamCreate, |e| {
            encode_cuStreamCreate(e, stream, 0)
        }),
        record(CallId::cuEventCreate, |e| encode_cuEventCreate(e, event, 0)),
        record(CallId::cuEventRecord, |e| {
            encode_cuEventRecord(e, event, stream)
        }),
        record(CallId::cuStreamSynchronize, |e| {
            encode_cuStreamSynchronize(e, stream)
        }),
        record(CallId::cuStreamDestroy_v2, |e| {
            encode_cuStreamDestroy_v2(e, stream)
        }),
        record(CallId::cuLaunchKernel, launch(add, 0, &params)),
        record(CallId::cuMemcpyDtoH_v2, support::copy_out(address, 8)),
        record(CallId::cuMemcpyHtoD_v2, |e| {
            encode_cuMemcpyHtoD_v2(e, address, u64::MAX);
            e.bytes(&[7; 8]);
        }),
        record(CallId::harp_copy_box_to_device, |e| {
            encode_harp_copy_box_to_device(e, address, 4, 8, 4, 2, 1, u64::MAX);
            e.bytes(&[7; 8]);
        }),
        record(CallId::harp_blob_append, |e| {
            encode_harp_blob_append(e, 9);
            e.bytes(b".version 8.0");
        }),
        record(CallId::cuModuleLoadData, |e| {
            encode_cuModuleLoadData(e, HandleKind::Module.handle(50), 9, &[7], &[4], 128);
        }),
        record(CallId::cuLibraryLoadData, |e| {
            encode_cuLibraryLoadData(e, HandleKind::Library.handle(50), 9, &[], &[], 0);
        }),
        record(CallId::cuLinkCreate_v2, |e| {
            encode_cuLinkCreate_v2(e, HandleKind::Link.handle(1), &[], &[], 64);
        }),
        record(CallId::cuMemPoolSetAccess, |e| {
            encode_cuMemPoolSetAccess(e, HandleKind::Pool.handle(1), &[1], &[0], &[3]);
        }),
        record(CallId::cuLaunchKernelEx, |e| {
            encode_cuLaunchKernelEx(e, add, [1; 3], [1; 3], 0, 0, &[0; 72], &params);
        }),
    ]
}

#[test]
fn a_damaged_stream_never_crashes_the_worker() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for _ in 0..24 {
        let mut worker = Worker::start();
        let mut client = worker.session();
        let add = client.function(1, "add");
        let address = client.allocate(1, 64);
        let calls = sound_calls(add, address);
        for _ in 0..400 {
            let mut frame = calls[next() % calls.len()].clone();
            // Most calls stay sound, so that sessions get somewhere; lengths stay right more often than not.
            if next() % 8 == 0 {
                let from = if next() % 8 == 0 { 0 } else { 4 };
                let at = from + next() % (frame.len() - from);
                frame[at] ^= 1 << (next() % 8);
            }
            if client.sender.send(&[&frame]).is_err() {
                break;
            }
        }
        let _ = client.sender.bye();
        drop(client);
        let status = worker.exit();
        assert!(status.success(), "{status}");
    }
}

/// A session in an endless kernel, with its one thread waiting.
fn endless(worker: &Worker) -> Client {
    let mut client = worker.session();
    let block = client.function(1, "block");
    client.launch(1, block, 0, &[]);
    client.post(1, CallId::cuStreamSynchronize, &|e| {
        encode_cuStreamSynchronize(e, 0)
    });
    client
}

#[test]
fn a_client_that_vanishes_takes_an_endless_kernel_with_it() {
    let mut worker = Worker::start();
    let client = endless(&worker);
    // As the kernel does for a process that is killed.
    drop(client);
    let cause = worker.end()["cause"].as_str().unwrap().to_owned();
    assert!(cause.starts_with("the connection was lost"), "{cause}");
}

#[test]
fn a_client_that_vanishes_when_nothing_runs_ends_the_session() {
    let mut worker = Worker::start();
    let client = worker.session();
    drop(client);
    let cause = worker.end()["cause"].as_str().unwrap().to_owned();
    assert!(cause.starts_with("the connection was lost"), "{cause}");
}

fn terminate(worker: &Worker) {
    // SAFETY: the worker has not been waited for, so the id is its own.
    unsafe { libc::kill(worker.process.id() as libc::pid_t, libc::SIGTERM) };
}

#[test]
fn a_request_to_end_is_heard_in_every_state() {
    let mut idle = Worker::start();
    terminate(&idle);
    assert!(idle.exit().success());

    let mut waiting = Worker::start();
    let mut client = endless(&waiting);
    terminate(&waiting);
    assert_eq!(client.goodbye(), "the server ends this session");
    assert_eq!(waiting.end()["cause"], "terminated");

    // A client that has connected and says nothing.
    let mut greeting = Worker::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    greeting.assign(&listener.accept().unwrap().0, false);
    terminate(&greeting);
    assert_eq!(greeting.end()["cause"], "terminated");
}

#[test]
fn a_worker_ends_with_its_agent() {
    let mut idle = Worker::start();
    idle.control = None;
    assert!(idle.exit().success());

    let mut serving = Worker::start();
    let _client = endless(&serving);
    serving.control = None;
    assert!(serving.exit().success());
}

/// A session in which the driver itself makes a system call that the jail forbids.
fn attempt(worker: &Worker, kernel: &str) -> (Client, u64) {
    let mut client = worker.session();
    let function = client.function(1, kernel);
    let address = client.allocate(1, 8);
    client.launch(1, function, 0, &address.to_le_bytes());
    (client, address)
}

#[test]
fn a_jailed_driver_cannot_open_a_file() {
    let worker = Worker::start();
    let (mut client, address) = attempt(&worker, "open");
    assert_eq!(client.number_at(1, address), libc::EACCES as u64);
}

#[test]
fn a_jailed_driver_that_connects_or_executes_dies_and_the_call_is_named() {
    for (kernel, number) in [("connect", libc::SYS_socket), ("execute", libc::SYS_execve)] {
        let mut worker = Worker::start();
        let _client = attempt(&worker, kernel);
        let refused = worker.event_named("refused_call");
        assert_eq!(refused["number"], number);
        assert_eq!(worker.exit().code(), Some(128 + libc::SIGSYS));
    }
}

#[test]
fn the_jail_is_shut_before_a_client_is_let_in() {
    let worker = Worker::start();
    let folder = format!("/proc/{}", worker.process.id());
    let status = std::fs::read_to_string(format!("{folder}/status")).unwrap();
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_ne!(field("Uid:"), "0");
    // Only root may look into a process that is not dumpable.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        std::fs::metadata(format!("{folder}/environ"))
            .unwrap()
            .uid(),
        0
    );
}

#[test]
fn a_worker_dies_with_the_thread_that_started_it() {
    let worker = std::thread::spawn(Worker::start).join().unwrap();
    let mut worker = worker;
    let begun = Instant::now();
    let status = worker.exit();
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    assert!(begun.elapsed() < Duration::from_secs(20));
}
