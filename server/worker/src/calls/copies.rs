//! Copies between the client's memory and the device's.

use harp_cuda_abi::types::{CUdeviceptr, CUresult, CUstream};
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, RECORD_MAX, SYNCHRONOUS};

use super::live;
use crate::generated::driver::Driver;
use crate::session::{
    Intake, Reached, Session, Staged, Staging, Stopped, Uploads, Violation, Wait, BUFFER_BYTES,
};

/// Pageable memory up to this size a driver takes at once, whatever the stream has to do before (CUDA's API
/// synchronization behavior).
const TAKEN_AT_ONCE: usize = 64 << 10;

/// The arguments of an upload in front of its payload: address, stream, length.
pub const UPLOAD_HEAD_BYTES: usize = 24;

pub fn cuMemcpyHtoD_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemcpyHtoD_v2Args::decode(d)?;
    let stream = live!(copy_stream(cx, args.stream));
    let others = cx.has_others();
    let way = (cx.driver, &cx.staging, &mut cx.uploads);
    let status = upload(way, others, args.dst, args.data, (args.stream, stream));
    cx.cache.begin_payload(args.dst, args.data.len());
    cx.cache.add_to_payload(args.data);
    cx.cache.end_payload(status == 0);
    Ok(status)
}

/// The same for a record too large to be kept whole: each piece of the payload is copied as it arrives. After a piece
/// that fails the rest is only taken out of the way.
pub fn upload_in_pieces(
    cx: &mut Session,
    intake: &mut Intake,
    argument_bytes: usize,
) -> Result<CUresult, Stopped> {
    let mut head = Decoder::new(intake.peek(UPLOAD_HEAD_BYTES)?);
    let (mut address, stream_id, bytes) = (head.u64(), head.copy_stream(), head.u64());
    head.finish().map_err(Violation::from)?;
    intake.skip(UPLOAD_HEAD_BYTES);
    let mut left = argument_bytes - UPLOAD_HEAD_BYTES;
    if bytes != left as u64 {
        return Err(Violation::new(format!(
            "a payload of {bytes} bytes in a record with room for {left}"
        ))
        .into());
    }
    let (mut status, stream): (CUresult, CUstream) = match copy_stream(cx, stream_id)? {
        Ok(stream) => (0, stream.cast()),
        Err(code) => (code, std::ptr::null_mut()),
    };
    cx.cache.begin_payload(address, left);
    let others = cx.has_others();
    while left > 0 {
        let staged = left.min(BUFFER_BYTES);
        let there = match status {
            0 => Reached::of(cx.driver, address, staged, stream),
            _ => None,
        };
        let taken = if let Some(mut there) = there {
            intake.take_into(there.bytes_mut())?;
            cx.cache.add_to_payload(there.bytes());
            staged
        } else if let Some(mut buffer) = cx.uploads.take((&cx.staging, cx.driver), staged, others) {
            intake.take_into(buffer.bytes_mut())?;
            cx.cache.add_to_payload(buffer.as_ref());
            if status == 0 {
                status = upload_staged(cx.driver, &mut cx.uploads, address, buffer, stream);
            }
            staged
        } else {
            let piece = intake.take_piece(left)?;
            if status == 0 {
                let way = (cx.driver, &cx.staging, &mut cx.uploads);
                status = upload(way, others, address, piece, (stream_id, stream));
            }
            cx.cache.add_to_payload(piece);
            piece.len()
        };
        left -= taken;
        address = address.wrapping_add(taken as u64);
    }
    cx.cache.end_payload(status == 0);
    Ok(status)
}

/// Queues a copy to the device, which reads the buffer when the stream gets there. Nobody waits for a synchronous
/// one: it is in the order of its stream.
fn upload_staged(
    driver: &Driver,
    uploads: &mut Uploads,
    address: CUdeviceptr,
    buffer: Staged,
    stream: CUstream,
) -> CUresult {
    let bytes = buffer.as_ref().len();
    // SAFETY: see the module; the buffer is kept until the stream has passed the copy.
    let status = unsafe { (driver.cuMemcpyHtoDAsync_v2)(address, buffer.start(), bytes, stream) };
    match status {
        0 => uploads.keep(driver, buffer, stream),
        code => code,
    }
}

/// Copies to the device. The driver has taken pageable memory, which this is, before it returns. It waits for the
/// stream of a larger copy, which has a buffer of its own where `others` may have calls that are not to wait.
pub(super) fn upload(
    (driver, staging, uploads): (&Driver, &Staging, &mut Uploads),
    others: bool,
    address: CUdeviceptr,
    bytes: &[u8],
    (stream_id, stream): (u64, CUstream),
) -> CUresult {
    if let Some(mut there) = Reached::of(driver, address, bytes.len(), stream) {
        there.bytes_mut().copy_from_slice(bytes);
        return 0;
    }
    if others && bytes.len() > TAKEN_AT_ONCE {
        if let Some(mut buffer) = uploads.take((staging, driver), bytes.len(), others) {
            buffer.bytes_mut().copy_from_slice(bytes);
            return upload_staged(driver, uploads, address, buffer, stream);
        }
    }
    let source = bytes.as_ptr().cast();
    // SAFETY: see the module.
    unsafe {
        if stream_id == SYNCHRONOUS && bytes.len() > TAKEN_AT_ONCE {
            (driver.cuMemcpyHtoD_v2)(address, source, bytes.len())
        } else {
            (driver.cuMemcpyHtoDAsync_v2)(address, source, bytes.len(), stream)
        }
    }
}

pub fn cuMemcpyDtoH_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemcpyDtoH_v2Args::decode(d)?;
    let bytes = reply_bytes(args.bytes)?;
    let stream = live!(copy_stream(cx, args.stream));
    let stream = (args.stream != SYNCHRONOUS).then_some(stream);
    cx.wait_for(Wait::Copy {
        source: args.src,
        bytes,
        stream,
    })
}

/// The same for memory of the program that is page-locked: nobody waits, and whatever tells the client that the stream
/// has passed the copy comes behind the bytes.
pub fn cuMemcpyDtoHAsync_v2(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemcpyDtoHAsync_v2Args::decode(d)?;
    let bytes = reply_bytes(args.bytes)?;
    let stream = live!(cx.handles.get_stream(args.stream));
    cx.wait_for(Wait::Landing {
        source: args.src,
        bytes,
        stream,
    })
}

/// A stream, or null for the synchronous form.
pub(super) fn copy_stream(cx: &mut Session, id: u64) -> crate::session::Found {
    match id {
        SYNCHRONOUS => Ok(Ok(std::ptr::null_mut())),
        id => cx.handles.get_stream(id),
    }
}

/// A size that fits a reply.
pub(super) fn reply_bytes(bytes: u64) -> Result<usize, Violation> {
    /// The reply's head and the length in front of the bytes.
    const AROUND: usize = 64;
    match usize::try_from(bytes) {
        Ok(count) if count <= RECORD_MAX - AROUND => Ok(count),
        _ => Err(Violation::new(format!(
            "{bytes} bytes asked for in one reply"
        ))),
    }
}
