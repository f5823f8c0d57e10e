//! Launches.

use core::ffi::c_void;

use harp_cuda_abi::types::*;

use crate::call::{call, record, Outcome};
use crate::event::Event;
use crate::launch::{launch, Shape};

pub unsafe fn cuLaunchKernel(
    function: CUfunction,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    dynamic_shared: u32,
    stream: CUstream,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    let shape = Shape {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        dynamic_shared,
        cooperative: false,
    };
    call(|| unsafe { launch(function, shape, stream, params, extra) }.map(drop))
}

pub unsafe fn cuLaunchCooperativeKernel(
    function: CUfunction,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    dynamic_shared: u32,
    stream: CUstream,
    params: *mut *mut c_void,
) -> CUresult {
    let shape = Shape {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        dynamic_shared,
        cooperative: true,
    };
    call(|| unsafe { launch(function, shape, stream, params, core::ptr::null_mut()) }.map(drop))
}

/// What the attributes of a launch ask for; the others are hints of no effect here.
#[derive(Default)]
struct Wishes {
    cooperative: bool,
    /// Events to record after the launch.
    events: Vec<std::sync::Arc<Event>>,
}

unsafe fn wishes(config: &CUlaunchConfig) -> Outcome<Wishes> {
    let mut wishes = Wishes::default();
    for index in 0..config.numAttrs as usize {
        let attribute = unsafe { record(config.attrs.wrapping_add(index).cast_const())? };
        let value = attribute.value;
        match attribute.id {
            CU_LAUNCH_ATTRIBUTE_COOPERATIVE => {
                wishes.cooperative = unsafe { value.cooperative } != 0;
            }
            CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION => {
                let cluster = unsafe { value.clusterDim };
                // Devices before compute capability 9 have no clusters.
                if [cluster.x, cluster.y, cluster.z]
                    .iter()
                    .any(|count| *count > 1)
                {
                    return Err(CUDA_ERROR_INVALID_CLUSTER_SIZE);
                }
            }
            CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT => {
                wishes
                    .events
                    .push(Event::get(unsafe { value.programmaticEvent.event })?);
            }
            CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT => {
                wishes
                    .events
                    .push(Event::get(unsafe { value.launchCompletionEvent.event })?);
            }
            id if id < CU_LAUNCH_ATTRIBUTE_MAX => {}
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
    }
    Ok(wishes)
}

pub unsafe fn cuLaunchKernelEx(
    config: *const CUlaunchConfig,
    function: CUfunction,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    call(|| unsafe {
        let config = record(config)?;
        let wishes = wishes(&config)?;
        let shape = Shape {
            grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
            block: [config.blockDimX, config.blockDimY, config.blockDimZ],
            dynamic_shared: config.sharedMemBytes,
            cooperative: wishes.cooperative,
        };
        let stream = launch(function, shape, config.hStream, params, extra)?;
        for event in wishes.events {
            event.record(&stream)?;
        }
        Ok(())
    })
}
