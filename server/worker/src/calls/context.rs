//! Contexts.

use harp_cuda_abi::types::CUresult;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, HandleKind};

use super::live;
use crate::session::{Session, Violation};

/// Ends everything in a device's primary context, which stays the same context.
pub fn cuDevicePrimaryCtxReset_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuDevicePrimaryCtxReset_v2Args::decode(d)?;
    let context = live!(cx.handles.get(HandleKind::Context, args.context));
    let device = match cx.device(args.dev) {
        Ok(device) => device,
        Err(code) => return Ok(code),
    };
    // SAFETY: a number; the driver checks it.
    let status = unsafe { (cx.driver.cuDevicePrimaryCtxReset_v2)(device) };
    if status == 0 {
        cx.handles.context_ended(context);
    }
    Ok(status)
}
