//! A short run of the fuzz targets.

mod targets;

use std::path::Path;
use std::sync::Mutex;

use harp_mutation::smoke::{seeds, Bounded, Smoke};

#[global_allocator]
static MEMORY: Bounded<{ 2 << 30 }> = Bounded;

/// One target at a time: an input that crashes is known by being the only one.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn texts() {
    let _alone = ALONE.lock();
    let smoke = Smoke {
        name: "texts",
        seeds: seeds(Path::new("fuzz/seeds/parse")),
        runs: 6_000,
        longest: 16 << 10,
    };
    smoke.run(targets::texts);
}

#[test]
fn bodies() {
    let _alone = ALONE.lock();
    let smoke = Smoke {
        name: "bodies",
        seeds: seeds(Path::new("fuzz/seeds/run")),
        runs: 6_000,
        longest: 4 << 10,
    };
    smoke.run(targets::bodies);
}
