//! Events.

use harp_cuda_abi::types::*;

use crate::call::{call, call_and_show, out};
use crate::context::Context;
use crate::event::{Event, EVENTS};
use crate::stream::Stream;

pub unsafe fn cuEventCreate(event: *mut CUevent, flags: u32) -> CUresult {
    call(|| {
        let event = out(event)?;
        event.set(Event::create(&*Context::current()?, flags)?);
        Ok(())
    })
}

pub unsafe fn cuEventDestroy_v2(handle: CUevent) -> CUresult {
    call(|| {
        Context::current()?;
        EVENTS
            .remove(handle)
            .map(drop)
            .ok_or(CUDA_ERROR_INVALID_HANDLE)
    })
}

pub unsafe fn cuEventRecord(handle: CUevent, stream: CUstream) -> CUresult {
    unsafe { cuEventRecordWithFlags(handle, stream, CU_EVENT_RECORD_DEFAULT) }
}

pub unsafe fn cuEventRecordWithFlags(handle: CUevent, stream: CUstream, flags: u32) -> CUresult {
    call(|| {
        let context = Context::current()?;
        if flags & !CU_EVENT_RECORD_EXTERNAL != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Event::get(handle)?.record(&*Stream::resolve(stream, &context)?)
    })
}

pub unsafe fn cuEventQuery(handle: CUevent) -> CUresult {
    call(|| {
        let context = Context::current()?;
        Event::get(handle)?.query()?;
        context.check_fault()
    })
}

pub unsafe fn cuEventSynchronize(handle: CUevent) -> CUresult {
    call_and_show(|| {
        let context = Context::current()?;
        Event::get(handle)?.synchronize();
        context.check_fault()
    })
}

pub unsafe fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    start: CUevent,
    end: CUevent,
) -> CUresult {
    call(|| {
        let milliseconds = out(milliseconds)?;
        Context::current()?;
        milliseconds.set(Event::get(start)?.elapsed(&*Event::get(end)?)?);
        Ok(())
    })
}
