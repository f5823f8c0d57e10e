//! What is told of blocks on disk is what they are, and nothing else is believed.

use harp_mutation::Random;

use super::*;
use crate::block::Kind;

/// The frame of `blocks` on disk, and they in full.
fn told(blocks: &[(Kind, Vec<u8>)]) -> (Vec<u8>, Vec<u8>) {
    let (mut frame, mut content) = (Telling::new(), Vec::new());
    for (kind, body) in blocks {
        add(&mut frame, &mut content, *kind, body);
    }
    assert_eq!(frame.bytes(), content.len());
    (frame.told().to_vec(), content)
}

fn add(frame: &mut Telling, content: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    let raw = RawBlock {
        number: kind as u16,
        flags: 0,
        body,
    };
    frame.add(raw);
    assert_eq!(frame.blocks().last(), Some(raw));
    content.extend_from_slice(&raw.head());
    content.extend_from_slice(body);
}

fn read(told: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = b"of the frame before".to_vec();
    in_full(told, &mut out).map_err(|wrong| wrong.what)?;
    Ok(out)
}

fn body(words: &[u64], rest: &[u8]) -> Vec<u8> {
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    words.chain(rest.iter().copied()).collect()
}

/// What a launch puts into a trace.
fn launch(time: u64, argument: u64) -> [(Kind, Vec<u8>); 3] {
    let record = [68 | 0x29 << 32, 0, 7, 1 << 32, 32, argument];
    [
        (Kind::Enter, body(&[time, 1 | 300 << 32], &[])),
        (
            Kind::Call,
            body(&[&[time + 70, 1], &record[..]].concat(), b"rest"),
        ),
        (Kind::Leave, body(&[time + 130, 1], &[])),
    ]
}

#[test]
fn a_launch_like_the_one_before_is_told_in_six_bytes() {
    let blocks: Vec<_> = (0..100).flat_map(|at| launch(at * 400, 5)).collect();
    let (frame, full) = told(&blocks);
    let first = told(&blocks[..3]).0.len();
    // The head of the run, and how far back its blocks lie.
    assert_eq!(frame.len(), first + HEAD_BYTES + 1 + 99 * 6);
    assert_eq!(read(&frame), Ok(full));
}

#[test]
fn an_argument_that_counts_costs_two_bytes_more() {
    let blocks = |counts: u64| -> Vec<_> {
        let launches = (0..100).flat_map(|at| launch(at * 400, counts * at));
        launches.collect()
    };
    let (same, counted) = (told(&blocks(0)).0.len(), told(&blocks(1)).0.len());
    assert_eq!(counted, same + 99 * 2);
}

#[test]
fn a_frame_is_told_by_itself() {
    let (mut frame, mut content) = (Telling::new(), Vec::new());
    let mut frames = Vec::new();
    for _ in 0..2 {
        for (kind, body) in launch(400, 5).into_iter().chain(launch(900, 5)) {
            add(&mut frame, &mut content, kind, &body);
        }
        frames.push(frame.told().to_vec());
        assert_eq!(read(&frames[0]), Ok(std::mem::take(&mut content)));
        frame.clear();
    }
    assert_eq!(frames[0], frames[1]);
}

#[test]
fn a_frame_goes_on_after_it_has_been_looked_at() {
    let (mut frame, mut content) = (Telling::new(), Vec::new());
    for at in 0..9 {
        for (kind, body) in launch(400 * at, 5) {
            add(&mut frame, &mut content, kind, &body);
            assert_eq!(read(frame.told()), Ok(content.clone()));
        }
    }
}

#[test]
fn whatever_is_told_is_read() {
    let mut random = Random::new(11);
    let kinds = [
        Kind::Enter,
        Kind::Leave,
        Kind::Call,
        Kind::Reply,
        Kind::Wait,
        Kind::DeviceTime,
        Kind::Session,
    ];
    let mut shortest = 1.0f64;
    for _ in 0..300 {
        let mut time = 0;
        let shapes: Vec<(Kind, Vec<u8>)> = (0..1 + random.below(12))
            .map(|_| {
                let bytes = random.length(600);
                (*random.pick(&kinds), random.bytes(bytes))
            })
            .collect();
        let blocks: Vec<_> = (0..random.length(400))
            .map(|_| {
                let (kind, mut body) = random.pick(&shapes).clone();
                if has_time(kind as u16) && body.len() >= WORD {
                    time ^= random.number() >> random.below(64);
                    body[..WORD].copy_from_slice(&time.to_le_bytes());
                }
                for _ in 0..random.below(9) {
                    if !body.is_empty() {
                        let at = random.below(body.len());
                        body[at] ^= random.number() as u8;
                    }
                }
                (kind, body)
            })
            .collect();
        let (frame, full) = told(&blocks);
        shortest = shortest.min(frame.len() as f64 / full.len().max(1) as f64);
        assert!(read(&frame) == Ok(full));
    }
    // Blocks with few changes have been among them.
    assert!(shortest < 0.5, "{shortest}");
}

#[test]
fn the_longest_body_that_is_told_so_and_a_longer_one() {
    for bytes in [WORD - 1, WORD, WORD + 1, LIKE_MAX, LIKE_MAX + 1] {
        let blocks: Vec<_> = (0..9)
            .map(|last| {
                let mut body = vec![1; bytes];
                *body.last_mut().unwrap() = last;
                (Kind::Reply, body)
            })
            .collect();
        let (frame, full) = told(&blocks);
        let is_told_so = (WORD..=LIKE_MAX).contains(&bytes);
        assert_eq!(frame.len() < full.len(), is_told_so, "{bytes}");
        assert_eq!(read(&frame), Ok(full));
    }
}

/// A block of 20 bytes, and a run of `entries` after it.
fn run(entries: &[u8]) -> Vec<u8> {
    let enter = head(Kind::Enter as u16, 0, 12);
    let run = head(NUMBER, 0, entries.len());
    let mut frame = [&enter[..], &body(&[100], &[1, 0, 0, 200]), &run].concat();
    frame.extend_from_slice(entries);
    frame
}

#[test]
fn a_run_is_read_as_its_grammar_says() {
    // 5 later, like the one before; 20 earlier than that, and the last word another.
    let frame = run(&[BACK | 10 << 2, 1, CHANGES | MORE | 7 << 2, 1, 1, 4]);
    let read = read(&frame).unwrap();
    let [first, second, third] = [&read[..20], &read[20..40], &read[40..]];
    assert_eq!(first, &frame[..20]);
    assert_eq!(second[HEAD_BYTES..], body(&[105], &[1, 0, 0, 200]));
    assert_eq!(third[HEAD_BYTES..], body(&[85], &[3, 0, 0, 200]));
}

#[test]
fn what_no_writer_tells_is_refused() {
    let wrong = |entries: &[u8]| read(&run(entries)).unwrap_err();
    let nowhere = "a block of a run is like one that is not there";
    assert_eq!(wrong(&[0]), nowhere);
    assert_eq!(wrong(&[BACK, 0]), nowhere);
    assert_eq!(wrong(&[BACK, 2]), nowhere);
    let far = [&[BACK][..], &[0xff; 9], &[1]].concat();
    assert_eq!(wrong(&far), nowhere);
    assert_eq!(wrong(&[BACK, 1, 0, BACK]), CUT);
    assert_eq!(wrong(&[MORE]), CUT);
    assert_eq!(wrong(&[BACK | CHANGES, 1, 1]), CUT);
    assert_eq!(wrong(&[&[BACK][..], &[0xff; 9], &[2]].concat()), TOO_LONG);
    assert_eq!(wrong(&[&[BACK][..], &[0x80; 10], &[0]].concat()), TOO_LONG);
    assert_eq!(wrong(&[&[MORE][..], &[0xff; 8], &[8]].concat()), TOO_LONG);
    let beyond = "a block of a run has changed where it has nothing";
    assert_eq!(wrong(&[BACK | CHANGES, 1, 2, 2]), beyond);
    // The last word has four bytes: by -1 it has more, where it was zero before.
    let longer = "a block of a run is longer than the one it is like";
    let carry = [0x80, 0x80, 0x80, 0x80, 0x20];
    assert_eq!(
        wrong(&[&[BACK | CHANGES, 1, 1][..], &carry].concat()),
        longer
    );
    let short = [
        &head(Kind::End as u16, 0, 2)[..],
        b"{}",
        &head(NUMBER, 0, 2),
        &[BACK, 1],
    ]
    .concat();
    let none = "a block of a run is like one that none can be like";
    assert_eq!(read(&short), Err(none));
}

#[test]
fn a_run_of_no_blocks_is_nothing_and_a_cut_block_stays() {
    let frame = run(&[]);
    assert_eq!(read(&frame).unwrap(), frame[..20]);
    let cut = &frame[..frame.len() - 3];
    assert_eq!(read(cut).unwrap(), *cut);
}

#[test]
fn runs_do_not_make_more_than_a_frame_may_have() {
    let reply = (Kind::Reply, vec![0; LIKE_MAX]);
    let mut frame = told(&[reply]).0;
    let entries = CONTENT_MAX / LIKE_MAX;
    frame.extend_from_slice(&head(NUMBER, 0, entries + 1));
    frame.extend_from_slice(&[BACK, 1]);
    frame.resize(frame.len() + entries - 1, 0);
    let long = "its runs have more blocks than a frame may have";
    assert_eq!(read(&frame), Err(long));
}
