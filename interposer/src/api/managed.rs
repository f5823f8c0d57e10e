//! Memory of this process that kernels use: managed memory, and page-locked memory as the device sees
//! it. Both are kept as twins (`session::twins`).

use std::ffi::{c_uint, c_void};

use harp_cuda_abi::types::*;
use harp_driver_front::managed;
use harp_wire::twin::PAGE;
use harp_wire::Because;

use super::context::{current_context, current_device, Visit};
use super::copy::{check, result, settle};
use super::outputs::put;
use crate::generated::forward;
use crate::session::addresses::{Owner, Range};
use crate::session::{because, checks, sessions, twins, Session, Sessions};

/// The address that devices have of an allocation's first byte, which has a twin in this session from
/// now on. It is one address for all servers.
///
/// # Errors
/// What the server refuses a twin with: `CUDA_ERROR_OUT_OF_MEMORY`, `CUDA_ERROR_NOT_SUPPORTED`.
pub fn shared_with_device(session: &Session, range: &Range) -> Result<u64, CUresult> {
    let context = match range.owner {
        Owner::Device { .. } => return Ok(range.base),
        Owner::Managed { context, .. } | Owner::Host { context, .. } => context,
    };
    let (memory, bytes) = (range.base as usize, range.size as usize);
    // What lands there is the twin's from the beginning.
    settle(range.base)?;
    let address = match range.seen_at {
        Some(address) => address,
        None => sessions()?.addresses.seen_at(range.base, || {
            // The device sees the program's own memory at another address, as far into a page.
            let into_page = range.base % PAGE;
            let place = twins::place(bytes + into_page as usize, libc::PROT_NONE)?;
            Some(place as u64 + into_page)
        })?,
    };
    let is_there = || is_there(range);
    check(session.create_twin(address, memory, bytes, context, is_there))?;
    Ok(address)
}

/// Whether an allocation has not been freed.
fn is_there(range: &Range) -> bool {
    let found = sessions()
        .ok()
        .and_then(|all| all.addresses.find(range.base));
    found.is_some_and(|found| found.buffer_id == range.buffer_id)
}

/// Ends what [`shared_with_device`] began for an allocation that has just been forgotten, once the
/// device's work is over: the memory may be gone when this returns, whatever it returns.
///
/// # Errors
/// What waiting for the device fails with.
pub fn no_longer_shared(sessions: &Sessions, range: &Range) -> Result<(), CUresult> {
    let Some(address) = range.seen_at else {
        return Ok(());
    };
    let mut outcome = Ok(());
    for session in sessions.iter() {
        let Some(made_in) = session.twins.made_in(address) else {
            continue;
        };
        // Another server's work is waited for in the context that was current there.
        let made_in = made_in.filter(|_| sessions.several() && !session.is_current());
        let visits = made_in.is_some();
        let _visit = made_in.map(Visit::of);
        if current_context().is_ok() {
            // SAFETY: no arguments.
            let waited = because(Because::Shared, || unsafe { forward::cuCtxSynchronize() });
            outcome = match waited {
                // Another thread has ended it: there is no more work.
                CUDA_ERROR_INVALID_CONTEXT | CUDA_ERROR_CONTEXT_IS_DESTROYED if visits => outcome,
                waited => outcome.and(check(waited)),
            };
        }
        session.destroy_twin(address);
    }
    if address != range.base {
        let start = address / PAGE * PAGE;
        // SAFETY: the addresses that `shared_with_device` set aside for this allocation.
        unsafe { twins::vacate(start, address + range.size - start) };
    }
    outcome
}

pub unsafe fn cuMemAllocManaged(
    pointer: *mut CUdeviceptr,
    bytes: usize,
    flags: c_uint,
) -> CUresult {
    if pointer.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let allocated = || {
        let session = checks::context()?;
        let (context, device) = (current_context()? as u64, current_device()?);
        if bytes == 0 || !managed::may_be_allocated(flags) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let memory = twins::place(bytes, access).ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
        let base = memory as u64;
        let created = session.create_twin(base, memory as usize, bytes, context, || true);
        if created != CUDA_SUCCESS {
            session.destroy_twin(base);
            // SAFETY: just mapped, and nobody knows of it.
            unsafe { twins::vacate(base, bytes as u64) };
            return Err(created);
        }
        let owner = Owner::Managed { device, context };
        sessions()?.addresses.insert(base, bytes as u64, owner);
        Ok(base)
    };
    match allocated() {
        Ok(base) => unsafe { put(pointer, base) },
        Err(code) => code,
    }
}

/// Frees memory that was [placed](twins::place), of such an owner, if it starts at `base`.
pub fn free(sessions: &Sessions, base: u64, is_wanted: impl Fn(&Owner) -> bool) -> CUresult {
    let Some(range) = sessions.addresses.remove(base, is_wanted) else {
        return CUDA_ERROR_INVALID_VALUE;
    };
    let ended = no_longer_shared(sessions, &range);
    // SAFETY: placed with this length, and forgotten just now.
    unsafe { twins::vacate(base, range.size) };
    result(ended)
}

pub unsafe fn cuMemHostGetDevicePointer_v2(
    address: *mut CUdeviceptr,
    pointer: *mut c_void,
    flags: c_uint,
) -> CUresult {
    if address.is_null() || flags != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let found = || {
        let session = checks::context()?;
        let range = sessions()?.addresses.find(pointer as u64);
        let range = range.filter(|range| matches!(range.owner, Owner::Host { .. }));
        let range = range.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let base = shared_with_device(session, &range)?;
        Ok(base + (pointer as u64 - range.base))
    };
    match found() {
        Ok(found) => unsafe { put(address, found) },
        Err(code) => code,
    }
}

pub unsafe fn cuStreamAttachMemAsync(
    stream: CUstream,
    pointer: CUdeviceptr,
    bytes: usize,
    flags: c_uint,
) -> CUresult {
    let attached = || {
        checks::stream(stream)?;
        let range = sessions()?.addresses.find_managed(pointer, 0);
        let range = range.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let allocation = range.base..range.base + range.size;
        managed::attach(allocation, pointer, bytes as u64, flags, stream)
    };
    result(attached())
}

/// Memory moves to devices that can take faults on it, which these cannot.
pub unsafe fn cuMemPrefetchAsync(
    pointer: CUdeviceptr,
    bytes: usize,
    _device: CUdevice,
    stream: CUstream,
) -> CUresult {
    let refused = || {
        checks::stream(stream)?;
        let found = sessions()?.addresses.find_managed(pointer, bytes as u64);
        Err(match found {
            Some(_) => CUDA_ERROR_INVALID_DEVICE,
            None => CUDA_ERROR_INVALID_VALUE,
        })
    };
    result(refused())
}

pub unsafe fn cuMemAdvise(
    pointer: CUdeviceptr,
    bytes: usize,
    advice: CUmem_advise,
    device: CUdevice,
) -> CUresult {
    let taken = || {
        checks::context()?;
        let found = sessions()?.addresses.find_managed(pointer, bytes as u64);
        found.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        managed::advise(advice, device)
    };
    result(taken())
}

/// The registered memory that the devices of another server may have seen at `address` first.
pub fn shown_to_another(sessions: &Sessions, address: u64) -> Option<Range> {
    if !sessions.several() {
        return None;
    }
    sessions.addresses.find_as_seen(address)
}

/// What a launch does before it goes: page-locked memory that its parameters point to gets a twin,
/// and the device sees what the program has written.
///
/// # Errors
/// As for [`shared_with_device`].
pub fn before_launch(
    sessions: &Sessions,
    session: &Session,
    parameters: &[u8],
) -> Result<(), CUresult> {
    if sessions.several() {
        let made = sessions.addresses.managed_made();
        if session.twins.are_behind(made) {
            // The kernel may find pointers to managed memory in any memory that it reads.
            for range in sessions.addresses.managed() {
                match shared_with_device(session, &range) {
                    // Another thread has freed it.
                    Err(_) if !is_there(&range) => continue,
                    shared => shared?,
                };
            }
            session.twins.have_caught_up(made);
        }
    }
    let words = parameters.chunks_exact(8);
    for word in words.map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes"))) {
        if twins::is_placed(word) {
            let found = sessions.addresses.find(word);
            if let Some(range) = found.or_else(|| shown_to_another(sessions, word)) {
                shared_with_device(session, &range)?;
            }
        }
    }
    check(session.push_twins())
}
