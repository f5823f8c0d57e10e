//! Occupancy: the server's driver knows; the searches over block sizes run here, since they call
//! back into the program.

use std::ffi::{c_int, c_uint};

use harp_cuda_abi::types::*;
use harp_wire::{calls, CallId, Encoder};

use super::context::current_device;
use super::device::device;
use super::function::launchable;
use super::launch_attributes::LaunchAttributes;
use super::outputs::put;
use crate::generated::forward;
use crate::session::{checks, sessions};

pub unsafe fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: *mut c_int,
    function: CUfunction,
    block_size: c_int,
    dynamic_shared: usize,
) -> CUresult {
    unsafe {
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
            blocks,
            function,
            block_size,
            dynamic_shared,
            0,
        )
    }
}

pub unsafe fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    blocks: *mut c_int,
    function: CUfunction,
    block_size: c_int,
    dynamic_shared: usize,
    flags: c_uint,
) -> CUresult {
    if blocks.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let resident = || {
        let session = checks::context()?;
        session.check_fault()?;
        let known = launchable(function)?;
        known.resident_blocks((block_size, dynamic_shared, flags), || {
            let mut found = 0;
            // SAFETY: local storage.
            let status = unsafe {
                forward::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
                    &mut found,
                    function,
                    block_size,
                    dynamic_shared,
                    flags,
                )
            };
            match status {
                CUDA_SUCCESS => Ok(found),
                code => Err(code),
            }
        })
    };
    match resident() {
        // SAFETY: the caller's pointer.
        Ok(found) => unsafe { put(blocks, found) },
        Err(code) => code,
    }
}

pub unsafe fn cuOccupancyMaxPotentialBlockSize(
    min_grid: *mut c_int,
    block_size: *mut c_int,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    dynamic_shared: usize,
    limit: c_int,
) -> CUresult {
    unsafe {
        cuOccupancyMaxPotentialBlockSizeWithFlags(
            min_grid,
            block_size,
            function,
            shared_of,
            dynamic_shared,
            limit,
            0,
        )
    }
}

/// Tries block sizes in steps of a warp, largest first, and keeps the one with the most resident
/// threads, as the CUDA occupancy calculator does.
pub unsafe fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    min_grid: *mut c_int,
    block_size: *mut c_int,
    function: CUfunction,
    shared_of: CUoccupancyB2DSize,
    dynamic_shared: usize,
    limit: c_int,
    flags: c_uint,
) -> CUresult {
    let found = sessions().and_then(|sessions| {
        let device = device(sessions, current_device()?)?;
        let function = launchable(function)?;
        Ok((device, function))
    });
    let (device, described) = match found {
        Ok(found) => found,
        Err(code) => return code,
    };
    let number = |attribute| device.attribute(attribute as i32).unwrap_or(0);
    let warp = number(CU_DEVICE_ATTRIBUTE_WARP_SIZE).max(1);
    let most = described
        .attribute(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)
        .unwrap_or(i32::MAX)
        .min(number(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK));
    let most = if limit > 0 { most.min(limit) } else { most };
    let full = number(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
    let (mut best_size, mut best_blocks) = (0, 0);
    let mut size = (most + warp - 1) / warp * warp;
    while size > 0 {
        let candidate = size.min(most);
        let shared = match shared_of {
            // SAFETY: the program's own function.
            Some(shared_of) => unsafe { shared_of(candidate) },
            None => dynamic_shared,
        };
        let mut blocks = 0;
        let status = unsafe {
            cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
                &mut blocks,
                function,
                candidate,
                shared,
                flags,
            )
        };
        if status != CUDA_SUCCESS {
            return status;
        }
        if blocks * candidate > best_blocks * best_size {
            (best_size, best_blocks) = (candidate, blocks);
        }
        if best_blocks * best_size >= full {
            break;
        }
        size -= warp;
    }
    let grid = best_blocks * number(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    let status = unsafe { put(min_grid, grid) };
    if status != CUDA_SUCCESS {
        return status;
    }
    unsafe { put(block_size, best_size) }
}

/// The arguments of a question about clusters, as its encoder takes them.
type EncodeClusters = fn(&mut Encoder, u64, [u32; 3], [u32; 3], u64, [u32; 3]);

/// Asks about the clusters of a launch.
unsafe fn ask_about_clusters(
    answer: *mut c_int,
    function: CUfunction,
    config: *const CUlaunchConfig,
    call: CallId,
    encode: EncodeClusters,
) -> CUresult {
    if answer.is_null() || config.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller passes a CUlaunchConfig with `numAttrs` attributes.
    let config = unsafe { &*config };
    let found = checks::context().and_then(|session| {
        let function = checks::belongs(session, launchable(function)?.id)?;
        // SAFETY: as above.
        Ok((session, function, unsafe {
            LaunchAttributes::read(config)
        }?))
    });
    let (session, function, attributes) = match found {
        Ok(found) => found,
        Err(code) => return code,
    };
    let grid = [config.gridDimX, config.gridDimY, config.gridDimZ];
    let block = [config.blockDimX, config.blockDimY, config.blockDimZ];
    let cluster = attributes.cluster.unwrap_or_default();
    let mut found = 0;
    let status = session.request(
        call,
        |e| {
            encode(
                e,
                function,
                grid,
                block,
                config.sharedMemBytes.into(),
                cluster,
            )
        },
        |decoder| found = decoder.i32(),
    );
    if status != CUDA_SUCCESS {
        return status;
    }
    unsafe { put(answer, found) }
}

pub unsafe fn cuOccupancyMaxActiveClusters(
    clusters: *mut c_int,
    function: CUfunction,
    config: *const CUlaunchConfig,
) -> CUresult {
    let (call, encode) = (
        CallId::cuOccupancyMaxActiveClusters,
        calls::encode_cuOccupancyMaxActiveClusters,
    );
    unsafe { ask_about_clusters(clusters, function, config, call, encode) }
}

pub unsafe fn cuOccupancyMaxPotentialClusterSize(
    size: *mut c_int,
    function: CUfunction,
    config: *const CUlaunchConfig,
) -> CUresult {
    let (call, encode) = (
        CallId::cuOccupancyMaxPotentialClusterSize,
        calls::encode_cuOccupancyMaxPotentialClusterSize,
    );
    unsafe { ask_about_clusters(size, function, config, call, encode) }
}
