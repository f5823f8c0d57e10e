//! Copies and fills.

use core::ffi::c_void;
use std::sync::Arc;

use harp_cuda_abi::types::*;
use harp_driver_front::boxes::BoxCopy;
use harp_driver_front::default_stream;

use crate::call::{call, record, Outcome};
use crate::context::Context;
use crate::execution::copy::{Copy, Fill};
use crate::memory::host;
use crate::stream::Stream;
use crate::transfer::{between, copy, copy_async, fill, Side};

/// The stream of a call that names none.
fn own_stream() -> Outcome<Arc<Stream>> {
    let context = Context::current()?;
    Stream::resolve(default_stream(), &context)
}

fn stream_of(handle: CUstream) -> Outcome<Arc<Stream>> {
    Stream::resolve(handle, &Context::current()?)
}

fn linear(from: u64, to: u64, size: usize, sides: (Side, Side)) -> CUresult {
    call(|| {
        copy(
            Copy::linear(from, to, size),
            sides.0,
            sides.1,
            &*own_stream()?,
        )
    })
}

fn linear_async(
    from: u64,
    to: u64,
    size: usize,
    sides: (Side, Side),
    stream: CUstream,
) -> CUresult {
    call(|| {
        copy_async(
            Copy::linear(from, to, size),
            sides.0,
            sides.1,
            &*stream_of(stream)?,
        )
    })
}

const TO_DEVICE: (Side, Side) = (Side::Host, Side::Device);
const FROM_DEVICE: (Side, Side) = (Side::Device, Side::Host);
const ON_DEVICE: (Side, Side) = (Side::Device, Side::Device);
const ANYWHERE: (Side, Side) = (Side::Either, Side::Either);

pub unsafe fn cuMemcpy(to: CUdeviceptr, from: CUdeviceptr, size: usize) -> CUresult {
    linear(from, to, size, ANYWHERE)
}

pub unsafe fn cuMemcpyAsync(
    to: CUdeviceptr,
    from: CUdeviceptr,
    size: usize,
    stream: CUstream,
) -> CUresult {
    linear_async(from, to, size, ANYWHERE, stream)
}

pub unsafe fn cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, size: usize) -> CUresult {
    linear(from as u64, to, size, TO_DEVICE)
}

pub unsafe fn cuMemcpyHtoDAsync_v2(
    to: CUdeviceptr,
    from: *const c_void,
    size: usize,
    stream: CUstream,
) -> CUresult {
    linear_async(from as u64, to, size, TO_DEVICE, stream)
}

pub unsafe fn cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, size: usize) -> CUresult {
    linear(from, to as u64, size, FROM_DEVICE)
}

pub unsafe fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: CUdeviceptr,
    size: usize,
    stream: CUstream,
) -> CUresult {
    linear_async(from, to as u64, size, FROM_DEVICE, stream)
}

pub unsafe fn cuMemcpyDtoD_v2(to: CUdeviceptr, from: CUdeviceptr, size: usize) -> CUresult {
    linear(from, to, size, ON_DEVICE)
}

pub unsafe fn cuMemcpyDtoDAsync_v2(
    to: CUdeviceptr,
    from: CUdeviceptr,
    size: usize,
    stream: CUstream,
) -> CUresult {
    linear_async(from, to, size, ON_DEVICE, stream)
}

/// Ordered with all work of the contexts, whichever stream is the caller's default, and not waited for.
pub unsafe fn cuMemcpyPeer(
    to: CUdeviceptr,
    to_context: CUcontext,
    from: CUdeviceptr,
    from_context: CUcontext,
    size: usize,
) -> CUresult {
    call(|| {
        Context::get(to_context)?;
        Context::get(from_context)?;
        let legacy = &Context::current()?.legacy;
        let linear = Copy::linear(from, to, size);
        copy_async(linear, Side::Device, Side::Device, legacy)
    })
}

pub unsafe fn cuMemcpyPeerAsync(
    to: CUdeviceptr,
    to_context: CUcontext,
    from: CUdeviceptr,
    from_context: CUcontext,
    size: usize,
    stream: CUstream,
) -> CUresult {
    call(|| {
        Context::get(to_context)?;
        Context::get(from_context)?;
        let linear = Copy::linear(from, to, size);
        copy_async(linear, Side::Device, Side::Device, &*stream_of(stream)?)
    })
}

/// The copy that a record of two or three dimensions describes, and its sides.
unsafe fn described<R: core::marker::Copy>(pointer: *const R) -> Outcome<(Copy, Side, Side)>
where
    for<'a> BoxCopy: From<&'a R>,
{
    between(BoxCopy::from(&unsafe { record(pointer)? }))
}

pub unsafe fn cuMemcpy2D_v2(plan: *const CUDA_MEMCPY2D) -> CUresult {
    call(|| {
        let stream = own_stream()?;
        let (plane, from, to) = unsafe { described(plan)? };
        copy(plane, from, to, &stream)
    })
}

pub unsafe fn cuMemcpy2DUnaligned_v2(plan: *const CUDA_MEMCPY2D) -> CUresult {
    unsafe { cuMemcpy2D_v2(plan) }
}

pub unsafe fn cuMemcpy2DAsync_v2(plan: *const CUDA_MEMCPY2D, stream: CUstream) -> CUresult {
    call(|| {
        let stream = stream_of(stream)?;
        let (plane, from, to) = unsafe { described(plan)? };
        copy_async(plane, from, to, &stream)
    })
}

pub unsafe fn cuMemcpy3D_v2(plan: *const CUDA_MEMCPY3D) -> CUresult {
    call(|| {
        let stream = own_stream()?;
        let (cuboid, from, to) = unsafe { described(plan)? };
        copy(cuboid, from, to, &stream)
    })
}

pub unsafe fn cuMemcpy3DAsync_v2(plan: *const CUDA_MEMCPY3D, stream: CUstream) -> CUresult {
    call(|| {
        let stream = stream_of(stream)?;
        let (cuboid, from, to) = unsafe { described(plan)? };
        copy_async(cuboid, from, to, &stream)
    })
}

pub unsafe fn cuMemcpy3DPeer(plan: *const CUDA_MEMCPY3D_PEER) -> CUresult {
    call(|| {
        let legacy = &Context::current()?.legacy;
        let (cuboid, from, to) = unsafe { described(plan)? };
        copy_async(cuboid, from, to, legacy)
    })
}

pub unsafe fn cuMemcpy3DPeerAsync(plan: *const CUDA_MEMCPY3D_PEER, stream: CUstream) -> CUresult {
    call(|| {
        let stream = stream_of(stream)?;
        let (cuboid, from, to) = unsafe { described(plan)? };
        copy_async(cuboid, from, to, &stream)
    })
}

/// Elements of a row, rows, and bytes from one row to the next.
type Area = (usize, usize, usize);

fn set(to: u64, value: u32, element: usize, area: Area, stream: Outcome<Arc<Stream>>) -> CUresult {
    let (width, height, pitch) = area;
    call(|| {
        fill(
            Fill {
                to,
                value,
                element,
                width,
                height,
                pitch,
            },
            &*stream?,
        )
    })
}

/// A fill that the program does not call asynchronous: of host memory it waits until it is done.
fn set_now(to: u64, value: u32, element: usize, area: Area) -> CUresult {
    let status = set(to, value, element, area, own_stream());
    if status != CUDA_SUCCESS || host::find(to as usize).is_none() {
        return status;
    }
    call(|| own_stream()?.synchronize())
}

pub unsafe fn cuMemsetD8_v2(to: CUdeviceptr, value: u8, count: usize) -> CUresult {
    set_now(to, value.into(), 1, (count, 1, 0))
}

pub unsafe fn cuMemsetD16_v2(to: CUdeviceptr, value: u16, count: usize) -> CUresult {
    set_now(to, value.into(), 2, (count, 1, 0))
}

pub unsafe fn cuMemsetD32_v2(to: CUdeviceptr, value: u32, count: usize) -> CUresult {
    set_now(to, value, 4, (count, 1, 0))
}

pub unsafe fn cuMemsetD8Async(
    to: CUdeviceptr,
    value: u8,
    count: usize,
    stream: CUstream,
) -> CUresult {
    set(to, value.into(), 1, (count, 1, 0), stream_of(stream))
}

pub unsafe fn cuMemsetD16Async(
    to: CUdeviceptr,
    value: u16,
    count: usize,
    stream: CUstream,
) -> CUresult {
    set(to, value.into(), 2, (count, 1, 0), stream_of(stream))
}

pub unsafe fn cuMemsetD32Async(
    to: CUdeviceptr,
    value: u32,
    count: usize,
    stream: CUstream,
) -> CUresult {
    set(to, value, 4, (count, 1, 0), stream_of(stream))
}

pub unsafe fn cuMemsetD2D8_v2(
    to: CUdeviceptr,
    pitch: usize,
    value: u8,
    width: usize,
    height: usize,
) -> CUresult {
    set_now(to, value.into(), 1, (width, height, pitch))
}

pub unsafe fn cuMemsetD2D16_v2(
    to: CUdeviceptr,
    pitch: usize,
    value: u16,
    width: usize,
    height: usize,
) -> CUresult {
    set_now(to, value.into(), 2, (width, height, pitch))
}

pub unsafe fn cuMemsetD2D32_v2(
    to: CUdeviceptr,
    pitch: usize,
    value: u32,
    width: usize,
    height: usize,
) -> CUresult {
    set_now(to, value, 4, (width, height, pitch))
}

pub unsafe fn cuMemsetD2D8Async(
    to: CUdeviceptr,
    pitch: usize,
    value: u8,
    width: usize,
    height: usize,
    stream: CUstream,
) -> CUresult {
    set(
        to,
        value.into(),
        1,
        (width, height, pitch),
        stream_of(stream),
    )
}

pub unsafe fn cuMemsetD2D16Async(
    to: CUdeviceptr,
    pitch: usize,
    value: u16,
    width: usize,
    height: usize,
    stream: CUstream,
) -> CUresult {
    set(
        to,
        value.into(),
        2,
        (width, height, pitch),
        stream_of(stream),
    )
}

pub unsafe fn cuMemsetD2D32Async(
    to: CUdeviceptr,
    pitch: usize,
    value: u32,
    width: usize,
    height: usize,
    stream: CUstream,
) -> CUresult {
    set(to, value, 4, (width, height, pitch), stream_of(stream))
}
