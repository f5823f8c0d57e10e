//! Mutated frames of replies: what a server that lies may send to a program.

use harp_mutation::{interesting, mutate, Random};
use harp_wire::reply::{replies, ReplyHead, REPLY_HEAD_BYTES};
use harp_wire::RECORD_MAX;

/// A changed copy of `frame`.
pub fn mutated(frame: &[u8], random: &mut Random) -> Vec<u8> {
    let mut found: Vec<(ReplyHead, Vec<u8>)> = replies(frame)
        .map_while(Result::ok)
        .map(|(head, body)| (head, body.to_vec()))
        .collect();
    if found.is_empty() || random.once_in(4) {
        let mut bytes = frame.to_vec();
        mutate(
            &mut bytes,
            &[frame.to_vec()],
            frame.len() + (64 << 10),
            random,
        );
        return bytes;
    }
    let at = random.below(found.len());
    let (head, body) = &mut found[at];
    let mut claimed = None;
    match random.below(8) {
        0 => mutate(body, &[], body.len() + 4096, random),
        // More bytes than were asked for, and fewer.
        1 => body.extend(vec![0xee; 1 + random.length(1 << 16)]),
        2 => body.truncate(random.below(body.len())),
        3 => head.ticket = interesting(random) as u32,
        4 => head.status = interesting(random) as u32,
        5 => head.deferred = interesting(random) as u32,
        6 => claimed = Some([0, 1, u32::MAX, RECORD_MAX as u32, 1 << 31][random.below(5)]),
        // A push that nobody asked for.
        _ => {
            head.ticket = 0;
            let count = random.length(24);
            *body = [&[1, 0][..], &random.bytes(count)].concat();
        }
    }
    let mut bytes = Vec::new();
    for (index, (head, body)) in found.iter().enumerate() {
        let whole = ReplyHead::new(head.ticket, head.status, head.deferred, body.len());
        let mut head = whole.encode();
        if let Some(claimed) = claimed.filter(|_| index == at) {
            head[..4].copy_from_slice(&u32::to_le_bytes(claimed));
        }
        bytes.extend(head);
        bytes.extend(body);
        if index == at && random.once_in(8) {
            // The same reply twice.
            let again = bytes[bytes.len() - body.len() - REPLY_HEAD_BYTES..].to_vec();
            bytes.extend(again);
        }
    }
    bytes
}
