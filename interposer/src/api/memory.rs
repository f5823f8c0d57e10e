//! Device memory: allocated on the server, remembered here so that its bounds are known.

use std::ffi::c_uint;

use harp_cuda_abi::types::*;
use harp_driver_front::notice_once;
use harp_wire::calls::encode_cuMemFree_v2;
use harp_wire::{Because, CallId};

use super::context::{credit_of, current_context, device_of, Visit};
use super::outputs::{put, put_if_wanted};
use super::stream::context_of;
use crate::generated::forward;
use crate::session::addresses::{Owner, Range};
use crate::session::credit::Credit;
use crate::session::{because, checks, sessions, Session, Sessions};

/// Remembers device memory of a context.
///
/// # Errors
/// `CUDA_ERROR_OUT_OF_MEMORY`, and a line on stderr, where another server has memory at the same
/// addresses: the program could not tell them apart.
pub fn remember(
    sessions: &Sessions,
    context: u64,
    address: CUdeviceptr,
    bytes: usize,
) -> Result<(), CUresult> {
    let own = sessions.of(context);
    let device = device_of(context);
    let owner = Owner::Device { device, context };
    let bytes = bytes as u64;
    if !sessions.several() {
        sessions.addresses.insert(address, bytes, owner);
        return Ok(());
    }
    let other_session = |range: &Range| {
        let home = sessions.of_range(range);
        home.filter(|home| home.number != own.number)
    };
    let remembered = sessions
        .addresses
        .insert_unless(address, bytes, owner, |range| {
            other_session(range).is_some()
        });
    remembered.map_err(|taken| {
        let other = other_session(&taken).map_or("another server", |other| &other.server);
        notice_once(&format!(
            "the devices of {} and {other} have given out the same address {address:#x}, and a \
             program cannot use both: run it again, or on devices of one server",
            own.server
        ));
        CUDA_ERROR_OUT_OF_MEMORY
    })
}

/// An allocation by `allocate`, remembered on success as the context's of a stream, which may be a default
/// one; `free` takes one back that cannot be used.
unsafe fn allocated(
    pointer: *mut CUdeviceptr,
    bytes: usize,
    stream: CUstream,
    allocate: impl FnOnce(*mut CUdeviceptr) -> CUresult,
    free: impl FnOnce(CUdeviceptr) -> CUresult,
) -> CUresult {
    if pointer.is_null() || bytes == 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let found = || {
        let sessions = sessions()?;
        current_context()?;
        Ok((sessions, context_of(stream)?))
    };
    let (sessions, context) = match found() {
        Ok(both) => both,
        Err(code) => return code,
    };
    let mut address = 0;
    let status = allocate(&mut address);
    if status != CUDA_SUCCESS {
        if address != 0 {
            // The memory is there: what has failed is an earlier call.
            free(address);
        }
        return status;
    }
    if let Err(code) = remember(sessions, context, address, bytes) {
        free(address);
        return code;
    }
    unsafe { put(pointer, address) }
}

pub unsafe fn cuMemAlloc_v2(pointer: *mut CUdeviceptr, bytes: usize) -> CUresult {
    unsafe {
        allocated(
            pointer,
            bytes,
            std::ptr::null_mut(),
            |address| match from_credit(bytes) {
                Some(Ok(given)) => put(address, given),
                Some(Err(code)) => code,
                None => from_server(address, bytes),
            },
            free_here,
        )
    }
}

/// The credit of the current context, if there is one.
fn credit_here() -> Option<&'static Credit> {
    let context = current_context().ok()? as u64;
    // Of a device that has failed the server says what it says.
    sessions().ok()?.of(context).check_fault().ok()?;
    credit_of(context)
}

fn free_here(address: CUdeviceptr) -> CUresult {
    match checks::context() {
        Ok(session) => unsafe { forward::cuMemFree_v2(session, address) },
        Err(code) => code,
    }
}

/// Memory in the current context that needs no question, but for one in many. None where it is to be asked for.
fn from_credit(bytes: usize) -> Option<Result<CUdeviceptr, CUresult>> {
    let credit = credit_here()?;
    if let Some(given) = credit.take(bytes) {
        return Some(Ok(given));
    }
    let size = credit.lacking(bytes)?;
    let mut base = 0;
    let status = unsafe { forward::cuMemAlloc_v2(&mut base, size) };
    if base != 0 && (status != CUDA_SUCCESS || !credit.add(base, size as u64)) {
        free_here(base);
    }
    match status {
        CUDA_SUCCESS => credit.take(bytes).map(Ok),
        // There may be room for what was asked for.
        CUDA_ERROR_OUT_OF_MEMORY => None,
        // An earlier call has failed.
        code => Some(Err(code)),
    }
}

/// Memory that the server is asked for; where there is none, once more without what is held here unused.
fn from_server(address: *mut CUdeviceptr, bytes: usize) -> CUresult {
    let status = unsafe { forward::cuMemAlloc_v2(address, bytes) };
    if status != CUDA_ERROR_OUT_OF_MEMORY {
        return status;
    }
    let unused = || credit_here()?.take_unused(0);
    let Some(first) = unused() else { return status };
    std::iter::once(first)
        .chain(std::iter::from_fn(unused))
        .for_each(|base| {
            free_here(base);
        });
    unsafe { forward::cuMemAlloc_v2(address, bytes) }
}

/// The credit that an allocation was taken from.
fn credit_behind(range: &Range) -> Option<&'static Credit> {
    let Owner::Device { context, .. } = range.owner else {
        return None;
    };
    credit_of(context).filter(|credit| credit.holds(range.base))
}

pub unsafe fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CUresult {
    let mut unused = 0;
    let status = unsafe { forward::cuMemGetInfo_v2(&mut unused, total) };
    if status == CUDA_SUCCESS {
        let credit = current_context().map(|context| credit_of(context as u64));
        unused += credit.ok().flatten().map_or(0, Credit::left) as usize;
        unsafe { put_if_wanted(free, unused) };
    }
    status
}

pub unsafe fn cuMemAllocPitch_v2(
    pointer: *mut CUdeviceptr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element: c_uint,
) -> CUresult {
    /// Rows start at multiples of this many bytes, as the driver aligns them.
    const PITCH_ALIGNMENT: usize = 512;
    if pitch.is_null() || width == 0 || height == 0 || !matches!(element, 4 | 8 | 16) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let row = width.next_multiple_of(PITCH_ALIGNMENT);
    let Some(bytes) = row.checked_mul(height) else {
        return CUDA_ERROR_OUT_OF_MEMORY;
    };
    let status = unsafe { cuMemAlloc_v2(pointer, bytes) };
    if status != CUDA_SUCCESS {
        return status;
    }
    unsafe { put(pitch, row) }
}

pub unsafe fn cuMemFree_v2(pointer: CUdeviceptr) -> CUresult {
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    // Without a current context it frees as with one.
    if let Err(CUDA_ERROR_CONTEXT_IS_DESTROYED) = current_context() {
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    if pointer == 0 {
        return CUDA_SUCCESS;
    }
    let known = sessions.addresses.find(pointer);
    if known.is_some_and(|range| matches!(range.owner, Owner::Managed { .. })) {
        let is_managed = |owner: &Owner| matches!(owner, Owner::Managed { .. });
        return super::managed::free(sessions, pointer, is_managed);
    }
    let _visit = Visit::to_memory(sessions, pointer);
    // Forgotten before the server frees it: from then on another thread may get this address.
    let Some(context) = sessions.addresses.remove_device(pointer) else {
        return CUDA_ERROR_INVALID_VALUE;
    };
    let _visit = Visit::of(context);
    let session = sessions.of(context);
    let credit = known.and_then(|range| Some((range, credit_behind(&range)?)));
    // As the driver does, it waits for the device, unless that is known to have nothing left to do. Where there are
    // several servers it is not, and the driver's own waiting is enough.
    let waited = match session.idle(context) {
        None if credit.is_some() || !sessions.several() => {
            because(Because::Free, || session.wait_until_idle(context))
        }
        _ => CUDA_SUCCESS,
    };
    // What it has waited for may have failed: the memory goes even so.
    let freed = match credit {
        None => free(session, context, pointer),
        Some((range, credit)) => give_back(session, context, &range, credit),
    };
    match waited {
        CUDA_SUCCESS => freed,
        code => code,
    }
}

/// Gives memory back to the credit of the current context that it was taken from, once nothing uses it.
fn give_back(session: &Session, context: u64, range: &Range, credit: &Credit) -> CUresult {
    credit.give_back(range.base, range.size);
    // One unused block is kept, so that who allocates and frees where a block ends does not ask each time.
    let unused = credit.take_unused(1);
    unused.map_or(CUDA_SUCCESS, |address| free(session, context, address))
}

/// Frees memory of the current context, which needs no answer where nothing uses it.
fn free(session: &Session, context: u64, address: CUdeviceptr) -> CUresult {
    match session.idle(context) {
        Some(still) => session.stays_idle(still, || {
            session.one_way(CallId::cuMemFree_v2, |e| encode_cuMemFree_v2(e, address))
        }),
        None => unsafe { forward::cuMemFree_v2(session, address) },
    }
}

pub unsafe fn cuMemAllocAsync(
    pointer: *mut CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    unsafe {
        allocated(
            pointer,
            bytes,
            stream,
            |address| forward::cuMemAllocAsync(address, bytes, stream),
            |address| forward::cuMemFreeAsync(address, stream),
        )
    }
}

pub unsafe fn cuMemAllocFromPoolAsync(
    pointer: *mut CUdeviceptr,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CUresult {
    unsafe {
        allocated(
            pointer,
            bytes,
            stream,
            |address| forward::cuMemAllocFromPoolAsync(address, bytes, pool, stream),
            |address| forward::cuMemFreeAsync(address, stream),
        )
    }
}

pub unsafe fn cuMemFreeAsync(pointer: CUdeviceptr, stream: CUstream) -> CUresult {
    let freed = || {
        let (session, _) = checks::stream(stream)?;
        let sessions = sessions()?;
        if sessions.several() {
            // The memory of another server's device is not this stream's to free.
            checks::device_span(session, pointer, 0)?;
        }
        let known = sessions.addresses.find(pointer);
        let context = sessions.addresses.remove_device(pointer);
        let context = context.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let credit = known.and_then(|range| Some((range, credit_behind(&range)?)));
        Ok((session, context, credit))
    };
    match freed() {
        // The server knows nothing of it: it is free when the stream gets here.
        Ok((session, context, Some((range, credit)))) => {
            let waited = because(Because::Free, || unsafe {
                forward::cuStreamSynchronize(stream)
            });
            let _visit = Visit::of(context);
            match give_back(session, context, &range, credit) {
                CUDA_SUCCESS => waited,
                code => code,
            }
        }
        Ok((_, _, None)) => unsafe { forward::cuMemFreeAsync(pointer, stream) },
        Err(code) => code,
    }
}

pub unsafe fn cuMemGetAddressRange_v2(
    base: *mut CUdeviceptr,
    size: *mut usize,
    pointer: CUdeviceptr,
) -> CUresult {
    match sessions().map(|sessions| sessions.addresses.find(pointer)) {
        Ok(Some(range)) => unsafe {
            put_if_wanted(base, range.base);
            put_if_wanted(size, range.size as usize);
            CUDA_SUCCESS
        },
        Ok(None) => CUDA_ERROR_NOT_FOUND,
        Err(code) => code,
    }
}
