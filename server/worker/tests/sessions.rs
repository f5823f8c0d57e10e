//! Sessions of a built worker over TLS, on a fake driver.

mod support;

use harp_transport::{ConnectError, Hello, Version};
use harp_wire::calls::*;
use harp_wire::push::Push;
use harp_wire::{windows, CallId, Decoder, HandleKind};
use serde_json::{json, Value};
use support::{copy_out, launch, record, Client, Worker, USER};

const SECOND_THREAD: u32 = 2;

fn params(address: u64, number: u32) -> Vec<u8> {
    [address.to_le_bytes().as_slice(), &number.to_le_bytes()].concat()
}

/// How a worker is started for NVIDIA's driver.
const NVIDIA: &[&str] = &["--jail", "nvidia", "--prepare"];
/// Enough that the allocator maps it anew.
const LARGE: u64 = 64 << 20;

#[test]
fn a_driver_of_its_own_mind_has_only_the_addresses_that_are_left_to_it() {
    for (wish, options) in [
        (None, &NVIDIA[..2]),
        (Some(7), NVIDIA),
        (Some(31), NVIDIA),
        (Some(32), NVIDIA),
    ] {
        let worker = Worker::start_with(&support::fake_driver(), options);
        let mut hello = Hello::current();
        if let Some(number) = wish {
            let first = windows::REGION.start + number * windows::SIZE;
            hello
                .options
                .insert(windows::OPTION.to_owned(), first.to_string());
        }
        let given = wish.filter(|number| *number < 32).unwrap_or(0);
        let base = windows::REGION.start + given * windows::SIZE;
        let mut client = worker.connect(USER, hello).unwrap();
        let snapshot: Value = serde_json::from_slice(&client.welcome.snapshot).unwrap();
        assert_eq!(
            snapshot["devices"][0]["window"],
            json!([base, windows::SIZE])
        );
        for _ in 0..4 {
            let address = client.allocate(1, LARGE);
            assert!(
                (base..base + windows::SIZE).contains(&address),
                "{address:#x}"
            );
        }
    }
}

#[test]
fn a_session_computes_and_is_accounted_for() {
    let mut worker = Worker::start();
    assert_eq!(worker.ready["devices"], 1);
    assert_eq!(worker.ready["soft"], false);
    let mut client = worker.connect(USER, Hello::current()).unwrap();
    let start = worker.event();
    assert_eq!(
        (&start["event"], &start["peer"]),
        (&"start".into(), &USER.into())
    );
    assert_eq!(start["tls"], "TLSv1.3");

    let snapshot: Value = serde_json::from_slice(&client.welcome.snapshot).unwrap();
    assert_eq!(snapshot["driver_version"], 13000);
    let device = &snapshot["devices"][0];
    assert_eq!(device["name"], "Fake device");
    assert_eq!(device["uuid"], "30313233343536373839616263646566");
    assert_eq!(device["attributes"]["75"], 750);
    assert_eq!(device["attributes"]["101"], Value::Null);
    assert_eq!(
        device["window"],
        json!([windows::REGION.start, windows::SIZE])
    );

    let add = client.function(1, "add");
    let address = client.allocate(1, 8);
    for _ in 0..1000 {
        client.launch(1, add, 0, &params(address, 3));
    }
    assert_eq!(client.number_at(1, address), 3000);
    client.sender.bye().unwrap();
    let end = worker.end();
    assert_eq!(end["cause"], "the client has finished");
    // set_current, blob, 1000 launches; retain, load, get function, alloc, copy.
    assert_eq!((&end["calls"], &end["waits"]), (&1007.into(), &5.into()));
    assert!(end["bytes_in"].as_u64().unwrap() > 1000 * 60);
    assert!(end["bytes_out"].as_u64().unwrap() > 0);
}

#[test]
fn a_worker_goes_first_where_memory_runs_out() {
    let worker = Worker::start();
    let file = format!("/proc/{}/oom_score_adj", worker.process.id());
    let score = std::fs::read_to_string(file).unwrap();
    assert!(score.trim().parse::<i32>().unwrap() >= 500, "{score}");
}

#[test]
fn large_copies_arrive_whole_in_both_directions() {
    let worker = Worker::start();
    let mut client = worker.session();
    client.function(1, "add");
    let bytes = 5 << 20;
    let data: Vec<u8> = (0..bytes)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let address = client.allocate(1, u64::from(bytes));
    client.tell(1, CallId::cuMemcpyHtoD_v2, &|e| {
        encode_cuMemcpyHtoD_v2(e, address, u64::MAX);
        e.bytes(&data);
    });
    let reply = client.ask(
        1,
        CallId::cuMemcpyDtoH_v2,
        &copy_out(address, u64::from(bytes)),
    );
    assert_eq!(reply.status, 0);
    assert!(reply.body[8..] == data[..]);
    let reply = client.ask(1, CallId::cuMemcpyDtoH_v2, &copy_out(address, 0));
    assert_eq!(reply.body, 0u64.to_le_bytes(), "no bytes are bytes too");
}

#[test]
fn a_failed_one_way_call_is_told_once_by_the_next_reply() {
    let worker = Worker::start();
    let mut client = worker.session();
    let fail = client.function(1, "fail");
    let address = client.allocate(1, 8);
    client.launch(1, fail, 0, &[]);
    client.launch(1, fail, 0, &[]);
    let told = client.ask(1, CallId::cuMemcpyDtoH_v2, &copy_out(address, 8));
    assert_eq!((told.status, told.deferred), (0, 701));
    let after = client.ask(1, CallId::cuMemcpyDtoH_v2, &copy_out(address, 8));
    assert_eq!((after.status, after.deferred), (0, 0));
    let event = worker.event();
    assert_eq!(event["event"], "deferred_error");
    assert_eq!(event["call"], "cuLaunchKernel");
    assert_eq!(event["name"], "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES");
}

#[test]
fn launches_in_a_row_are_as_launches_one_by_one() {
    let worker = Worker::start();
    let mut client = worker.session();
    let (add, fail) = (client.function(1, "add"), client.function(1, "fail"));
    let late = client.function(1, "seen_stream");
    let never_made = HandleKind::Stream.handle(9);
    client.tell(1, CallId::cuStreamCreate, &|e| {
        encode_cuStreamCreate(e, never_made, 99);
    });
    let (sum, stream) = (client.allocate(1, 8), client.allocate(1, 8));
    let other = HandleKind::Context.handle(2);
    client.ask(SECOND_THREAD, CallId::cuCtxCreate_v2, &|e| {
        encode_cuCtxCreate_v2(e, other, 0, 0);
    });
    client.tell(SECOND_THREAD, CallId::harp_set_current, &|e| {
        encode_harp_set_current(e, other);
    });
    let context = client.function(1, "seen_context");
    let contexts = [client.allocate(1, 8), client.allocate(1, 8)];
    let mut frame = Vec::new();
    let mut make = |thread, function, stream, params: &[u8]| {
        let arguments = launch(function, stream, params);
        frame.extend(record(thread, CallId::cuLaunchKernel, &arguments));
    };
    for times in [20, 1, 40] {
        for _ in 0..times {
            make(1, add, 0, &params(sum, 3));
        }
        make(1, fail, 0, &[]);
        make(1, add, 0, &params(sum, 3));
        make(1, add, never_made, &params(sum, 1000));
        make(1, late, 1, &params(stream, 0)[..8]);
        for (thread, address) in [1, SECOND_THREAD].into_iter().zip(contexts) {
            make(thread, context, 0, &params(address, 0)[..8]);
        }
        make(1, late, 0, &params(stream, 0)[..8]);
    }
    make(1, late, 1, &params(stream, 0)[..8]);
    client.raw(&frame);
    let found = client.ask(1, CallId::cuMemcpyDtoH_v2, &copy_out(sum, 8));
    assert_eq!(
        (found.status, found.deferred),
        (0, 701),
        "the first of them"
    );
    assert_eq!(found.body[8..], (64 * 3_u64).to_le_bytes());
    assert_eq!(client.number_at(1, stream), 1, "what came last");
    let [first, second] = contexts.map(|address| client.number_at(1, address));
    assert!(
        first != 0 && second != 0 && first != second,
        "{first:#x} {second:#x}"
    );
    let mut frame = Vec::new();
    for bytes in [12, 12, 11, 12] {
        let arguments = params(sum, 3);
        let short = launch(add, 0, &arguments[..bytes]);
        frame.extend(record(1, CallId::cuLaunchKernel, &short));
    }
    client.raw(&frame);
    let cause = client.goodbye();
    assert!(
        cause.starts_with("violation: 11 bytes of parameters for"),
        "{cause}"
    );
}

#[test]
fn a_reply_carries_its_own_error_and_no_outputs() {
    let worker = Worker::start();
    let mut client = worker.session();
    let fail = client.function(1, "fail");
    let reply = client.ask(1, CallId::cuLaunchKernel, &launch(fail, 0, &[]));
    assert_eq!((reply.status, reply.deferred), (701, 0));
    let reply = client.ask(1, CallId::cuMemcpyDtoH_v2, &copy_out(0, 8));
    assert_eq!((reply.status, reply.body.len()), (1, 0));
}

#[test]
fn a_failed_create_answers_uses_of_its_handle() {
    let worker = Worker::start();
    let mut client = worker.session();
    client.function(1, "add");
    let stream = HandleKind::Stream.handle(9);
    client.tell(1, CallId::cuStreamCreate, &|e| {
        encode_cuStreamCreate(e, stream, 99)
    });
    let reply = client.ask(1, CallId::cuStreamSynchronize, &|e| {
        encode_cuStreamSynchronize(e, stream)
    });
    assert_eq!((reply.status, reply.deferred), (1, 1));
}

#[test]
fn each_client_thread_has_its_own_context_and_default_stream() {
    let worker = Worker::start();
    let mut client = worker.session();
    let seen_context = client.function(1, "seen_context");
    let seen_stream = client.function(1, "seen_stream");
    let address = client.allocate(1, 8);
    let other = HandleKind::Context.handle(2);
    let made = client.ask(SECOND_THREAD, CallId::cuCtxCreate_v2, &|e| {
        encode_cuCtxCreate_v2(e, other, 0, 0);
    });
    assert_eq!(made.status, 0);
    client.tell(SECOND_THREAD, CallId::harp_set_current, &|e| {
        encode_harp_set_current(e, other)
    });

    let mut seen = |function, thread, stream| {
        client.launch(thread, function, stream, &params(address, 0)[..8]);
        client.number_at(thread, address)
    };
    let first = seen(seen_context, 1, 0);
    assert_eq!(first, 0x100);
    let second = seen(seen_context, SECOND_THREAD, 0);
    assert_ne!(second, first);
    assert_eq!(seen(seen_context, 1, 0), first, "back on the first thread");

    assert_eq!(seen(seen_stream, 1, 0), 0);
    assert_eq!(seen(seen_stream, 1, 1), 1);
    let (one, two) = (seen(seen_stream, 1, 2), seen(seen_stream, SECOND_THREAD, 2));
    assert!(one > 2 && two > 2 && one != two);
    assert_eq!(seen(seen_stream, 1, 2), one, "made once");
}

/// Thread 1 waits for a stream that only a later call of another thread lets go on.
fn blocked(client: &mut Client) -> (u64, u32) {
    let block = client.function(1, "block");
    let release = client.function(1, "release");
    client.launch(1, block, 0, &[]);
    let ticket = client.post(1, CallId::cuStreamSynchronize, &|e| {
        encode_cuStreamSynchronize(e, 0)
    });
    (release, ticket)
}

fn use_context(client: &mut Client, thread: u32) {
    let context = HandleKind::Context.handle(1);
    client.tell(thread, CallId::harp_set_current, &|e| {
        encode_harp_set_current(e, context)
    });
}

#[test]
fn a_wait_does_not_hold_up_a_thread_that_was_not_known() {
    let worker = Worker::start();
    let mut client = worker.session();
    let (release, ticket) = blocked(&mut client);
    use_context(&mut client, SECOND_THREAD);
    client.launch(SECOND_THREAD, release, 0, &[]);
    let reply = client.replies().remove(0);
    assert_eq!((reply.ticket, reply.status), (ticket, 0));
}

#[test]
fn many_waits_at_once_each_get_their_reply() {
    let mut worker = Worker::start();
    let mut client = worker.session();
    let (release, first) = blocked(&mut client);
    let mut expected = vec![first];
    for thread in 2..20 {
        use_context(&mut client, thread);
        expected.push(client.post(thread, CallId::cuCtxSynchronize, &encode_cuCtxSynchronize));
    }
    let free = client.post(50, CallId::cuMemFree_v2, &|e| encode_cuMemFree_v2(e, 0));
    assert_eq!(
        client.replies().remove(0).ticket,
        free,
        "what need not wait does not"
    );
    use_context(&mut client, 50);
    client.launch(50, release, 0, &[]);
    let mut answered = Vec::new();
    while answered.len() < expected.len() {
        answered.extend(client.replies().into_iter().map(|reply| {
            assert_eq!(reply.status, 0);
            reply.ticket
        }));
    }
    answered.sort_unstable();
    assert_eq!(answered, expected);
    // Everything still works, whichever thread leads now.
    let address = client.allocate(1, 8);
    assert_eq!(client.number_at(1, address), 0);
    client.sender.bye().unwrap();
    assert_eq!(worker.end()["cause"], "the client has finished");
}

#[test]
fn replies_before_a_wait_are_not_held_back_by_it() {
    let worker = Worker::start();
    let mut client = worker.session();
    let (release, waiting) = blocked(&mut client);
    use_context(&mut client, SECOND_THREAD);
    let address = client.allocate(SECOND_THREAD, 8);
    assert_eq!(client.number_at(SECOND_THREAD, address), 0);
    client.launch(SECOND_THREAD, release, 0, &[]);
    assert_eq!(client.replies().remove(0).ticket, waiting);
}

#[test]
fn a_stream_waits_for_a_function_of_the_program() {
    let worker = Worker::start();
    let mut client = worker.session();
    client.function(1, "add");
    client.tell(1, CallId::cuLaunchHostFunc, &|e| {
        encode_cuLaunchHostFunc(e, 0, 77)
    });
    let waiting = client.post(1, CallId::cuStreamSynchronize, &|e| {
        encode_cuStreamSynchronize(e, 0)
    });
    let pushed = client.replies().remove(0);
    assert_eq!(pushed.ticket, 0);
    let push = Push::decode(&mut Decoder::new(&pushed.body)).unwrap();
    let (callback, status) = (77, 0);
    assert_eq!(push, Some(Push::Callback { callback, status }));
    client.tell(SECOND_THREAD, CallId::harp_callback_done, &|e| {
        encode_harp_callback_done(e, 77)
    });
    let reply = client.replies().remove(0);
    assert_eq!((reply.ticket, reply.status), (waiting, 0));
}

/// The output that is pushed before the reply with this ticket.
fn printed_before(client: &mut Client, ticket: u32) -> [Vec<u8>; 3] {
    let mut printed = [const { Vec::new() }; 3];
    loop {
        for reply in client.replies() {
            if reply.ticket == ticket {
                assert_eq!(reply.status, 0);
                return printed;
            }
            match Push::decode(&mut Decoder::new(&reply.body)) {
                Ok(Some(Push::Output { stream, text })) => {
                    printed[stream as usize].extend(text);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn what_the_device_prints_comes_before_the_reply_that_follows_it() {
    let worker = Worker::start();
    let mut client = worker.session();
    let print = client.function(1, "print");
    // More than any pipe holds, then little.
    for lines in [100_000u32, 1] {
        client.launch(1, print, 0, &lines.to_le_bytes());
        let ticket = client.post(1, CallId::cuCtxSynchronize, &encode_cuCtxSynchronize);
        let [out, error, notices] = printed_before(&mut client, ticket);
        let expected: String = (0..lines)
            .map(|line| format!("line {line} of the device\n"))
            .collect();
        assert!(out == expected.as_bytes(), "{} bytes of text", out.len());
        assert!(error.is_empty() && notices.is_empty());
    }
}

#[test]
fn stderr_is_the_programs_but_for_the_soft_gpus_own_lines() {
    let worker = Worker::start();
    let mut client = worker.session();
    let complain = client.function(1, "complain");
    client.launch(1, complain, 0, &[]);
    let ticket = client.post(1, CallId::cuStreamSynchronize, &|e| {
        encode_cuStreamSynchronize(e, 0)
    });
    let [out, error, notices] = printed_before(&mut client, ticket);
    assert_eq!(String::from_utf8(out).unwrap(), "");
    assert_eq!(String::from_utf8(error).unwrap(), "a.cu:1: Assertion\n");
    assert_eq!(String::from_utf8(notices).unwrap(), "", "for the log");
}

#[test]
fn text_reaches_a_client_that_asks_nothing() {
    let worker = Worker::start();
    let mut client = worker.session();
    let print = client.function(1, "print");
    client.launch(1, print, 0, &200_000u32.to_le_bytes());
    let mut bytes = 0;
    while bytes < 1 << 20 {
        for reply in client.replies() {
            assert_eq!(reply.ticket, 0);
            bytes += reply.body.len();
        }
    }
}

#[test]
fn a_client_of_another_major_version_is_refused_with_both() {
    let mut worker = Worker::start();
    let hello = Hello {
        version: Some(Version {
            major: 99,
            minor: 0,
        }),
        ..Hello::current()
    };
    match worker.connect(USER, hello) {
        Err(ConnectError::VersionRefused { client, server }) => {
            assert_eq!(client.major, 99);
            assert_ne!(server.major, 99);
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    let cause = worker.end()["cause"].as_str().unwrap().to_owned();
    assert!(
        cause.starts_with("refused: ") && cause.contains("99.0"),
        "{cause}"
    );
}

#[test]
fn a_certificate_that_is_no_users_gets_no_session() {
    let mut worker = Worker::start();
    let refused = worker
        .connect("spiffe://test/session/s-2", Hello::current())
        .err()
        .unwrap();
    assert!(matches!(refused, ConnectError::SessionRefused(ref text) if text.contains("no user")));
    assert!(worker.end()["cause"].as_str().unwrap().contains("no user"));
}

#[test]
fn a_watched_event_is_not_asked_about_when_its_context_has_ended() {
    let worker = Worker::start();
    let mut client = worker.session();
    let block = client.function(1, "block");
    client.launch(1, block, 0, &[]);
    let event = HandleKind::Event.handle(1);
    client.tell(1, CallId::cuEventCreate, &|e| {
        encode_cuEventCreate(e, event, 0)
    });
    client.tell(1, CallId::cuEventRecord, &|e| {
        encode_cuEventRecord(e, event, 0)
    });
    client.tell(1, CallId::harp_event_watch, &|e| {
        encode_harp_event_watch(e, event, 7)
    });
    let context = HandleKind::Context.handle(1);
    let reset = client.post(1, CallId::cuDevicePrimaryCtxReset_v2, &|e| {
        encode_cuDevicePrimaryCtxReset_v2(e, context, 0);
    });
    let mut told = Vec::new();
    while told.len() < 2 {
        for reply in client.replies() {
            told.push(match reply.ticket {
                0 => Push::decode(&mut Decoder::new(&reply.body)).unwrap(),
                ticket => {
                    assert_eq!((ticket, reply.status), (reset, 0));
                    None
                }
            });
        }
    }
    let unclear = Push::Event {
        number: 7,
        over: false,
    };
    assert_eq!(told, [Some(unclear), None], "before the reply");
}
