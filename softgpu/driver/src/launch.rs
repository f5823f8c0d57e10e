//! Launches: checks that CUDA makes before it queues a kernel, parameters, submission.

use core::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use harp_cuda_abi::types::*;
use harp_softgpu_engine::{Grid, Kernel, Launch};

use crate::attributes::{BLOCK_DIMS, GRID_DIMS, SHARED_PER_BLOCK_OPTIN, THREADS_PER_BLOCK};
use crate::call::Outcome;
use crate::context::Context;
use crate::execution::command::{self, Marker, Work};
use crate::function::{get_in, Function};
use crate::occupancy::{resident_blocks, Block};
use crate::settings::settings;
use crate::stream::Stream;

/// How a kernel is to be launched.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: u32,
    pub cooperative: bool,
}

/// Checks a launch and queues it.
///
/// # Errors
/// The codes that CUDA returns from a launch itself: `CUDA_ERROR_INVALID_HANDLE`,
/// `CUDA_ERROR_INVALID_VALUE` for sizes and parameters, `CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES` above
/// the kernel's own limit, `CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE`, `CUDA_ERROR_INVALID_PTX`.
///
/// # Safety
/// `params` and `extra` are as `cuLaunchKernel` documents them.
pub unsafe fn launch(
    handle: CUfunction,
    shape: Shape,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Outcome<Arc<Stream>> {
    let context = Context::current()?;
    let function = get_in(handle, &context)?;
    let stream = Stream::resolve(stream, &context)?;
    if !function.is_of(&context) || !stream.is_of(&context) {
        return Err(CUDA_ERROR_INVALID_HANDLE);
    }
    check_dimensions(&shape)?;
    let kernel = function.kernel()?;
    check_resources(&function, &kernel, &shape)?;
    // SAFETY: the caller's promise.
    let params = unsafe { collect_params(&kernel, params, extra)? };
    context.printed.flush();
    let blocks = shape.grid.iter().map(|count| u64::from(*count)).product();
    let launch = Launch {
        grid: shape.grid,
        block: shape.block,
        dynamic_shared: shape.dynamic_shared,
        params,
        cooperative: shape.cooperative,
    };
    let grid = Grid::new(
        kernel,
        launch,
        context.device.heap.clone(),
        context.printed.clone(),
    );
    let launch = Work::Launch(command::Launch {
        grid: Arc::new(grid),
        blocks,
    });
    if settings().serial {
        submit_in_turn(&stream, launch);
    } else {
        stream.submit(launch);
    }
    Ok(stream)
}

/// Queues a kernel behind the one that was launched before it, whatever streams they are in.
fn submit_in_turn(stream: &Stream, launch: Work) {
    static LAST: Mutex<Option<Marker>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let submitted = match last.take().filter(|marker| !marker.is_reached()) {
        Some(marker) => stream.submit_after([marker], launch),
        None => stream.submit(launch),
    };
    *last = Some(submitted);
}

fn check_dimensions(shape: &Shape) -> Outcome {
    let within = |counts: [u32; 3], limits: [u32; 3]| {
        counts
            .iter()
            .zip(limits)
            .all(|(count, limit)| (1..=limit).contains(count))
    };
    // Only of extents within their limits: the product of others may be more than a number holds.
    let threads = || shape.block.iter().product::<u32>();
    if within(shape.grid, GRID_DIMS)
        && within(shape.block, BLOCK_DIMS)
        && threads() <= THREADS_PER_BLOCK
    {
        Ok(())
    } else {
        Err(CUDA_ERROR_INVALID_VALUE)
    }
}

fn check_resources(function: &Function, kernel: &Kernel, shape: &Shape) -> Outcome {
    let threads: u32 = shape.block.iter().product();
    if kernel
        .required_block()
        .is_some_and(|required| required != shape.block)
    {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    if threads > kernel.max_threads() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let shared = u64::from(kernel.shared_bytes()) + u64::from(shape.dynamic_shared);
    if shape.dynamic_shared > function.dynamic_shared_max(kernel)
        || shared > u64::from(SHARED_PER_BLOCK_OPTIN)
    {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    if shape.cooperative {
        let block = Block {
            threads,
            dynamic_shared: shape.dynamic_shared as usize,
        };
        let blocks: u64 = shape.grid.iter().map(|count| u64::from(*count)).product();
        if blocks > resident_blocks(kernel, block) {
            return Err(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
        }
    }
    Ok(())
}

/// The kernel's parameter buffer, copied: the program may reuse its own at once.
///
/// # Safety
/// As for [`launch`].
unsafe fn collect_params(
    kernel: &Kernel,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Outcome<Vec<u8>> {
    let size = kernel.param_bytes() as usize;
    if !params.is_null() {
        if !extra.is_null() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let mut buffer = vec![0; size];
        for (index, param) in kernel.params().iter().enumerate() {
            // SAFETY: there is one pointer for each parameter, to as many bytes as it has.
            unsafe {
                let value: *const u8 = (*params.add(index)).cast();
                if value.is_null() {
                    return Err(CUDA_ERROR_INVALID_VALUE);
                }
                let place = buffer[param.offset as usize..][..param.size as usize].as_mut_ptr();
                place.copy_from_nonoverlapping(value, param.size as usize);
            }
        }
        return Ok(buffer);
    }
    if extra.is_null() {
        return if size == 0 {
            Ok(Vec::new())
        } else {
            Err(CUDA_ERROR_INVALID_VALUE)
        };
    }
    // SAFETY: `extra` is a list that ends with CU_LAUNCH_PARAM_END.
    unsafe { params_of_extra(extra, size) }
}

unsafe fn params_of_extra(mut extra: *mut *mut c_void, size: usize) -> Outcome<Vec<u8>> {
    let (mut buffer, mut given) = (core::ptr::null::<u8>(), 0);
    loop {
        // SAFETY: the caller's promise: pairs of a key and a value up to the end mark.
        let (key, value) = unsafe {
            let key = *extra as usize as u32;
            if key == CU_LAUNCH_PARAM_END_AS_INT {
                break;
            }
            (key, *extra.add(1))
        };
        match key {
            CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT => buffer = value.cast(),
            // SAFETY: the value points to the size.
            CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT => given = unsafe { *value.cast::<usize>() },
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
        // SAFETY: the end mark was not reached.
        extra = unsafe { extra.add(2) };
    }
    if given < size || (buffer.is_null() && size > 0) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    if size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the program vouches for `given` bytes there.
    Ok(unsafe { core::slice::from_raw_parts(buffer, size) }.to_vec())
}
