//! Events.

use harp_cuda_abi::types::*;

use crate::call::{call, call_and_show, out};
use crate::context::Context;
use crate::event::{Event, EVENTS};
use crate::execution::host_calls;
use crate::stream::Stream;

pub unsafe fn cuEventCreate(event: *mut CUevent, flags: u32) -> CUresult {
    call(|| {
        let event = out(event)?;
        event.set(Event::create(&Context::current()?, flags)?);
        Ok(())
    })
}

pub unsafe fn cuEventDestroy_v2(handle: CUevent) -> CUresult {
    call(|| {
        host_calls::check()?;
        let event = EVENTS.remove(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)?;
        event.check_fault()
    })
}

pub unsafe fn cuEventRecord(handle: CUevent, stream: CUstream) -> CUresult {
    unsafe { cuEventRecordWithFlags(handle, stream, CU_EVENT_RECORD_DEFAULT) }
}

pub unsafe fn cuEventRecordWithFlags(handle: CUevent, stream: CUstream, flags: u32) -> CUresult {
    call(|| {
        if flags & !CU_EVENT_RECORD_EXTERNAL != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        Event::get(handle)?.record(&*Stream::find(stream)?)
    })
}

pub unsafe fn cuEventQuery(handle: CUevent) -> CUresult {
    call(|| {
        let event = Event::get(handle)?;
        event.check_fault()?;
        event.query()?;
        event.check_fault()
    })
}

pub unsafe fn cuEventSynchronize(handle: CUevent) -> CUresult {
    call_and_show(|| {
        let event = Event::get(handle)?;
        event.synchronize();
        event.check_fault()
    })
}

pub unsafe fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    start: CUevent,
    end: CUevent,
) -> CUresult {
    call(|| {
        let milliseconds = out(milliseconds)?;
        let start = Event::get(start)?;
        start.check_fault()?;
        milliseconds.set(start.elapsed(&*Event::get(end)?)?);
        Ok(())
    })
}
