//! A short run of the fuzz target.

mod targets;

use std::path::Path;

use harp_mutation::smoke::{seeds, Smoke};

#[test]
fn first_bytes() {
    let smoke = Smoke {
        name: "first_bytes",
        seeds: seeds(Path::new("fuzz/seeds/client_hello")),
        runs: 200_000,
        longest: 20 << 10,
    };
    smoke.run(targets::first_bytes);
}
