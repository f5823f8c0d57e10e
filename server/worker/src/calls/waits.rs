//! Calls that wait for the device, and one that makes the device wait. What is complete already is answered at once; for
//! the rest see `session::relay`.

use std::ffi::c_void;

use harp_cuda_abi::types::{CUevent, CUresult, CUstream, CUDA_ERROR_NOT_READY};
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, HandleKind};

use super::live;
use crate::session::{Session, Violation, Wait};

pub fn cuStreamSynchronize(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuStreamSynchronizeArgs::decode(d)?;
    let object: *mut c_void = live!(cx.handles.get_stream(args.hStream));
    let stream = object as CUstream;
    // SAFETY: see the module.
    match unsafe { (cx.driver.cuStreamQuery)(stream) } {
        CUDA_ERROR_NOT_READY => cx.wait_for(Wait::Stream(stream)),
        // The call itself does more than wait: it shows what kernels have printed.
        // SAFETY: see the module.
        _ => Ok(unsafe { (cx.driver.cuStreamSynchronize)(stream) }),
    }
}

pub fn cuEventSynchronize(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuEventSynchronizeArgs::decode(d)?;
    let event: CUevent = live!(cx.handles.get(HandleKind::Event, args.hEvent));
    // SAFETY: see the module.
    match unsafe { (cx.driver.cuEventQuery)(event) } {
        CUDA_ERROR_NOT_READY => cx.wait_for(Wait::Event(event)),
        // SAFETY: as above.
        _ => Ok(unsafe { (cx.driver.cuEventSynchronize)(event) }),
    }
}

pub fn cuCtxSynchronize(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    CuCtxSynchronizeArgs::decode(d)?;
    cx.wait_for(Wait::Context)
}

pub fn cuMemFree_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemFree_v2Args::decode(d)?;
    cx.wait_for(Wait::Free(args.dptr))
}

/// The stream waits for a function of the program.
pub fn cuLaunchHostFunc(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLaunchHostFuncArgs::decode(d)?;
    let stream = live!(cx.handles.get_stream(args.stream));
    cx.callbacks.queue(cx.driver, stream, args.callback)
}
