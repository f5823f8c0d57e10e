//! Occupancy calculators.

use std::sync::Arc;

use harp_cuda_abi::types::*;
use harp_softgpu_engine::Kernel;

use crate::call::{call, out, Outcome};
use crate::function;
use crate::occupancy::{best_block, blocks_per_multiprocessor, shared_left, Block};

fn kernel(handle: CUfunction) -> Outcome<Arc<Kernel>> {
    function::get(handle)?.kernel()
}

fn positive(count: i32) -> Outcome<u32> {
    u32::try_from(count)
        .ok()
        .filter(|count| *count > 0)
        .ok_or(CUDA_ERROR_INVALID_VALUE)
}

pub unsafe fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut i32,
    function: CUfunction,
    threads: i32,
    dynamic_shared: usize,
) -> CUresult {
    call(|| {
        let blocks = out(blocks)?;
        let block = Block {
            threads: positive(threads)?,
            dynamic_shared,
        };
        blocks.set(blocks_per_multiprocessor(&*kernel(function)?, block) as i32);
        Ok(())
    })
}

pub unsafe fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: *mut i32,
    function: CUfunction,
    threads: i32,
    dynamic_shared: usize,
    flags: u32,
) -> CUresult {
    if flags & !CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    unsafe {
        cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, dynamic_shared)
    }
}

pub unsafe fn cuOccupancyMaxPotentialBlockSize(
    grid: *mut i32,
    threads: *mut i32,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    dynamic_shared: usize,
    limit: i32,
) -> CUresult {
    call(|| {
        let (grid, threads) = (out(grid)?, out(threads)?);
        let limit = u32::try_from(limit).map_err(|_| CUDA_ERROR_INVALID_VALUE)?;
        let shared_of = |threads: u32| match shared_of {
            // SAFETY: the program's own function.
            Some(shared_of) => unsafe { shared_of(threads as i32) },
            None => dynamic_shared,
        };
        let best = best_block(&*kernel(function)?, shared_of, limit);
        let (best_grid, best_threads) = best.unwrap_or_default();
        grid.set(best_grid as i32);
        threads.set(best_threads as i32);
        Ok(())
    })
}

pub unsafe fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: *mut i32,
    threads: *mut i32,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    dynamic_shared: usize,
    limit: i32,
    flags: u32,
) -> CUresult {
    if flags & !CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    unsafe {
        cuOccupancyMaxPotentialBlockSize(grid, threads, function, shared_of, dynamic_shared, limit)
    }
}

pub unsafe fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: *mut usize,
    function: CUfunction,
    blocks: i32,
    threads: i32,
) -> CUresult {
    call(|| {
        let bytes = out(bytes)?;
        let (blocks, kernel) = (positive(blocks)?, kernel(function)?);
        let block = Block {
            threads: positive(threads)?,
            dynamic_shared: 0,
        };
        if blocks > blocks_per_multiprocessor(&kernel, block) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        bytes.set(shared_left(&kernel, blocks));
        Ok(())
    })
}
