//! Contexts, primary contexts and the calling thread's stack of them.

use std::sync::atomic::Ordering;

use harp_cuda_abi::types::*;
use harp_driver_front::context_stack;

use crate::call::{call, call_and_show, out, record, set_if_wanted, Outcome};
use crate::context::Context;
use crate::device::device;
use crate::event::Event;
use crate::stream::PRIORITIES;

pub unsafe fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, dev: CUdevice) -> CUresult {
    call(|| {
        let context = out(context)?;
        let primary = device(dev)?.primary();
        primary.retain()?;
        context.set(primary.handle());
        Ok(())
    })
}

pub unsafe fn cuDevicePrimaryCtxRelease_v2(dev: CUdevice) -> CUresult {
    call(|| device(dev)?.primary().release())
}

pub unsafe fn cuDevicePrimaryCtxReset_v2(dev: CUdevice) -> CUresult {
    call(|| {
        device(dev)?.primary().reset();
        Ok(())
    })
}

pub unsafe fn cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: u32) -> CUresult {
    call(|| device(dev)?.primary().set_flags(flags))
}

pub unsafe fn cuDevicePrimaryCtxGetState(
    dev: CUdevice,
    flags: *mut u32,
    active: *mut i32,
) -> CUresult {
    call(|| {
        let (flags, active) = (out(flags)?, out(active)?);
        let primary = device(dev)?.primary();
        flags.set(primary.flags());
        active.set(i32::from(primary.is_active()));
        Ok(())
    })
}

fn create(context: *mut CUcontext, flags: u32, dev: CUdevice) -> Outcome {
    let context = out(context)?;
    let created = Context::create(device(dev)?, flags)?;
    context_stack::push(created.handle());
    context.set(created.handle());
    Ok(())
}

pub unsafe fn cuCtxCreate(context: *mut CUcontext, flags: u32, dev: CUdevice) -> CUresult {
    call(|| create(context, flags, dev))
}

pub unsafe fn cuCtxCreate_v2(context: *mut CUcontext, flags: u32, dev: CUdevice) -> CUresult {
    call(|| create(context, flags, dev))
}

/// Execution affinity is not to be had here.
pub unsafe fn cuCtxCreate_v3(
    context: *mut CUcontext,
    _params: *mut CUexecAffinityParam,
    num_params: i32,
    flags: u32,
    dev: CUdevice,
) -> CUresult {
    call(|| match num_params {
        0 => create(context, flags, dev),
        _ => Err(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY),
    })
}

pub unsafe fn cuCtxCreate_v4(
    context: *mut CUcontext,
    params: *mut CUctxCreateParams,
    flags: u32,
    dev: CUdevice,
) -> CUresult {
    call(|| {
        if !params.is_null() {
            let params = unsafe { record(params)? };
            if params.numExecAffinityParams != 0 {
                return Err(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY);
            }
            if !params.cigParams.is_null() {
                return Err(CUDA_ERROR_NOT_SUPPORTED);
            }
        }
        create(context, flags, dev)
    })
}

pub unsafe fn cuCtxDestroy_v2(context: CUcontext) -> CUresult {
    call(|| named(context)?.destroy())
}

/// The context of a handle that may not be null.
fn named(handle: CUcontext) -> Outcome<std::sync::Arc<Context>> {
    if handle.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    Context::get(handle)
}

/// Attaching was deprecated before contexts could be current to several threads: it counts nothing.
pub unsafe fn cuCtxAttach(context: *mut CUcontext, flags: u32) -> CUresult {
    call(|| {
        let context = out(context)?;
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        context.set(Context::current()?.handle());
        Ok(())
    })
}

pub unsafe fn cuCtxDetach(context: CUcontext) -> CUresult {
    call(|| Context::get(context).map(drop))
}

pub unsafe fn cuCtxPushCurrent_v2(context: CUcontext) -> CUresult {
    call(|| {
        named(context)?;
        context_stack::push(context);
        Ok(())
    })
}

pub unsafe fn cuCtxPopCurrent_v2(context: *mut CUcontext) -> CUresult {
    call(|| {
        let popped = context_stack::pop().ok_or(CUDA_ERROR_INVALID_CONTEXT)?;
        set_if_wanted(context, popped);
        Ok(())
    })
}

pub unsafe fn cuCtxSetCurrent(context: CUcontext) -> CUresult {
    call(|| {
        if !context.is_null() {
            Context::get(context)?;
        }
        context_stack::set_current(context);
        Ok(())
    })
}

pub unsafe fn cuCtxGetCurrent(context: *mut CUcontext) -> CUresult {
    call(|| {
        let context = out(context)?;
        context.set(context_stack::current());
        Ok(())
    })
}

/// The current context whatever has become of it, for questions that a failed one still answers.
fn current_or(handle: CUcontext) -> Outcome<std::sync::Arc<Context>> {
    let handle = if handle.is_null() {
        context_stack::current()
    } else {
        handle
    };
    Context::get(handle)
}

pub unsafe fn cuCtxGetDevice(dev: *mut CUdevice) -> CUresult {
    unsafe { cuCtxGetDevice_v2(dev, core::ptr::null_mut()) }
}

pub unsafe fn cuCtxGetDevice_v2(dev: *mut CUdevice, context: CUcontext) -> CUresult {
    call(|| {
        let dev = out(dev)?;
        dev.set(current_or(context)?.device.ordinal);
        Ok(())
    })
}

pub unsafe fn cuCtxGetId(context: CUcontext, id: *mut u64) -> CUresult {
    call(|| {
        let id = out(id)?;
        id.set(current_or(context)?.id);
        Ok(())
    })
}

pub unsafe fn cuCtxGetApiVersion(context: CUcontext, version: *mut u32) -> CUresult {
    call(|| {
        let version = out(version)?;
        current_or(context)?;
        // What every driver since CUDA 3.2 answers.
        version.set(3020);
        Ok(())
    })
}

pub unsafe fn cuCtxGetFlags(flags: *mut u32) -> CUresult {
    call(|| {
        let flags = out(flags)?;
        flags.set(Context::current()?.flags());
        Ok(())
    })
}

pub unsafe fn cuCtxSetFlags(flags: u32) -> CUresult {
    call(|| Context::current()?.set_flags(flags))
}

pub unsafe fn cuCtxSynchronize() -> CUresult {
    call_and_show(|| Context::current()?.synchronize())
}

pub unsafe fn cuCtxSynchronize_v2(context: CUcontext) -> CUresult {
    call_and_show(|| Context::get_or_current(context)?.synchronize())
}

pub unsafe fn cuCtxGetLimit(value: *mut usize, limit: CUlimit) -> CUresult {
    call(|| {
        let value = out(value)?;
        value.set(Context::current()?.limit(limit)?);
        Ok(())
    })
}

pub unsafe fn cuCtxSetLimit(limit: CUlimit, value: usize) -> CUresult {
    call(|| Context::current()?.set_limit(limit, value))
}

pub unsafe fn cuCtxGetCacheConfig(config: *mut CUfunc_cache) -> CUresult {
    call(|| {
        let config = out(config)?;
        config.set(Context::current()?.cache_config().load(Ordering::Relaxed));
        Ok(())
    })
}

pub unsafe fn cuCtxSetCacheConfig(config: CUfunc_cache) -> CUresult {
    call(|| {
        let context = Context::current()?;
        if config > CU_FUNC_CACHE_PREFER_EQUAL {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        context.cache_config().store(config, Ordering::Relaxed);
        Ok(())
    })
}

pub unsafe fn cuCtxGetSharedMemConfig(config: *mut CUsharedconfig) -> CUresult {
    call(|| {
        let config = out(config)?;
        config.set(Context::current()?.shared_config().load(Ordering::Relaxed));
        Ok(())
    })
}

pub unsafe fn cuCtxSetSharedMemConfig(config: CUsharedconfig) -> CUresult {
    call(|| {
        let context = Context::current()?;
        if config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        context.shared_config().store(config, Ordering::Relaxed);
        Ok(())
    })
}

pub unsafe fn cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) -> CUresult {
    call(|| {
        Context::current()?;
        set_if_wanted(least, PRIORITIES.0);
        set_if_wanted(greatest, PRIORITIES.1);
        Ok(())
    })
}

pub unsafe fn cuCtxResetPersistingL2Cache() -> CUresult {
    call(|| Context::current().map(drop))
}

pub unsafe fn cuCtxGetExecAffinity(
    _affinity: *mut CUexecAffinityParam,
    _type: CUexecAffinityType,
) -> CUresult {
    call(|| Context::current().and(Err(CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY)))
}

/// See [`super::cuDeviceCanAccessPeer`].
pub unsafe fn cuCtxEnablePeerAccess(peer: CUcontext, flags: u32) -> CUresult {
    call(|| {
        Context::current()?;
        Context::get(peer)?;
        Err(if flags == 0 {
            CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
        } else {
            CUDA_ERROR_INVALID_VALUE
        })
    })
}

pub unsafe fn cuCtxDisablePeerAccess(peer: CUcontext) -> CUresult {
    call(|| {
        Context::current()?;
        Context::get(peer)?;
        Err(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED)
    })
}

/// Records what all streams of a context have been given so far: its legacy stream waits for them.
pub unsafe fn cuCtxRecordEvent(context: CUcontext, event: CUevent) -> CUresult {
    call(|| {
        let context = Context::get_or_current(context)?;
        Event::get(event)?.record(&context.legacy)
    })
}

pub unsafe fn cuCtxWaitEvent(context: CUcontext, event: CUevent) -> CUresult {
    call(|| {
        let context = Context::get_or_current(context)?;
        Event::get(event)?.hold_up(&context.legacy);
        Ok(())
    })
}
