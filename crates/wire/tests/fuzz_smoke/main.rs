//! A short run of the fuzz target.

mod targets;

use std::path::Path;

use harp_mutation::smoke::{seeds, Bounded, Smoke};
use harp_wire::Encoder;

#[global_allocator]
static MEMORY: Bounded<{ 1 << 30 }> = Bounded;

#[test]
fn frames() {
    let mut seeds = seeds(Path::new("fuzz/seeds/frames"));
    let mut replies = Encoder::new();
    for ticket in 1..40 {
        let start = replies.begin_reply();
        replies.u64(1 << 21);
        replies.bytes(b"0123456789abcdef");
        replies.end_reply(start, ticket, 0, 0);
    }
    seeds.push(replies.as_slice().to_vec());
    let smoke = Smoke {
        name: "frames",
        seeds,
        runs: 100_000,
        longest: 8 << 10,
    };
    smoke.run(targets::frames);
}
