//! What is written is read.

use super::*;

fn blocks() -> Vec<Block<'static>> {
    let payload = Payload {
        policy: Policy::Full,
        length: 1 << 33,
        hash: core::array::from_fn(|at| at as u8),
    };
    let message = |payload| Message {
        time: 12,
        session: 3,
        bytes: b"the wire's bytes",
        payload,
    };
    vec![
        Block::Part {
            first: true,
            keep: false,
            bytes: b"piece",
        },
        Block::Define(b"{\"calls\":[]}"),
        Block::Process(b"{}"),
        Block::Session(b"{\"number\":0}"),
        Block::Thread {
            thread: 1,
            tid: 4711,
            name: b"main",
        },
        Block::Enter {
            time: u64::MAX,
            thread: 1,
            symbol: 65535,
        },
        Block::Leave {
            time: 9,
            thread: 1,
            result: 700,
        },
        Block::Call(message(None)),
        Block::Call(message(Some(payload))),
        Block::Reply(message(Some(Payload::unnamed(Policy::Shape, 64)))),
        Block::Push(message(None)),
        Block::Wait {
            began: 1,
            ended: 2,
            thread: 3,
            session: 4,
            ticket: 5,
            reason: 6,
            call: 7,
        },
        Block::Allocation {
            time: 1,
            session: 2,
            device: 3,
            address: 4,
            bytes: 5,
        },
        Block::Free {
            time: 1,
            session: 2,
            address: 4,
        },
        Block::Loss {
            time: 1,
            lost: Lost {
                reasons: loss::NO_ROOM | loss::DISK_FULL,
                blocks: 2,
                bytes: 3,
                kinds: Kinds::of(Kind::Enter as u16),
            },
        },
        Block::Loss {
            time: 1,
            lost: Lost {
                kinds: Kinds::UNKNOWN,
                ..Lost::default()
            },
        },
        Block::Annotation(b"{}"),
        Block::End(b"{}"),
        Block::Snapshot {
            session: 1,
            device: 2,
            address: 3,
            bytes: 4,
            payload,
        },
        Block::DeviceTime {
            session: 1,
            call: 2,
            began: 3,
            ended: 4,
        },
        Block::Other(RawBlock {
            number: FIRST_EXPERIMENT,
            flags: FLAG_PAYLOAD | 4,
            body: b"anything",
        }),
    ]
}

fn raw(bytes: &[u8]) -> RawBlock<'_> {
    let (head, body) = bytes.split_first_chunk().unwrap();
    let (number, flags, body_bytes) = read_head(*head);
    assert_eq!(body.len(), body_bytes);
    RawBlock {
        number,
        flags,
        body,
    }
}

#[test]
fn a_block_is_read_as_it_was_written() {
    for block in blocks() {
        let mut bytes = Vec::new();
        block.encode(&mut bytes);
        assert_eq!(Block::decode(raw(&bytes)).as_ref(), Ok(&block));
    }
}

#[test]
fn every_type_has_its_number() {
    for (number, (kind, _)) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, number);
    }
    assert_eq!(Kind::from_number(19), None);
}

#[test]
fn a_body_cut_short_is_malformed_and_a_longer_one_is_for_later_versions() {
    for block in blocks() {
        let mut bytes = Vec::new();
        block.encode(&mut bytes);
        let whole = raw(&bytes);
        let fixed = block.parts().slices()[0].len();
        // What a later version has added may be missing.
        let added = match block {
            Block::Loss { lost, .. } if lost.kinds != Kinds::UNKNOWN => 8,
            _ => 0,
        };
        for cut in 0..fixed - added {
            let cut = RawBlock {
                body: &whole.body[..cut],
                ..whole
            };
            assert!(Block::decode(cut).is_err(), "{block:?}");
        }
        if let Block::Free { .. } = block {
            let longer = [whole.body, b"more"].concat();
            let body = &longer[..];
            assert_eq!(Block::decode(RawBlock { body, ..whole }), Ok(block));
        }
    }
}

#[test]
fn a_run_is_no_block_where_blocks_are_told_in_full() {
    let run = RawBlock {
        number: Kind::Alike as u16,
        flags: 0,
        body: &[1, 1],
    };
    assert!(Block::decode(run).is_err());
    assert_eq!(run.in_brief(), None);
}

#[test]
fn a_policy_without_a_meaning_is_malformed() {
    let mut bytes = Payload::unnamed(Policy::Hash, 100).encode();
    bytes[0] = 4;
    assert!(Payload::decode(&bytes).is_err());
}

#[test]
fn what_is_said_in_brief_is_what_the_whole_block_says() {
    let mut told = 0;
    for block in blocks() {
        let mut bytes = Vec::new();
        block.encode(&mut bytes);
        let (number, flags, body_bytes) = read_head(*bytes.first_chunk().unwrap());
        for cut in 0..=body_bytes {
            let body = &bytes[HEAD_BYTES..][..cut];
            let raw = RawBlock {
                number,
                flags,
                body,
            };
            let Some((kind, time)) = raw.in_brief() else {
                continue;
            };
            told += usize::from(cut == body_bytes);
            match Block::decode(raw).unwrap() {
                Block::Enter { time: whole, .. } => assert_eq!((kind, time), (Kind::Enter, whole)),
                Block::Leave { time: whole, .. } => assert_eq!((kind, time), (Kind::Leave, whole)),
                Block::Call(message) => {
                    assert_eq!(
                        (kind, time, None),
                        (Kind::Call, message.time, message.payload)
                    );
                }
                Block::Reply(message) => {
                    assert_eq!(
                        (kind, time, None),
                        (Kind::Reply, message.time, message.payload)
                    );
                }
                other => panic!("{other:?} in brief"),
            }
        }
    }
    // One of each type but replies, which have a payload here.
    assert_eq!(told, 3);
}
