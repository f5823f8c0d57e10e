//! Streams, host functions in them, capture queries.

use core::ffi::c_void;

use harp_cuda_abi::types::*;

use crate::call::{call, call_and_show, out, set_if_wanted, Outcome};
use crate::context::Context;
use crate::event::Event;
use crate::execution::command::Work;
use crate::execution::host_calls::{self, HostCall, HostFunction};
use crate::stream::{self, Stream};

fn resolve(handle: CUstream) -> Outcome<std::sync::Arc<Stream>> {
    Stream::find(handle)
}

pub unsafe fn cuStreamCreate(stream: *mut CUstream, flags: u32) -> CUresult {
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

pub unsafe fn cuStreamCreateWithPriority(
    stream: *mut CUstream,
    flags: u32,
    priority: i32,
) -> CUresult {
    call(|| {
        let stream = out(stream)?;
        stream.set(Stream::create(&Context::current()?, flags, priority)?);
        Ok(())
    })
}

pub unsafe fn cuStreamDestroy_v2(handle: CUstream) -> CUresult {
    call(|| {
        host_calls::check()?;
        stream::destroy(handle)?.check()
    })
}

pub unsafe fn cuStreamSynchronize(handle: CUstream) -> CUresult {
    call_and_show(|| resolve(handle)?.synchronize())
}

pub unsafe fn cuStreamQuery(handle: CUstream) -> CUresult {
    call(|| resolve(handle)?.query())
}

pub unsafe fn cuStreamGetPriority(handle: CUstream, priority: *mut i32) -> CUresult {
    call(|| {
        let priority = out(priority)?;
        priority.set(resolve(handle)?.priority);
        Ok(())
    })
}

pub unsafe fn cuStreamGetFlags(handle: CUstream, flags: *mut u32) -> CUresult {
    call(|| {
        let flags = out(flags)?;
        flags.set(resolve(handle)?.flags());
        Ok(())
    })
}

pub unsafe fn cuStreamGetId(handle: CUstream, id: *mut u64) -> CUresult {
    call(|| {
        let id = out(id)?;
        id.set(resolve(handle)?.id);
        Ok(())
    })
}

pub unsafe fn cuStreamGetCtx(handle: CUstream, context: *mut CUcontext) -> CUresult {
    call(|| {
        let context = out(context)?;
        context.set(resolve(handle)?.context()?.handle());
        Ok(())
    })
}

pub unsafe fn cuStreamGetCtx_v2(
    handle: CUstream,
    context: *mut CUcontext,
    green: *mut CUgreenCtx,
) -> CUresult {
    call(|| {
        let context = out(context)?;
        context.set(resolve(handle)?.context()?.handle());
        set_if_wanted(green, core::ptr::null_mut());
        Ok(())
    })
}

pub unsafe fn cuStreamGetGreenCtx(handle: CUstream, green: *mut CUgreenCtx) -> CUresult {
    call(|| {
        let green = out(green)?;
        resolve(handle)?;
        green.set(core::ptr::null_mut());
        Ok(())
    })
}

pub unsafe fn cuStreamGetDevice(handle: CUstream, dev: *mut CUdevice) -> CUresult {
    call(|| {
        let dev = out(dev)?;
        dev.set(resolve(handle)?.context()?.device.ordinal);
        Ok(())
    })
}

pub unsafe fn cuStreamWaitEvent(handle: CUstream, event: CUevent, flags: u32) -> CUresult {
    call(|| {
        let stream = resolve(handle)?;
        if flags & !CU_EVENT_WAIT_EXTERNAL != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Event::get(event)?.hold_up(&stream);
        Ok(())
    })
}

pub unsafe fn cuStreamAddCallback(
    handle: CUstream,
    callback: CUstreamCallback,
    argument: *mut c_void,
    flags: u32,
) -> CUresult {
    call(|| {
        let stream = resolve(handle)?;
        let callback = callback
            .filter(|_| flags == 0)
            .ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let function = HostFunction::Callback(callback, handle as usize);
        stream.submit(Work::Host(HostCall {
            function,
            argument: argument as usize,
            printed: stream.context()?.printed.clone(),
        }));
        Ok(())
    })
}

pub unsafe fn cuLaunchHostFunc(
    handle: CUstream,
    function: CUhostFn,
    argument: *mut c_void,
) -> CUresult {
    call(|| {
        let stream = resolve(handle)?;
        let function = HostFunction::Plain(function.ok_or(CUDA_ERROR_INVALID_VALUE)?);
        stream.submit(Work::Host(HostCall {
            function,
            argument: argument as usize,
            printed: stream.context()?.printed.clone(),
        }));
        Ok(())
    })
}

/// How the host thread waits for the function is the driver's choice here.
pub unsafe fn cuLaunchHostFunc_v2(
    handle: CUstream,
    function: CUhostFn,
    argument: *mut c_void,
    _sync_mode: u32,
) -> CUresult {
    unsafe { cuLaunchHostFunc(handle, function, argument) }
}

pub unsafe fn cuStreamCopyAttributes(to: CUstream, from: CUstream) -> CUresult {
    call(|| {
        resolve(to)?;
        resolve(from)?;
        Ok(())
    })
}

/// Attributes are hints of no effect here; the values read back are the defaults.
pub unsafe fn cuStreamGetAttribute(
    handle: CUstream,
    attribute: CUstreamAttrID,
    value: *mut CUstreamAttrValue,
) -> CUresult {
    call(|| {
        let value = out(value)?;
        let stream = resolve(handle)?;
        let mut answer = CUstreamAttrValue { pad: [0; 64] };
        match attribute {
            CU_LAUNCH_ATTRIBUTE_PRIORITY => answer.priority = stream.priority,
            CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY => answer.syncPolicy = CU_SYNC_POLICY_AUTO,
            CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW
            | CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP
            | CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN => {}
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
        value.set(answer);
        Ok(())
    })
}

pub unsafe fn cuStreamSetAttribute(
    handle: CUstream,
    attribute: CUstreamAttrID,
    value: *const CUstreamAttrValue,
) -> CUresult {
    call(|| {
        resolve(handle)?;
        let known = matches!(
            attribute,
            CU_LAUNCH_ATTRIBUTE_PRIORITY
                | CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY
                | CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW
                | CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP
                | CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN
        );
        if value.is_null() || !known {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Ok(())
    })
}

/// Streams are never captured here.
pub unsafe fn cuStreamIsCapturing(
    handle: CUstream,
    status: *mut CUstreamCaptureStatus,
) -> CUresult {
    call(|| {
        let status = out(status)?;
        resolve(handle)?;
        status.set(CU_STREAM_CAPTURE_STATUS_NONE);
        Ok(())
    })
}

pub unsafe fn cuStreamGetCaptureInfo(
    handle: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
) -> CUresult {
    let result = unsafe { cuStreamIsCapturing(handle, status) };
    if result == CUDA_SUCCESS {
        set_if_wanted(id, 0);
    }
    result
}

pub unsafe fn cuStreamGetCaptureInfo_v2(
    handle: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    _graph: *mut CUgraph,
    _dependencies: *mut *const CUgraphNode,
    _count: *mut usize,
) -> CUresult {
    unsafe { cuStreamGetCaptureInfo(handle, status, id) }
}

pub unsafe fn cuStreamGetCaptureInfo_v3(
    handle: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    _graph: *mut CUgraph,
    _dependencies: *mut *const CUgraphNode,
    _edges: *mut *const CUgraphEdgeData,
    _count: *mut usize,
) -> CUresult {
    unsafe { cuStreamGetCaptureInfo(handle, status, id) }
}

pub unsafe fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode) -> CUresult {
    use std::cell::Cell;
    thread_local! {
        static MODE: Cell<CUstreamCaptureMode> = const { Cell::new(CU_STREAM_CAPTURE_MODE_GLOBAL) };
    }
    call(|| {
        let place = out(mode)?;
        let wanted = unsafe { *mode };
        if wanted > CU_STREAM_CAPTURE_MODE_RELAXED {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        place.set(MODE.replace(wanted));
        Ok(())
    })
}
