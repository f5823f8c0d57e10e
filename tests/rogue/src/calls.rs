//! Mutated frames of calls. Most keep the form of records and lie in their arguments, so that they get
//! past the decoder; the others break the form.

use harp_mutation::{interesting, mutate, Random};
use harp_wire::calls::describe_arguments;
use harp_wire::record::{records, RECORD_HEAD_BYTES};
use harp_wire::{CallId, Decoder, HandleKind, RECORD_MAX};

/// Longest frame that is made.
const FRAME_MAX: usize = 2 << 20;

/// Longer arguments are a payload, which is not checked.
const CHECKED_MAX: usize = 2 << 10;

/// Where the call number, the thread and the ticket lie in a record.
const CALL_AT: usize = 4;
const THREAD_AT: usize = 8;
const TICKET_AT: usize = 12;

/// A changed copy of `frame`. `others` lend pieces. One in fifty of those that a decoder refuses is
/// given out: each ends a session, and the others get further.
pub fn mutated(frame: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    loop {
        let bytes = changed(frame, others, random);
        if is_well_formed(&bytes) || random.once_in(50) {
            return bytes;
        }
    }
}

/// The frame without what makes or loads something, which cannot happen twice.
pub fn again(frame: &[u8]) -> Vec<u8> {
    let mut records = split(frame);
    records.retain(|record| !happens_once(record));
    records.concat()
}

/// The frame without a call.
pub fn without(frame: &[u8], call: CallId) -> Vec<u8> {
    let mut records = split(frame);
    records.retain(|record| call_of(record) != call);
    records.concat()
}

fn call_of(record: &[u8]) -> CallId {
    CallId(u16::from_le_bytes([record[CALL_AT], record[CALL_AT + 1]]))
}

/// Whether later calls depend on this one and it cannot be made twice.
fn happens_once(record: &[u8]) -> bool {
    const ONCE: [&str; 9] = [
        "Create",
        "Load",
        "Retain",
        "GetFunction",
        "GetKernel",
        "GetModule",
        "blob_append",
        "callback_done",
        "LaunchHostFunc",
    ];
    let name = call_of(record).name().unwrap_or_default();
    ONCE.iter().any(|part| name.contains(part))
}

fn is_well_formed(frame: &[u8]) -> bool {
    records(frame).all(|record| {
        record.is_ok_and(|record| {
            if record.arguments.len() > CHECKED_MAX {
                return true;
            }
            let mut arguments = Decoder::new(record.arguments);
            describe_arguments(record.call, &mut arguments).is_ok()
        })
    })
}

fn changed(frame: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut records = split(frame);
    if records.is_empty() || random.once_in(300) {
        let mut bytes = frame.to_vec();
        mutate(&mut bytes, others, FRAME_MAX, random);
        return bytes;
    }
    for _ in 0..1 + random.length(4) {
        if random.once_in(200) {
            break_form(&mut records, others, random);
        } else {
            lie(&mut records, random);
        }
        if records.is_empty() {
            break;
        }
    }
    let mut bytes = records.concat();
    bytes.truncate(FRAME_MAX);
    bytes
}

fn split(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut left = frame;
    let mut found = Vec::new();
    for record in records(frame).map_while(Result::ok) {
        let (this, rest) = left.split_at(RECORD_HEAD_BYTES + record.arguments.len());
        found.push(this.to_vec());
        left = rest;
    }
    found
}

/// Another value in one argument.
fn lie(records: &mut [Vec<u8>], random: &mut Random) {
    let chosen = random.below(records.len());
    let donor = random.pick(records)[..]
        .iter()
        .take(256)
        .copied()
        .collect::<Vec<u8>>();
    let record = &mut records[chosen];
    if record.len() >= RECORD_HEAD_BYTES && happens_once(record) && !random.once_in(20) {
        return;
    }
    let Some(arguments) = record.len().checked_sub(RECORD_HEAD_BYTES) else {
        return; // cut by an earlier change
    };
    if arguments < 4 || random.once_in(400) {
        return lie_in_head(record, random);
    }
    let width = if arguments < 8 || random.once_in(3) {
        4
    } else {
        8
    };
    let place = (arguments - width + 1).min(256);
    let at = RECORD_HEAD_BYTES + (random.below(place) & !3);
    let (at, width, value) = match handle_around(record, at, width) {
        Some((at, present)) => (at, 8, another_handle(present, random)),
        None => {
            let present = number(record, at, width);
            (at, width, another_number(present, &donor, random))
        }
    };
    for (place, byte) in record[at..at + width].iter_mut().zip(value.to_le_bytes()) {
        *place = byte;
    }
}

/// A handle that lies in these bytes, or partly, and where it begins.
fn handle_around(record: &[u8], at: usize, width: usize) -> Option<(usize, u64)> {
    let first = at.saturating_sub(4).max(RECORD_HEAD_BYTES);
    (first..at + width).step_by(4).find_map(|at| {
        let bytes = record.get(at..at + 8)?;
        let id = u64::from_le_bytes(bytes.try_into().ok()?);
        let small = id << 8 >> 8 < 1 << 20;
        (small && HandleKind::of(id).is_some()).then_some((at, id))
    })
}

fn number(record: &[u8], at: usize, width: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(&record[at..at + width]);
    u64::from_le_bytes(bytes)
}

/// Mostly a neighbour of the same kind, which a session survives if there ever was one.
fn another_handle(present: u64, random: &mut Random) -> u64 {
    match random.below(400) {
        0 => random.pick(HandleKind::ALL).handle(random.below(9) as u64),
        1 => present.wrapping_add(random.below(5) as u64).wrapping_sub(2),
        2 => random.below(4) as u64,
        3 => random.number(),
        // Down to an older one.
        _ => (present & !0xff) | random.below((present & 0xff) as usize + 1) as u64,
    }
}

fn another_number(present: u64, donor: &[u8], random: &mut Random) -> u64 {
    const CAPS: [u64; 8] = [
        RECORD_MAX as u64,
        RECORD_MAX as u64 - 64,
        1 << 30,
        4 << 30,
        1 << 40,
        512 << 20,
        1 << 16,
        4096,
    ];
    match random.below(8) {
        0..3 if !random.once_in(20) => random.below(1 << 20) as u64,
        0 => *random.pick(&CAPS),
        1 => random
            .pick(&CAPS)
            .wrapping_add(random.number() & 0xff)
            .wrapping_sub(128),
        2 => interesting(random),
        3 if donor.len() >= 8 => number(donor, random.below(donor.len() - 7), 8),
        // Near to what it was: offsets and addresses that just do, or just do not, lie inside.
        4 => present
            .wrapping_add(random.below(8192) as u64)
            .wrapping_sub(4096),
        5 => present ^ 1 << random.below(40),
        6 => present.wrapping_mul(random.below(9) as u64),
        _ => random.below(300) as u64,
    }
}

fn lie_in_head(record: &mut [u8], random: &mut Random) {
    match random.below(4) {
        0 => {
            let call = random.pick(CallId::ALL).0;
            record[CALL_AT..CALL_AT + 2].copy_from_slice(&call.0.to_le_bytes());
        }
        1 => {
            let thread = [1, 2, 3, 1000, u32::MAX][random.below(5)];
            record[THREAD_AT..THREAD_AT + 4].copy_from_slice(&u32::to_le_bytes(thread));
        }
        // A call that nobody waits for wants a reply, or the other way round.
        2 => {
            let ticket = u32::from(record[CALL_AT + 2] == 0) * 77;
            record[CALL_AT + 2] ^= 1;
            record[TICKET_AT..TICKET_AT + 4].copy_from_slice(&ticket.to_le_bytes());
        }
        _ => record[TICKET_AT] ^= 1 << random.below(8),
    }
}

/// Records that are missing, doubled, in another order, cut, or made up.
fn break_form(records: &mut Vec<Vec<u8>>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(records.len());
    match random.below(8) {
        0 => drop(records.remove(at)),
        1 => records.insert(at, records[at].clone()),
        2 => records.swap(at, 0),
        3 => records.reverse(),
        4 => {
            let keep = random.below(records[at].len());
            records[at].truncate(keep);
        }
        5 => records.insert(at, made_up(random)),
        6 => records.extend(split(random.pick::<Vec<u8>>(others))),
        _ => mutate(&mut records[at], others, FRAME_MAX, random),
    }
}

/// A call with arguments that somebody invented.
fn made_up(random: &mut Random) -> Vec<u8> {
    let (call, _) = random.pick(CallId::ALL);
    let count = 4 * random.length(40);
    let mut arguments = Vec::with_capacity(count);
    while arguments.len() < count {
        let value = match random.below(3) {
            0 => random
                .pick(HandleKind::ALL)
                .handle(1 + random.below(3) as u64),
            1 => random.below(64) as u64,
            _ => interesting(random),
        };
        arguments.extend(value.to_le_bytes());
    }
    arguments.truncate(count);
    let ticket = random.below(3) as u32;
    let mut record = ((RECORD_HEAD_BYTES - 4 + count) as u32)
        .to_le_bytes()
        .to_vec();
    record.extend(call.0.to_le_bytes());
    record.extend([u8::from(ticket != 0), 0]);
    record.extend(1u32.to_le_bytes());
    record.extend(ticket.to_le_bytes());
    record.extend(arguments);
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use harp_wire::calls::encode_cuEventRecord;
    use harp_wire::Encoder;

    #[test]
    fn most_mutated_frames_are_still_records() {
        let mut e = Encoder::new();
        for serial in 1..9 {
            let start = e.begin_record(CallId::cuEventRecord, None, 1);
            encode_cuEventRecord(&mut e, HandleKind::Event.handle(serial), 0);
            e.end_record(start);
        }
        let frame = e.as_slice().to_vec();
        let others = vec![frame.clone()];
        let mut random = Random::new(5);
        let (mut whole, mut equal) = (0, 0);
        for _ in 0..1000 {
            let bytes = mutated(&frame, &others, &mut random);
            whole += usize::from(records(&bytes).all(|record| record.is_ok()));
            equal += usize::from(bytes == frame);
        }
        assert!((900..=1000).contains(&whole), "{whole}");
        assert!(equal < 400, "{equal}");
    }
}
