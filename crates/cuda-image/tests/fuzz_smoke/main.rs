//! A short run of the fuzz target.

mod targets;

use std::path::Path;

use harp_mutation::smoke::{seeds, Bounded, Smoke};

#[global_allocator]
static MEMORY: Bounded<{ 1 << 30 }> = Bounded;

#[test]
fn images() {
    let mut seeds = seeds(Path::new("fuzz/seeds/select"));
    // Packed text as nvcc makes it, which the mutations reach the unpackers through.
    let text = std::fs::read("fuzz/seeds/select/saxpy.ptx").unwrap();
    let (lz4, zstd) = (
        lz4_flex::block::compress(&text),
        zstd::bulk::compress(&text, 3),
    );
    seeds.push(packed(&text, 0x2000, lz4));
    seeds.push(packed(&text, 0x8000, zstd.unwrap()));
    let smoke = Smoke {
        name: "images",
        seeds,
        runs: 60_000,
        longest: 16 << 10,
    };
    smoke.run(targets::images);
}

/// A fatbin of one entry of PTX for sm_75 whose payload is packed in the way that `flag` says.
fn packed(text: &[u8], flag: u64, mut payload: Vec<u8>) -> Vec<u8> {
    let len = payload.len();
    payload.resize(len.next_multiple_of(8), 0);
    let mut entry = Vec::new();
    entry.extend(1u16.to_le_bytes());
    entry.extend(0x101u16.to_le_bytes());
    entry.extend(64u32.to_le_bytes());
    entry.extend((payload.len() as u64).to_le_bytes());
    entry.extend((len as u32).to_le_bytes());
    entry.extend([0; 8]);
    entry.extend(75u32.to_le_bytes());
    entry.extend([0; 8]);
    entry.extend((flag | 0x11).to_le_bytes());
    entry.extend([0; 8]);
    entry.extend((text.len() as u64).to_le_bytes());
    assert_eq!(entry.len(), 64);
    entry.extend(payload);
    let mut fatbin = 0xBA55_ED50u32.to_le_bytes().to_vec();
    fatbin.extend(1u16.to_le_bytes());
    fatbin.extend(16u16.to_le_bytes());
    fatbin.extend((entry.len() as u64).to_le_bytes());
    fatbin.extend(entry);
    let found = harp_cuda_image::select(&fatbin, 86).unwrap();
    assert_eq!(found[0].text.trim_ascii_end(), text.trim_ascii_end());
    fatbin
}
