//! Calls of the session itself.

use harp_cuda_abi::types::CUresult;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, HandleKind};

use crate::session::{Session, Violation};

/// The calling thread of the program has another current context. One that another thread has ended meanwhile is none:
/// the calls that follow say so.
pub fn harp_set_current(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpSetCurrentArgs::decode(d)?;
    let context = cx.handles.get_or_null(HandleKind::Context, args.context)?;
    cx.set_context(context.unwrap_or(std::ptr::null_mut()).cast());
    Ok(0)
}

/// A piece of an image that a later call loads.
pub fn harp_blob_append(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpBlobAppendArgs::decode(d)?;
    cx.blobs.append(args.blob, args.piece)?;
    cx.cache.keep_image(args.piece);
    Ok(0)
}

/// The compiler's messages of this client thread's last load or link.
pub fn harp_jit_logs(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    HarpJitLogsArgs::decode(d)?;
    let logs = cx
        .logs
        .get(&cx.threads.thread())
        .cloned()
        .unwrap_or_default();
    encode_harp_jit_logs_reply(out, &logs.info, &logs.error);
    Ok(0)
}

/// A thread of the program that has made calls is gone.
pub fn harp_thread_ended(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpThreadEndedArgs::decode(d)?;
    cx.threads.ended(args.thread);
    cx.handles.thread_streams.thread_ended(args.thread);
    cx.logs.remove(&args.thread);
    Ok(0)
}

/// The program's host function has returned.
pub fn harp_callback_done(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpCallbackDoneArgs::decode(d)?;
    cx.callbacks.done(args.callback)?;
    Ok(0)
}
