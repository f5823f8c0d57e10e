//! Copies. Bytes that leave the program are captured before a call returns, so a copy to the
//! device does not wait for the server; its bounds are checked here first. Bytes that come back
//! land straight in the program's memory.

use std::ffi::c_void;

use harp_cuda_abi::types::*;
use harp_wire::calls::{
    encode_cuMemcpyDtoHAsync_v2, encode_cuMemcpyDtoH_v2, encode_cuMemcpyHtoD_v2,
};
use harp_wire::{Because, CallId, SYNCHRONOUS};

use super::copy_between::{on_device, Way};
use super::stream::context_of;
use crate::generated::forward;
use crate::session::addresses::{Owner, Range};
use crate::session::settings::settings;
use crate::session::{because, checks, handles, sessions, Session, Sessions};

/// Large copies travel in pieces of this many bytes, so that neither side holds all of it and the
/// device's copy overlaps the wire's.
pub const PIECE: usize = 1 << 20;
/// Pieces asked for ahead of the one being received.
const PIECES_AHEAD: usize = 8;

/// A larger copy of pageable memory may wait for its stream: no program relies on the opposite (CUDA's API
/// synchronization behavior).
const TAKEN_AT_ONCE: usize = 64 << 10;

/// Whether an address is a device's.
pub fn is_device(sessions: &Sessions, address: CUdeviceptr) -> bool {
    match sessions.addresses.find(address) {
        Some(range) => !matches!(range.owner, Owner::Host { .. }),
        // Registered memory where the devices see it.
        None => sessions
            .iter()
            .any(|session| session.twins.holds(address, 1)),
    }
}

pub fn result(outcome: Result<(), CUresult>) -> CUresult {
    outcome.err().unwrap_or(CUDA_SUCCESS)
}

pub fn check(code: CUresult) -> Result<(), CUresult> {
    if code == CUDA_SUCCESS {
        Ok(())
    } else {
        Err(code)
    }
}

pub unsafe fn to_device(
    destination: CUdeviceptr,
    source: *const c_void,
    bytes: usize,
    stream: u64,
) -> Result<(), CUresult> {
    if bytes == 0 {
        return checks::context().map(drop);
    }
    let way = Way::to(destination, bytes, stream)?;
    if source.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let has_waited = wait_for_writers(&way, source)?;
    if !has_waited && bytes > TAKEN_AT_ONCE {
        wait_for_functions(&way, destination)?;
    }
    // SAFETY: the caller passes `bytes` readable bytes.
    let source = unsafe { std::slice::from_raw_parts(source.cast::<u8>(), bytes) };
    // Most of a large copy has been acknowledged when the last piece leaves: only the rest is copied.
    let loan = (bytes > PIECE).then(|| way.session.loan());
    let mut known = way.session.known_parts(destination, source)?;
    for (index, piece) in source.chunks(PIECE).enumerate() {
        let at = destination + (index * PIECE) as u64;
        if let Some(known) = &mut known {
            if known.copy(index, at, way.stream)? {
                continue;
            }
        }
        // SAFETY: the bytes are the program's to change when this returns, and the loan ends before.
        check(unsafe {
            way.session.one_way_lent(
                CallId::cuMemcpyHtoD_v2,
                |encoder| encode_cuMemcpyHtoD_v2(encoder, at, way.stream),
                piece,
                loan.as_ref(),
            )
        })?;
    }
    Ok(())
}

/// Asks for bytes that land in page-locked memory in the order of a stream, without waiting for them.
///
/// # Safety
/// The memory is writable for its bytes until it is no longer page-locked.
unsafe fn bring(way: &Way, pieces: impl Iterator<Item = Piece>) -> Result<(), CUresult> {
    let context = context_of(way.stream as CUstream)?;
    for piece in pieces {
        // SAFETY: the caller's promise; who ends the memory settles it before.
        unsafe {
            way.session.bring(
                CallId::cuMemcpyDtoHAsync_v2,
                |encoder| {
                    let bytes = piece.bytes as u64;
                    encode_cuMemcpyDtoHAsync_v2(encoder, piece.source, bytes, way.stream);
                },
                piece.destination,
                piece.bytes,
                context,
            )
        }?;
    }
    Ok(())
}

/// Whether all of a piece of the program's memory is page-locked, and no kernel's to use as well.
fn is_page_locked(session: &Session, start: *mut c_void, bytes: usize) -> bool {
    let range = sessions()
        .ok()
        .and_then(|sessions| sessions.addresses.find(start as u64));
    let holds = |range: Range| {
        let end = (start as u64).checked_add(bytes as u64);
        matches!(range.owner, Owner::Host { .. }) && end <= Some(range.base + range.size)
    };
    range.is_some_and(holds) && session.twins.device_address(start as usize).is_none()
}

/// Page-locked memory is read when the stream gets there. Reading it at the call gives the same
/// bytes, unless a kernel or a host function that is queued before changes them: then the stream
/// comes first. Whether that was so.
pub fn wait_for_writers(way: &Way, source: *const c_void) -> Result<bool, CUresult> {
    let Way {
        session, stream, ..
    } = *way;
    settle(source as u64)?;
    let is_shared = session.twins.device_address(source as usize).is_some();
    let functions = stream != SYNCHRONOUS && session.callbacks.any();
    let may_change = functions && sessions()?.addresses.find(source as u64).is_some();
    if !is_shared && !may_change {
        return Ok(false);
    }
    check(because(Because::Order, || match stream {
        // SAFETY: plain values.
        SYNCHRONOUS => unsafe { forward::cuCtxSynchronize() },
        stream => unsafe { forward::cuStreamSynchronize(stream as CUstream) },
    }))?;
    Ok(true)
}

/// Where a stream may wait for a host function, a copy to `address` for which the server's driver waits would keep the
/// server from hearing that the function has returned: it is sent when the stream has got there.
pub fn wait_for_functions(way: &Way, address: CUdeviceptr) -> Result<(), CUresult> {
    if !way.session.callbacks.any() {
        return Ok(());
    }
    check(because(Because::Order, || match way.stream {
        // Behind the streams that the copy comes behind are bytes that are asked for in its place.
        SYNCHRONOUS => {
            let mut byte = 0_u8;
            let one = Piece {
                destination: &raw mut byte,
                source: address,
                bytes: 1,
            };
            // SAFETY: the byte outlives the call.
            result(unsafe { receive(way, std::iter::once(one)) })
        }
        // SAFETY: plain values.
        stream => unsafe { forward::cuStreamSynchronize(stream as CUstream) },
    }))
}

/// Bytes that come back: where they land, where they are, how many.
struct Piece {
    destination: *mut u8,
    source: CUdeviceptr,
    bytes: usize,
}

/// Receives pieces, several asked for ahead of the one that is waited for.
///
/// # Safety
/// Every destination is writable for its bytes.
unsafe fn receive(way: &Way, pieces: impl Iterator<Item = Piece>) -> Result<(), CUresult> {
    let Way {
        session, stream, ..
    } = *way;
    let mut asked = std::collections::VecDeque::with_capacity(PIECES_AHEAD);
    let mut outcome = Ok(());
    for piece in pieces {
        // SAFETY: the caller's promise; every ticket is waited for below, error or not.
        let ticket = unsafe {
            session.ask_bytes(
                CallId::cuMemcpyDtoH_v2,
                |encoder| {
                    encode_cuMemcpyDtoH_v2(encoder, piece.source, piece.bytes as u64, stream);
                },
                piece.destination,
                piece.bytes,
            )
        };
        match ticket {
            Ok(ticket) => asked.push_back(ticket),
            Err(code) => outcome = Err(code),
        }
        if asked.len() == PIECES_AHEAD {
            if let Some(ticket) = asked.pop_front() {
                outcome = outcome.and(check(session.finish_bytes(ticket)));
            }
        }
        if outcome.is_err() {
            break;
        }
    }
    for ticket in asked {
        outcome = outcome.and(check(session.finish_bytes(ticket)));
    }
    outcome
}

/// The pieces in which `bytes` travel.
fn pieces(destination: *mut u8, source: CUdeviceptr, bytes: usize) -> impl Iterator<Item = Piece> {
    (0..bytes).step_by(PIECE).map(move |at| Piece {
        destination: destination.wrapping_add(at),
        source: source + at as u64,
        bytes: PIECE.min(bytes - at),
    })
}

/// After a copy to the program's memory. One on no stream has waited for the work before it, so the program
/// may look at what that has written in memory that it shares with the device.
pub fn landed(session: &Session, stream: Option<CUstream>) -> Result<(), CUresult> {
    match stream {
        Some(_) => Ok(()),
        None => check(session.pull_twins()),
    }
}

/// Before bytes move within the program's memory: what the stream holds comes first, and without one what
/// the device does to memory that it shares with the program.
pub fn before_moving(stream: Option<CUstream>) -> Result<(), CUresult> {
    let shares = || checks::context().is_ok_and(|session| session.twins.any());
    check(because(Because::Order, || match stream {
        // SAFETY: plain values.
        Some(stream) => unsafe { forward::cuStreamSynchronize(stream) },
        // SAFETY: no arguments.
        None if shares() => unsafe { forward::cuCtxSynchronize() },
        None => CUDA_SUCCESS,
    }))
}

/// Copies to the program's memory; returns the session that the bytes came from.
pub unsafe fn to_host(
    destination: *mut c_void,
    source: CUdeviceptr,
    bytes: usize,
    stream: u64,
) -> Result<&'static Session, CUresult> {
    // SAFETY: the caller's buffer.
    unsafe { to_host_unless(destination, source, bytes, stream, |_| false) }
}

/// As [`to_host`], but where the memory is page-locked the bytes come when the stream gets there. Where every call is to
/// wait, this one does unless the stream may be waiting for a function of the program.
unsafe fn to_host_in_order(
    destination: *mut c_void,
    source: CUdeviceptr,
    bytes: usize,
    stream: u64,
) -> Result<&'static Session, CUresult> {
    let lands = |way: &Way| {
        way.stream != SYNCHRONOUS
            && (!settings().every_call_waits || way.session.callbacks.any())
            && is_page_locked(way.session, destination, bytes)
    };
    // SAFETY: the caller's buffer.
    unsafe { to_host_unless(destination, source, bytes, stream, lands) }
}

/// Copies to the program's memory, and waits for the bytes unless they are to land.
unsafe fn to_host_unless(
    destination: *mut c_void,
    source: CUdeviceptr,
    bytes: usize,
    stream: u64,
    lands: impl FnOnce(&Way) -> bool,
) -> Result<&'static Session, CUresult> {
    if bytes == 0 {
        return checks::context();
    }
    let way = Way::to(source, bytes, stream)?;
    if destination.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let pieces = pieces(destination.cast(), source, bytes);
    // SAFETY: the caller's buffer, which stays while it is page-locked.
    unsafe {
        match lands(&way) {
            true => bring(&way, pieces),
            false => receive(&way, pieces),
        }
    }?;
    Ok(way.session)
}

/// Waits for bytes that land in the page-locked memory that has this address, if it is any.
pub fn settle(address: u64) -> Result<(), CUresult> {
    let sessions = sessions()?;
    if let Some(range) = sessions.addresses.find(address) {
        let (start, size) = (range.base as usize, range.size as usize);
        sessions
            .iter()
            .for_each(|session| session.settle(start..start + size));
    }
    Ok(())
}

pub unsafe fn cuMemcpyHtoD_v2(
    destination: CUdeviceptr,
    source: *const c_void,
    bytes: usize,
) -> CUresult {
    result(unsafe { to_device(destination, source, bytes, SYNCHRONOUS) })
}

pub unsafe fn cuMemcpyHtoDAsync_v2(
    destination: CUdeviceptr,
    source: *const c_void,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    result(
        handles::live_stream(stream)
            .and_then(|stream| unsafe { to_device(destination, source, bytes, stream) }),
    )
}

pub unsafe fn cuMemcpyDtoH_v2(
    destination: *mut c_void,
    source: CUdeviceptr,
    bytes: usize,
) -> CUresult {
    result(
        unsafe { to_host(destination, source, bytes, SYNCHRONOUS) }
            .and_then(|session| landed(session, None)),
    )
}

/// Returns at once where the memory is page-locked; in pageable memory the bytes are there when this returns, as CUDA
/// does it.
pub unsafe fn cuMemcpyDtoHAsync_v2(
    destination: *mut c_void,
    source: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    result(
        handles::live_stream(stream)
            .and_then(|stream| unsafe { to_host_in_order(destination, source, bytes, stream) })
            .map(drop),
    )
}

/// A copy between addresses that say themselves whose they are.
unsafe fn unified(
    destination: CUdeviceptr,
    source: CUdeviceptr,
    bytes: usize,
    stream: Option<CUstream>,
) -> CUresult {
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    let ordered = stream.map_or(Ok(SYNCHRONOUS), handles::live_stream);
    let ordered = match ordered {
        Ok(ordered) => ordered,
        Err(code) => return code,
    };
    unsafe {
        match (
            is_device(sessions, destination),
            is_device(sessions, source),
        ) {
            (true, true) => on_device(destination, source, bytes, stream),
            (true, false) => result(to_device(
                destination,
                source as *const c_void,
                bytes,
                ordered,
            )),
            (false, true) => result(
                match stream {
                    Some(_) => to_host_in_order(destination as *mut c_void, source, bytes, ordered),
                    None => to_host(destination as *mut c_void, source, bytes, ordered),
                }
                .and_then(|session| landed(session, stream)),
            ),
            (false, false) => result(before_moving(stream).map(|()| {
                if bytes > 0 {
                    std::ptr::copy(source as *const u8, destination as *mut u8, bytes);
                }
            })),
        }
    }
}

pub unsafe fn cuMemcpy(destination: CUdeviceptr, source: CUdeviceptr, bytes: usize) -> CUresult {
    unsafe { unified(destination, source, bytes, None) }
}

pub unsafe fn cuMemcpyAsync(
    destination: CUdeviceptr,
    source: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    unsafe { unified(destination, source, bytes, Some(stream)) }
}
