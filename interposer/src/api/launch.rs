//! Launches: parameters are captured at the call, and what CUDA would refuse at once is refused
//! here, so that a launch does not wait.

use std::ffi::{c_uint, c_void};
use std::sync::atomic::Ordering;

use harp_cuda_abi::types::*;
use harp_wire::calls::{encode_cuLaunchKernel, encode_cuLaunchKernelEx};
use harp_wire::{CallId, Encoder};

use super::context::{current_context, current_device};
use super::device::device;
use super::function::{launchable, Function};
use super::launch_attributes::LaunchAttributes;
use super::managed::before_launch;
use super::stream::context_of;
use crate::session::{checks, handles, sessions, Sessions};

/// `CU_LAUNCH_PARAM_*`: markers in the `extra` list.
const PARAM_END: usize = 0;
const PARAM_BUFFER_POINTER: usize = 1;
const PARAM_BUFFER_SIZE: usize = 2;

/// A launch as every entry point describes it.
struct Launch {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: CUstream,
    cooperative: bool,
    /// Whole records; a launch with any goes as `cuLaunchKernelEx`.
    attributes: Vec<u8>,
}

impl Launch {
    /// Threads of a block, or of one that is far too large.
    fn threads(&self) -> u64 {
        let extents = self.block.iter().map(|extent| u64::from(*extent));
        extents.fold(1, u64::saturating_mul)
    }
}

/// The parameters of a launch, in whichever form the program has them.
struct Parameters {
    kernel: *mut *mut c_void,
    extra: *mut *mut c_void,
}

impl Parameters {
    /// Lays the parameters out as the kernel's parameter space holds them.
    unsafe fn gather(&self, function: &Function, into: &mut Vec<u8>) -> Result<(), CUresult> {
        into.clear();
        into.resize(function.info.param_bytes(), 0);
        if !self.kernel.is_null() {
            if !self.extra.is_null() {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
            for (index, param) in function.info.params.iter().enumerate() {
                // SAFETY: kernelParams has one pointer for each parameter, to its size in bytes.
                unsafe {
                    let source = *self.kernel.add(index);
                    if source.is_null() {
                        return Err(CUDA_ERROR_INVALID_VALUE);
                    }
                    let to = into.as_mut_ptr().add(param.offset as usize);
                    std::ptr::copy_nonoverlapping(source.cast::<u8>(), to, param.size as usize);
                }
            }
            return Ok(());
        }
        if self.extra.is_null() {
            return match into.is_empty() {
                true => Ok(()),
                false => Err(CUDA_ERROR_INVALID_VALUE),
            };
        }
        // SAFETY: `extra` is a list of marker and value that ends with PARAM_END.
        let (buffer, size) = unsafe { self.extra_buffer() }?;
        if size < into.len() {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        // SAFETY: the program says that `size` bytes are there.
        let given = unsafe { std::slice::from_raw_parts(buffer, size) };
        into.clear();
        into.extend_from_slice(&given[..function.info.param_bytes()]);
        Ok(())
    }

    unsafe fn extra_buffer(&self) -> Result<(*const u8, usize), CUresult> {
        let mut buffer = std::ptr::null();
        let mut size = 0;
        let mut at = self.extra;
        loop {
            // SAFETY: as in `gather`.
            unsafe {
                match *at as usize {
                    PARAM_END => break,
                    PARAM_BUFFER_POINTER => buffer = (*at.add(1)).cast::<u8>().cast_const(),
                    PARAM_BUFFER_SIZE => size = *(*at.add(1)).cast::<usize>(),
                    _ => return Err(CUDA_ERROR_INVALID_VALUE),
                }
                at = at.add(2);
            }
        }
        if buffer.is_null() && size != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Ok((
            if size == 0 {
                std::ptr::NonNull::dangling().as_ptr()
            } else {
                buffer
            },
            size,
        ))
    }
}

/// Refuses a grid or block that no kernel of the device can have.
fn check_dimensions(sessions: &'static Sessions, launch: &Launch) -> Result<(), CUresult> {
    let device = device(sessions, current_device()?)?;
    let limit = |attribute| device.attribute(attribute as i32).unwrap_or(i32::MAX) as u64;
    let limits = [
        (launch.block[0], CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X),
        (launch.block[1], CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y),
        (launch.block[2], CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z),
        (launch.grid[0], CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X),
        (launch.grid[1], CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y),
        (launch.grid[2], CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z),
    ];
    let within = |(value, attribute): &(u32, CUdevice_attribute)| {
        (1..=limit(*attribute)).contains(&u64::from(*value))
    };
    let possible = limits.iter().all(within)
        && launch.threads() <= limit(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    match possible {
        true => Ok(()),
        false => Err(CUDA_ERROR_INVALID_VALUE),
    }
}

/// Whether a launch is within what the function may have, so that nothing but the device can still
/// refuse it.
fn fits(launch: &Launch, function: &Function) -> bool {
    let within = |wanted: u64, attribute| {
        function
            .attribute(attribute)
            .is_none_or(|most| wanted <= most as u64)
    };
    within(launch.threads(), CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)
        && within(
            launch.shared.into(),
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
        )
}

unsafe fn launch(
    raw: CUfunction,
    launch: &Launch,
    parameters: &Parameters,
) -> Result<(), CUresult> {
    thread_local! {
        static SPACE: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let sessions = sessions()?;
    let context = current_context()?;
    let session = sessions.of(context as u64);
    session.check_fault()?;
    let function = launchable(raw)?;
    checks::belongs(session, function.id)?;
    let stream = handles::live_stream(launch.stream)?;
    if context_of(launch.stream)? != context as u64 {
        return Err(CUDA_ERROR_INVALID_HANDLE);
    }
    check_dimensions(sessions, launch)?;
    // What a first launch fails with (loading, compiling), or one that cannot fit, only the server
    // knows; any other launch does not wait.
    let waits = launch.cooperative || !function.is_ready() || !fits(launch, function);
    let send = |space: &mut Vec<u8>| {
        // SAFETY: the caller passes parameters as the function wants them.
        unsafe { parameters.gather(function, space) }?;
        before_launch(sessions, session, space)?;
        let extended = !launch.attributes.is_empty();
        let call = match extended {
            true => CallId::cuLaunchKernelEx,
            false => CallId::cuLaunchKernel,
        };
        let encode = |encoder: &mut Encoder| {
            let Launch { grid, block, .. } = *launch;
            let (id, shared) = (function.id, launch.shared);
            if extended {
                let attributes = &launch.attributes;
                encode_cuLaunchKernelEx(
                    encoder, id, grid, block, shared, stream, attributes, space,
                );
            } else {
                let cooperative = u8::from(launch.cooperative);
                encode_cuLaunchKernel(encoder, id, grid, block, shared, stream, cooperative, space);
            }
        };
        let status = if waits {
            session.request(call, encode, |_| ())
        } else {
            session.one_way(call, encode)
        };
        if status != CUDA_SUCCESS {
            return Err(status);
        }
        function.launched.store(true, Ordering::Relaxed);
        Ok(())
    };
    // A thread that is ending, or a program in its exit handlers, has lost its own space.
    SPACE
        .try_with(|space| send(&mut space.borrow_mut()))
        .unwrap_or_else(|_| send(&mut Vec::new()))
}

fn result(outcome: Result<(), CUresult>) -> CUresult {
    outcome.err().unwrap_or(CUDA_SUCCESS)
}

pub unsafe fn cuLaunchKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: CUstream,
    kernel: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    let described = Launch {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        shared,
        stream,
        cooperative: false,
        attributes: Vec::new(),
    };
    result(unsafe { launch(function, &described, &Parameters { kernel, extra }) })
}

pub unsafe fn cuLaunchCooperativeKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: CUstream,
    kernel: *mut *mut c_void,
) -> CUresult {
    let described = Launch {
        grid: [grid_x, grid_y, grid_z],
        block: [block_x, block_y, block_z],
        shared,
        stream,
        cooperative: true,
        attributes: Vec::new(),
    };
    let parameters = Parameters {
        kernel,
        extra: std::ptr::null_mut(),
    };
    result(unsafe { launch(function, &described, &parameters) })
}

pub unsafe fn cuLaunchKernelEx(
    config: *const CUlaunchConfig,
    function: CUfunction,
    kernel: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    if config.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller passes a CUlaunchConfig with `numAttrs` attributes.
    let config = unsafe { &*config };
    let attributes = match unsafe { LaunchAttributes::read(config) } {
        Ok(attributes) => attributes,
        Err(code) => return code,
    };
    let described = Launch {
        grid: [config.gridDimX, config.gridDimY, config.gridDimZ],
        block: [config.blockDimX, config.blockDimY, config.blockDimZ],
        shared: config.sharedMemBytes,
        stream: config.hStream,
        cooperative: attributes.cooperative,
        attributes: attributes.records(),
    };
    result(unsafe { launch(function, &described, &Parameters { kernel, extra }) })
}
