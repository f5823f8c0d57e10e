//! Contexts.

use harp_cuda_abi::types::{CUcontext, CUresult};
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, HandleKind};

use super::live;
use crate::session::{Session, Violation};

/// Retains a primary context for the client. What the worker holds of it is the client's from then on, so that it ends
/// when the client lets go of it.
pub fn cuDevicePrimaryCtxRetain(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuDevicePrimaryCtxRetainArgs::decode(d)?;
    let device = match cx.device(args.dev) {
        Ok(device) => device,
        Err(code) => return Ok(code),
    };
    let mut context: CUcontext = std::ptr::null_mut();
    // SAFETY: the pointer is to a live variable; the driver checks the number.
    let status = unsafe { (cx.driver.cuDevicePrimaryCtxRetain)(&mut context, device) };
    if status == 0 {
        cx.handles
            .created(HandleKind::Context, args.pctx, context.cast(), status)?;
        if let Some(held) = cx.contexts.iter().position(|held| *held == device) {
            cx.contexts.swap_remove(held);
            // SAFETY: as above.
            unsafe { (cx.driver.cuDevicePrimaryCtxRelease_v2)(device) };
        }
    }
    Ok(status)
}

/// Ends everything in a device's primary context. The client has it retained once, and retains it again before its next
/// use, so what a driver still counts of that is let go of: what came into the context later would not end otherwise.
pub fn cuDevicePrimaryCtxReset_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuDevicePrimaryCtxReset_v2Args::decode(d)?;
    let _context: CUcontext = live!(cx.handles.get(HandleKind::Context, args.context));
    let device = match cx.device(args.dev) {
        Ok(device) => device,
        Err(code) => return Ok(code),
    };
    // SAFETY: a number; the driver checks it.
    let status = unsafe { (cx.driver.cuDevicePrimaryCtxReset_v2)(device) };
    if status == 0 {
        cx.handles.remove(HandleKind::Context, args.context);
        // SAFETY: as above. A reset leaves the retains as they were.
        unsafe { (cx.driver.cuDevicePrimaryCtxRelease_v2)(device) };
    }
    Ok(status)
}
