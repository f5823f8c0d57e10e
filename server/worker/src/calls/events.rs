//! Events, as far as the client hears of them without asking.

use harp_cuda_abi::types::{CUevent, CUresult};
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, HandleKind};

use super::live;
use crate::session::{Session, Violation};

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
