//! A short run of the fuzz targets.
#![cfg(feature = "container")]

#[path = "../support/mod.rs"]
mod support;
mod targets;

use harp_mutation::smoke::{Bounded, Smoke};

#[global_allocator]
static MEMORY: Bounded<{ 1 << 30 }> = Bounded;

/// Inputs of one target at a time: what is wrong is told of the input at hand.
#[test]
fn traces() {
    let folder = tempfile::tempdir().unwrap();
    let (packed, blocks, lines) = support::small_sample(folder.path());
    let smoke = |name, seed: Vec<u8>, runs| Smoke {
        name,
        longest: seed.len() + (4 << 10),
        seeds: vec![seed],
        runs,
    };
    smoke("packed", packed, 1_500).run(targets::packed);
    smoke("blocks", blocks, 2_500).run(targets::blocks);
    smoke("lines", lines, 150).run(targets::lines);
}
