//! How many blocks a multiprocessor holds at once, by the rules of the reported device.

use harp_softgpu_engine::Kernel;

use crate::attributes::{
    BLOCKS_PER_MULTIPROCESSOR, MULTIPROCESSORS, REGISTERS, SHARED_PER_BLOCK_OPTIN,
    SHARED_PER_MULTIPROCESSOR, SHARED_RESERVED, THREADS_PER_BLOCK, THREADS_PER_MULTIPROCESSOR,
    WARP,
};
use crate::function::registers;

/// Registers are given to warps in units of this many.
const REGISTER_UNIT: u32 = 256;
/// Shared memory is given to blocks in units of this many bytes.
const SHARED_UNIT: usize = 128;

/// What one block takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub threads: u32,
    pub dynamic_shared: usize,
}

/// Blocks that one multiprocessor holds at once; 0 where it cannot hold any.
pub fn blocks_per_multiprocessor(kernel: &Kernel, block: Block) -> u32 {
    if block.threads == 0 || block.threads > kernel.max_threads() {
        return 0;
    }
    let shared = kernel.shared_bytes() as usize + block.dynamic_shared;
    if shared > SHARED_PER_BLOCK_OPTIN as usize {
        return 0;
    }
    let warps = block.threads.div_ceil(WARP);
    let by_threads = THREADS_PER_MULTIPROCESSOR / WARP / warps;
    let by_registers =
        REGISTERS / ((registers(kernel) * WARP).next_multiple_of(REGISTER_UNIT) * warps);
    let taken = (shared + SHARED_RESERVED as usize).next_multiple_of(SHARED_UNIT);
    let by_shared = (SHARED_PER_MULTIPROCESSOR as usize / taken) as u32;
    BLOCKS_PER_MULTIPROCESSOR
        .min(by_threads)
        .min(by_registers)
        .min(by_shared)
}

/// Blocks that the whole device holds at once.
pub fn resident_blocks(kernel: &Kernel, block: Block) -> u64 {
    u64::from(blocks_per_multiprocessor(kernel, block)) * u64::from(MULTIPROCESSORS)
}

/// The block size, a multiple of the warp, that keeps most threads on a multiprocessor, and the
/// grid that fills the device with it. `shared_of` says how much dynamic shared memory a block of a
/// size takes; `limit` is the largest size, 0 for no limit.
pub fn best_block(
    kernel: &Kernel,
    shared_of: impl Fn(u32) -> usize,
    limit: u32,
) -> Option<(u32, u32)> {
    let most = kernel.max_threads().min(THREADS_PER_BLOCK);
    let most = if limit > 0 { most.min(limit) } else { most };
    let sizes = (1..=most.div_ceil(WARP))
        .rev()
        .map(|warps| (warps * WARP).min(most));
    let mut best = None;
    let mut best_threads = 0;
    for threads in sizes {
        let block = Block {
            threads,
            dynamic_shared: shared_of(threads),
        };
        let blocks = blocks_per_multiprocessor(kernel, block);
        // Larger blocks come first and stay on a tie.
        if blocks * threads > best_threads {
            best_threads = blocks * threads;
            best = Some((blocks * MULTIPROCESSORS, threads));
        }
    }
    best
}

/// Dynamic shared memory left for each of `blocks` blocks on one multiprocessor.
pub fn shared_left(kernel: &Kernel, blocks: u32) -> usize {
    let each = SHARED_PER_MULTIPROCESSOR as usize / blocks.max(1) as usize;
    let each = each / SHARED_UNIT * SHARED_UNIT;
    let own = kernel.shared_bytes() as usize;
    each.saturating_sub(SHARED_RESERVED as usize + own)
        .min((SHARED_PER_BLOCK_OPTIN as usize).saturating_sub(own))
}
