//! Which way a copy goes, and copies between devices. Devices of two servers do not reach each other:
//! between them the bytes go through this process, in order with the stream that the copy is on.

use std::ffi::c_void;

use harp_cuda_abi::types::*;
use harp_wire::{Because, SYNCHRONOUS};

use super::context::{current_context, known, Visit};
use super::copy::{check, result, to_device, to_host};
use super::stream::context_of;
use crate::generated::forward;
use crate::session::addresses::Owner;
use crate::session::handles::session_of;
use crate::session::{because, checks, handles, sessions, Session, Sessions};

/// Bytes on their way between two servers that this process holds at a time.
pub const HELD: usize = 16 << 20;

/// How the bytes of device memory travel.
pub struct Way {
    pub session: &'static Session,
    /// The stream there, or [`SYNCHRONOUS`].
    pub stream: u64,
    /// Another context than the program's is current meanwhile: the stream's, of which the server asks more than the
    /// copy (when it has passed it), or one of the memory's server.
    _visit: Option<Visit>,
}

impl Way {
    /// The way to `bytes` at `address` for a copy on `stream`, which may be another server's than the
    /// memory: then the stream's work so far is waited for, and the copy made at once.
    ///
    /// # Errors
    /// What CUDA refuses at once: no context, or bytes that are not one allocation's.
    pub fn to(address: CUdeviceptr, bytes: usize, stream: u64) -> Result<Way, CUresult> {
        let current = checks::context()?;
        let sessions = sessions()?;
        let own = stream_session(sessions, current, stream);
        let mut way = Way {
            session: own,
            stream,
            _visit: visit_stream(stream)?,
        };
        if sessions.several() {
            let home = home(sessions, address).unwrap_or(own);
            if home.number != own.number {
                if stream != SYNCHRONOUS {
                    // SAFETY: plain values.
                    check(because(Because::Order, || unsafe {
                        forward::cuStreamSynchronize(stream as CUstream)
                    }))?;
                }
                (way.session, way.stream) = (home, SYNCHRONOUS);
            }
            if let Some(visit) = Visit::to_memory(sessions, address) {
                way._visit = Some(visit);
            }
        }
        checks::device_span(way.session, address, bytes as u64)?;
        Ok(way)
    }
}

/// Of the context of a stream that is not the current one's.
fn visit_stream(stream: u64) -> Result<Option<Visit>, CUresult> {
    if stream == SYNCHRONOUS {
        return Ok(None);
    }
    let context = context_of(stream as CUstream)?;
    let is_current = current_context()? as u64 == context;
    Ok((!is_current).then(|| Visit::of(context)))
}

/// The session of a copy's stream; a default stream, and what is on none, is the current context's.
fn stream_session(
    sessions: &'static Sessions,
    current: &'static Session,
    stream: u64,
) -> &'static Session {
    match stream {
        SYNCHRONOUS => current,
        stream if stream <= handles::STREAM_PER_THREAD => current,
        stream => sessions.of(stream),
    }
}

/// The session whose device has the memory at `address`; none for memory of this process.
fn home(sessions: &'static Sessions, address: CUdeviceptr) -> Option<&'static Session> {
    sessions.of_range(&sessions.addresses.find(address)?)
}

/// Whether one server has all of a copy between devices: both memories and the stream. What is on no
/// stream is done where the memory is, whichever context is current.
pub fn is_within_one(
    destination: CUdeviceptr,
    source: CUdeviceptr,
    stream: Option<CUstream>,
) -> Result<bool, CUresult> {
    let sessions = sessions()?;
    if !sessions.several() {
        return Ok(true);
    }
    let own = match (stream, home(sessions, destination)) {
        (Some(stream), _) => checks::stream(stream)?.0,
        (None, Some(home)) => home,
        (None, None) => checks::context()?,
    };
    let is_own = |address| home(sessions, address).is_none_or(|home| home.number == own.number);
    Ok(is_own(destination) && is_own(source))
}

/// A copy between device addresses, on a stream or as CUDA's synchronous calls do it.
pub unsafe fn on_device(
    destination: CUdeviceptr,
    source: CUdeviceptr,
    bytes: usize,
    stream: Option<CUstream>,
) -> CUresult {
    let copied = || {
        if !is_within_one(destination, source, stream)? {
            // SAFETY: the caller's.
            return unsafe { through_program(destination, source, bytes, stream) };
        }
        let _visit = Visit::to_memory(sessions()?, destination);
        // SAFETY: plain values.
        check(unsafe {
            match stream {
                Some(stream) => forward::cuMemcpyDtoDAsync_v2(destination, source, bytes, stream),
                None => forward::cuMemcpyDtoD_v2(destination, source, bytes),
            }
        })
    };
    result(copied())
}

/// Waits for all work of the contexts that memory is of.
fn wait_for_contexts_of(sessions: &Sessions, addresses: [CUdeviceptr; 2]) -> Result<(), CUresult> {
    for address in addresses {
        let range = sessions.addresses.find(address);
        if let Some(Owner::Device { context, .. }) = range.map(|range| range.owner) {
            let _visit = Visit::of(context);
            // SAFETY: no arguments.
            check(because(Because::Order, || unsafe {
                forward::cuCtxSynchronize()
            }))?;
        }
    }
    Ok(())
}

/// What comes before a copy from one server's device to another's, each end an address and the bytes from
/// the first to the last: a copy on no stream waits for all work of both contexts. Returns the stream as
/// [`Way::to`] takes it.
///
/// # Errors
/// What CUDA refuses at once: no context, or bytes that are not one allocation's.
pub fn before_program(
    destination: (CUdeviceptr, usize),
    source: (CUdeviceptr, usize),
    stream: Option<CUstream>,
) -> Result<u64, CUresult> {
    let sessions = sessions()?;
    let current = checks::context()?;
    let ordered = stream.map_or(Ok(SYNCHRONOUS), handles::live_stream)?;
    for (address, bytes) in [destination, source] {
        let home = home(sessions, address).unwrap_or(current);
        checks::device_span(home, address, bytes as u64)?;
    }
    if stream.is_none() {
        wait_for_contexts_of(sessions, [source.0, destination.0])?;
    }
    Ok(ordered)
}

/// Copies from one server's device to another's. The bytes are there when this returns, or will be
/// before anything that is queued there from now on.
unsafe fn through_program(
    destination: CUdeviceptr,
    source: CUdeviceptr,
    bytes: usize,
    stream: Option<CUstream>,
) -> Result<(), CUresult> {
    let ordered = before_program((destination, bytes), (source, bytes), stream)?;
    let mut held = vec![0_u8; bytes.min(HELD)];
    for at in (0..bytes).step_by(HELD) {
        let piece = &mut held[..HELD.min(bytes - at)];
        let (memory, count) = (piece.as_mut_ptr().cast::<c_void>(), piece.len());
        // SAFETY: `piece` is that long, and both calls are done with it when they return.
        unsafe {
            to_host(memory, source + at as u64, count, ordered)?;
            to_device(destination + at as u64, memory, count, ordered)?;
        }
    }
    Ok(())
}

pub unsafe fn cuMemcpyDtoD_v2(
    destination: CUdeviceptr,
    source: CUdeviceptr,
    bytes: usize,
) -> CUresult {
    unsafe { on_device(destination, source, bytes, None) }
}

pub unsafe fn cuMemcpyDtoDAsync_v2(
    destination: CUdeviceptr,
    source: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    unsafe { on_device(destination, source, bytes, Some(stream)) }
}

/// Whether one server has all of a copy between two contexts.
fn is_between_own(
    (destination, to): (CUdeviceptr, CUcontext),
    (source, from): (CUdeviceptr, CUcontext),
    stream: Option<CUstream>,
) -> Result<bool, CUresult> {
    known(to)?;
    known(from)?;
    Ok(is_within_one(destination, source, stream)?
        && session_of(to as u64) == session_of(from as u64))
}

pub unsafe fn cuMemcpyPeer(
    destination: CUdeviceptr,
    to: CUcontext,
    source: CUdeviceptr,
    from: CUcontext,
    bytes: usize,
) -> CUresult {
    let own = sessions().and_then(|all| {
        Ok((
            all,
            is_between_own((destination, to), (source, from), None)?,
        ))
    });
    match own {
        Ok((sessions, true)) => {
            let _visit = Visit::to_memory(sessions, destination);
            unsafe { forward::cuMemcpyPeer(destination, to, source, from, bytes) }
        }
        Ok((_, false)) => unsafe { on_device(destination, source, bytes, None) },
        Err(code) => code,
    }
}

pub unsafe fn cuMemcpyPeerAsync(
    destination: CUdeviceptr,
    to: CUcontext,
    source: CUdeviceptr,
    from: CUcontext,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    let own =
        sessions().and_then(|_| is_between_own((destination, to), (source, from), Some(stream)));
    match own {
        Ok(true) => unsafe {
            forward::cuMemcpyPeerAsync(destination, to, source, from, bytes, stream)
        },
        Ok(false) => unsafe { on_device(destination, source, bytes, Some(stream)) },
        Err(code) => code,
    }
}
