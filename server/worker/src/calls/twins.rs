//! Memory that kernels share with the program.

use harp_cuda_abi::types::CUresult;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder};

use crate::session::{Session, Violation};

pub fn harp_twin_create(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpTwinCreateArgs::decode(d)?;
    let context = cx.threads.context();
    cx.twins.create(cx.driver, context, args.base, args.bytes)
}

pub fn harp_twin_destroy(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpTwinDestroyArgs::decode(d)?;
    cx.threads.forget_applied();
    cx.twins.destroy(cx.driver, args.base)
}

pub fn harp_twin_write(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpTwinWriteArgs::decode(d)?;
    cx.twins.write(args.lines)?;
    Ok(0)
}

pub fn harp_twin_read(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpTwinReadArgs::decode(d)?;
    let (next, lines) = cx.twins.read(args.cursor);
    encode_harp_twin_read_reply(out, next, &lines);
    Ok(0)
}
