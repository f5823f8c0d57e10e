//! Events, as far as the client hears of them without asking.

use harp_cuda_abi::types::{CUevent, CUresult, CUstream};
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, HandleKind};

use super::live;
use crate::generated::driver::Driver;
use crate::session::{Line, Session, Violation};

/// The client wants to hear when the event's last record has completed.
pub fn harp_event_watch(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpEventWatchArgs::decode(d)?;
    let event: CUevent = live!(cx.handles.get(HandleKind::Event, args.event));
    cx.watch_event(event, args.number)?;
    Ok(0)
}

/// Records an event, by `call`, and notes where that is in its stream.
#[inline]
fn record(
    cx: &mut Session,
    (event, stream): (u64, u64),
    call: impl FnOnce(&Driver, CUevent, CUstream) -> CUresult,
) -> Result<CUresult, Violation> {
    let id = stream;
    let event: CUevent = live!(cx.handles.get(HandleKind::Event, event));
    let stream: CUstream = live!(cx.handles.get_stream(id));
    let (thread, context) = (cx.threads.thread(), cx.threads.context());
    let watches = &cx.replies.watches;
    watches.recorded(event, || Line::of(id, thread, context));
    let status = call(cx.driver, event, stream);
    if status != 0 {
        watches.recorded(event, || Line::Alone(event.addr()));
    }
    Ok(status)
}

pub fn cuEventRecord(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuEventRecordArgs::decode(d)?;
    // SAFETY: live handles.
    record(
        cx,
        (args.hEvent, args.hStream),
        |driver, event, stream| unsafe { (driver.cuEventRecord)(event, stream) },
    )
}

pub fn cuEventRecordWithFlags(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuEventRecordWithFlagsArgs::decode(d)?;
    let flags = args.flags;
    // SAFETY: live handles.
    record(
        cx,
        (args.hEvent, args.hStream),
        |driver, event, stream| unsafe { (driver.cuEventRecordWithFlags)(event, stream, flags) },
    )
}

/// Nobody may ask about the event when it is gone.
pub fn cuEventDestroy_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuEventDestroy_v2Args::decode(d)?;
    let event: CUevent = live!(cx.handles.get(HandleKind::Event, args.hEvent));
    cx.replies.watches.forget(event);
    // SAFETY: a live event.
    let status = unsafe { (cx.driver.cuEventDestroy_v2)(event) };
    if status == 0 {
        cx.handles.remove(HandleKind::Event, args.hEvent);
    }
    Ok(status)
}
