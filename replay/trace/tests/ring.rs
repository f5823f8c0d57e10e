//! The ring between a program and its recorder: order, wrapping, a writer that dies, a writer that lies.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use harp_trace::block::{loss, Block, Kind, Kinds, Lost, Payload, Policy, PART_MAX};
use harp_trace::ring::{Consumer, Patience, Producer, RingFds, CAPACITY_MIN, FOR_LAST};

const HEAD_AT: u64 = 64;
const TAIL_AT: u64 = 128;
const BYTES_AT: u64 = 4096;

fn ring() -> (Producer, Consumer, File) {
    let (producer, fds) = Producer::create(CAPACITY_MIN).unwrap();
    let memory = File::from(fds.memory.try_clone().unwrap());
    (producer, Consumer::attach(fds).unwrap(), memory)
}

fn put(memory: &File, at: u64, word: u64) {
    memory.write_all_at(&word.to_le_bytes(), at).unwrap();
}

#[test]
fn what_goes_in_comes_out_also_around_the_end() {
    let (mut producer, mut consumer, _) = ring();
    let bytes: Vec<u8> = (0..=255).collect();
    let mut sent = 0u64;
    let mut received = 0u64;
    while received < 20_000 {
        let body = &bytes[..(sent * 37 % 256) as usize];
        if producer.try_append(7, sent as u16, &[&sent.to_le_bytes(), body]) {
            sent += 1;
            continue;
        }
        // Full: takes a few out, never as many as the ring holds.
        for _ in 0..101 {
            let block = consumer.next().unwrap().unwrap();
            assert_eq!((block.number, block.flags), (7, received as u16));
            assert_eq!(block.body[..8], received.to_le_bytes());
            assert_eq!(block.body[8..], bytes[..(received * 37 % 256) as usize]);
            received += 1;
        }
    }
    while consumer.next().unwrap().is_some() {
        received += 1;
    }
    assert_eq!(received, sent);
    assert_eq!(producer.consumed(), producer.appended());
    assert_eq!(producer.free(), CAPACITY_MIN - FOR_LAST);
}

#[test]
fn a_block_that_fits_exactly_fits_and_a_larger_one_does_not() {
    let (mut producer, mut consumer, _) = ring();
    const ROOM: usize = CAPACITY_MIN - FOR_LAST;
    let body = vec![1; ROOM];
    assert!(!producer.try_append(4, 0, &[&body[..ROOM - 7]]));
    assert_eq!(producer.appended(), 0);
    assert!(producer.try_append(4, 0, &[&body[..ROOM - 8]]));
    assert!(!producer.try_append(4, 0, &[]));
    assert_eq!(consumer.next().unwrap().unwrap().body, &body[..ROOM - 8]);
    assert!(producer.try_append(4, 0, &[]));
}

#[test]
fn two_threads_agree_and_the_sleeper_is_woken() {
    let (mut producer, mut consumer, _) = ring();
    const BLOCKS: u64 = 200_000;
    let writer = thread::spawn(move || {
        for number in 0..BLOCKS {
            let body = [number.to_le_bytes(); 5];
            while !producer.try_append(5, 0, &[body.as_flattened()]) {
                producer.wake();
                thread::yield_now();
            }
        }
        producer
    });
    let mut expected = 0u64;
    let deadline = Instant::now() + Duration::from_secs(60);
    while expected < BLOCKS && Instant::now() < deadline {
        match consumer.next().unwrap() {
            Some(block) => {
                assert_eq!(block.body, [expected.to_le_bytes(); 5].as_flattened());
                expected += 1;
            }
            None => consumer.wait(Duration::from_millis(20)),
        }
    }
    assert_eq!(expected, BLOCKS);
    writer.join().unwrap();
}

#[test]
fn an_eighth_of_the_ring_wakes_the_reader_and_less_does_not() {
    let (mut producer, consumer, _) = ring();
    let readable = |consumer: &Consumer| {
        let mut poll = libc::pollfd {
            fd: consumer.wake_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry that lives.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    };
    assert!(consumer.fall_asleep());
    let block = [0; 1016];
    for _ in 0..7 {
        assert!(producer.try_append(5, 0, &[&block]));
    }
    assert!(!readable(&consumer));
    assert!(producer.try_append(5, 0, &[&block]));
    assert!(readable(&consumer));
    consumer.awake();
    assert!(!readable(&consumer));
    assert!(!consumer.fall_asleep(), "there is enough to read already");
    consumer.awake();
    // A reader that falls asleep unseen is woken by what finds no room.
    while producer.append(0, &Block::Annotation(&block)) {}
    consumer.fall_asleep();
    assert!(!readable(&consumer));
    assert!(!producer.append(0, &Block::Annotation(&block)));
    assert!(readable(&consumer));
}

#[test]
fn a_payload_larger_than_the_ring_goes_through_in_parts() {
    let (mut producer, mut consumer, _) = ring();
    let bytes: Vec<u8> = (0..4 * CAPACITY_MIN).map(|n| (n / 7) as u8).collect();
    let (head, tail) = bytes.split_at(1000);
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while got.len() < 4 * CAPACITY_MIN && Instant::now() < deadline {
            let Some(raw) = consumer.next().unwrap() else {
                consumer.wait(Duration::from_millis(5));
                continue;
            };
            let Block::Part { first, keep, bytes } = Block::decode(raw).unwrap() else {
                panic!("{raw:?}")
            };
            assert!(bytes.len() <= PART_MAX);
            assert!(keep);
            assert_eq!(first, got.is_empty());
            got.extend_from_slice(bytes);
        }
        got
    });
    // A loaded machine may stop the reader for longer than a program would wait.
    let full = Payload::unnamed(Policy::Full, bytes.len());
    let given = (0..100).find(|_| {
        let mut patience = Patience::for_bytes(&producer, 1 << 60);
        let payload = producer.append_payload(Policy::Full, &[head, tail], &mut patience);
        payload == full || producer.consumed() != 0
    });
    assert!(given.is_some());
    assert!(reader.join().unwrap() == bytes);
}

#[test]
fn a_reader_that_stands_still_is_not_waited_for() {
    let (mut producer, mut consumer, _) = ring();
    let bytes = vec![0; 2 * CAPACITY_MIN];
    let mut patience = Patience::for_bytes(&producer, 1 << 40);
    let payload = producer.append_payload(Policy::Shape, &[&bytes], &mut patience);
    assert_eq!(payload, Payload::unnamed(Policy::Shape, bytes.len()));
    assert_eq!(producer.appended(), 0);
    let payload = producer.append_payload(Policy::Hash, &[&bytes], &mut patience);
    assert_eq!(payload, Payload::unnamed(Policy::Lost, bytes.len()));
    // What it belonged to can be told all the same.
    let room = CAPACITY_MIN / 8 / 24;
    for _ in 0..room {
        assert!(producer.try_append_block(&Block::Enter {
            time: 1,
            thread: 1,
            symbol: 1,
        }));
    }
    // What was appended until then is whole.
    while consumer.next().unwrap().is_some() {}
    assert!(producer.try_append_block(&Block::End(b"{}")));
    assert_eq!(
        Block::decode(consumer.next().unwrap().unwrap()),
        Ok(Block::End(b"{}"))
    );
}

#[test]
fn an_end_finds_room_whatever_is_lost_and_tells_of_that() {
    let (mut producer, mut consumer, _) = ring();
    let note = Block::Annotation(&[7; 100]);
    while producer.append(1, &note) {}
    let enter = Block::Enter {
        time: 2,
        thread: 1,
        symbol: 1,
    };
    assert!(!producer.append(2, &enter));
    let end = Block::End(&[b' '; 100]);
    assert!(producer.append_last(3, &end));
    let mut last = Vec::new();
    while let Some(raw) = consumer.next().unwrap() {
        last.push(format!("{:?}", Block::decode(raw).unwrap()));
    }
    let lost = Lost {
        reasons: loss::NO_ROOM,
        blocks: 2,
        bytes: 116,
        kinds: Kinds(1 << Kind::Annotation as u16 | 1 << Kind::Enter as u16),
    };
    let told = Block::Loss { time: 3, lost };
    assert_eq!(
        last[last.len() - 2..],
        [told, end].map(|block| format!("{block:?}"))
    );
    assert_eq!(consumer.lost().kinds, Kinds::default());
}

#[test]
fn optional_blocks_give_way_to_others_and_are_told_when_there_is_room() {
    let (mut producer, mut consumer, _) = ring();
    let enter = Block::Enter {
        time: 5,
        thread: 1,
        symbol: 1,
    };
    let tell = |producer: &mut Producer| {
        producer.append_optional(Kind::Enter, [5, 1 | 1 << 32], 5, || enter.clone())
    };
    let kept = (0..10_000).filter(|_| tell(&mut producer)).count();
    let room = CAPACITY_MIN / 24;
    assert!((room * 6 / 8..room * 7 / 8 + 2).contains(&kept), "{kept}");
    let call = Block::Annotation(&[7; 1000]);
    let others = (0..100).filter(|_| producer.append(6, &call)).count();
    assert_eq!(others, CAPACITY_MIN / 8 / 1008);
    for _ in 0..kept {
        assert_eq!(
            Block::decode(consumer.next().unwrap().unwrap()),
            Ok(enter.clone())
        );
    }
    assert!(tell(&mut producer));
    for _ in 0..others {
        assert_eq!(
            Block::decode(consumer.next().unwrap().unwrap()),
            Ok(call.clone())
        );
    }
    let Ok(Block::Loss { lost, .. }) = Block::decode(consumer.next().unwrap().unwrap()) else {
        panic!("the loss is told first");
    };
    assert_eq!(lost.blocks as usize, 10_000 - kept + 100 - others);
    assert_eq!(Block::decode(consumer.next().unwrap().unwrap()), Ok(enter));
    assert!(consumer.next().unwrap().is_none());
}

#[test]
fn what_finds_no_room_is_counted_and_told_when_there_is_room_again() {
    let (mut producer, mut consumer, _) = ring();
    let note = vec![b'x'; 9992];
    let annotation = Block::Annotation(&note);
    let kept = (0..10)
        .filter(|time| producer.append(*time, &annotation))
        .count();
    let lost = Lost {
        reasons: loss::NO_ROOM,
        blocks: 4,
        bytes: 4 * 9992,
        kinds: Kinds::of(Kind::Annotation as u16),
    };
    assert_eq!((kept, producer.lost()), (6, lost));
    for _ in 0..3 {
        consumer.next().unwrap();
    }
    assert!(producer.append(11, &annotation));
    for _ in 0..3 {
        consumer.next().unwrap();
    }
    let told = Block::Loss { time: 11, lost };
    assert_eq!(Block::decode(consumer.next().unwrap().unwrap()), Ok(told));
    assert_eq!(
        Block::decode(consumer.next().unwrap().unwrap()),
        Ok(annotation)
    );
    assert_eq!(consumer.next(), Ok(None));
    let kinds = Kinds::default();
    assert_eq!(consumer.lost(), Lost { kinds, ..lost });
}

/// A child process that appends until it is killed.
#[test]
fn a_writer_that_is_killed_leaves_whole_blocks() {
    let (mut producer, mut consumer, _) = ring();
    let body: Vec<u8> = (0..200).collect();
    // SAFETY: the child appends and nothing else, until it is killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut number = 0u64;
        loop {
            if producer.try_append(7, 0, &[&number.to_le_bytes(), &body]) {
                number += 1;
            }
        }
    }
    let mut number = 0u64;
    let mut killed = false;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match consumer.next().unwrap() {
            Some(block) => {
                assert_eq!(block.body[..8], number.to_le_bytes());
                assert_eq!(block.body[8..], body);
                number += 1;
            }
            None if killed => break,
            None => thread::yield_now(),
        }
        if !killed && (number > 100_000 || Instant::now() > deadline) {
            // SAFETY: the child of this test.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
            killed = true;
        }
    }
    assert!(number > 1000);
}

#[test]
fn a_head_that_lies_ends_the_reading() {
    for head in [1, 4, 1 << 32, u64::MAX, CAPACITY_MIN as u64 + 8, 1 << 63] {
        let (_producer, mut consumer, memory) = ring();
        put(&memory, HEAD_AT, head);
        assert!(consumer.next().is_err(), "{head:#x}");
        assert_eq!(consumer.consumed(), 0);
    }
    // Going back is as bad as going too far.
    let (mut producer, mut consumer, memory) = ring();
    assert!(producer.try_append(1, 0, &[&[0; 100]]));
    assert!(consumer.next().unwrap().is_some());
    put(&memory, HEAD_AT, 8);
    assert!(consumer.next().is_err());
}

#[test]
fn a_block_longer_than_what_is_there_ends_the_reading() {
    for size in [u32::MAX, 1 << 31, 65 << 20, CAPACITY_MIN as u32, 33] {
        let (mut producer, mut consumer, memory) = ring();
        assert!(producer.try_append(1, 0, &[&[0; 24]]));
        put(&memory, BYTES_AT, u64::from(size));
        let broken = consumer.next().unwrap_err();
        assert_eq!(broken.offset, 0);
    }
}

#[test]
fn a_tail_that_lies_leaves_no_room() {
    let (mut producer, mut consumer, memory) = ring();
    assert!(producer.try_append(1, 0, &[&[0; 24]]));
    put(&memory, TAIL_AT, 1 << 40);
    assert_eq!(producer.free(), 0);
    // The reader's own tail is its own.
    assert_eq!(consumer.next().unwrap().unwrap().body, [0; 24]);
}

#[test]
fn what_is_no_ring_is_refused() {
    let wake = || -> OwnedFd { Producer::create(CAPACITY_MIN).unwrap().1.wake };
    // A file, which could be cut while it is read.
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096 + CAPACITY_MIN as u64).unwrap();
    let attached = Consumer::attach(RingFds {
        memory: file.into(),
        wake: wake(),
    });
    assert!(attached.unwrap_err().to_string().contains("not sealed"));
    // A ring whose magic is gone.
    let (_producer, fds) = Producer::create(CAPACITY_MIN).unwrap();
    put(&File::from(fds.memory.try_clone().unwrap()), 0, 0);
    let attached = Consumer::attach(fds);
    assert!(attached.unwrap_err().to_string().contains("no ring"));
    for capacity in [0, 4096, CAPACITY_MIN + 4096, 1 << 31] {
        assert!(Producer::create(capacity).is_err(), "{capacity}");
    }
}

/// Any bytes in the ring and any head: what comes out may be anything, but it ends.
#[test]
fn noise_in_the_ring_does_no_harm() {
    let mut random = harp_mutation::Random::new(6);
    for _ in 0..300 {
        let (_producer, mut consumer, memory) = ring();
        let noise: Vec<u8> = (0..512)
            .flat_map(|_| (harp_mutation::interesting(&mut random) & 0xffff).to_le_bytes())
            .collect();
        memory.write_all_at(&noise, BYTES_AT).unwrap();
        put(&memory, HEAD_AT, 8 * random.below(600) as u64);
        while let Ok(Some(raw)) = consumer.next() {
            let _ = Block::decode(raw);
        }
        assert!(consumer.consumed() <= CAPACITY_MIN as u64);
    }
}
