//! What is fuzzed, shared by the short run here and by cargo-fuzz.

use harp_wire::calls::{describe_arguments, describe_outputs};
use harp_wire::push::Push;
use harp_wire::record::records;
use harp_wire::reply::replies;
use harp_wire::{CallId, Decoder};

/// Any bytes, read as a frame of calls and as a frame of replies.
pub fn frames(frame: &[u8]) {
    for record in records(frame).map_while(Result::ok) {
        let _ = describe_arguments(record.call, &mut Decoder::new(record.arguments));
    }
    for (head, outputs) in replies(frame).map_while(Result::ok) {
        // The call that a reply answers is the client's knowledge; here the ticket stands for it.
        let call = CallId::ALL[head.ticket as usize % CallId::ALL.len()].0;
        let _ = describe_outputs(call, &mut Decoder::new(outputs));
        let _ = Push::decode(&mut Decoder::new(outputs));
    }
}
