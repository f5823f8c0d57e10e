//! The program's side of memory that kernels share with it (`harp_wire::twin`).
//!
//! What the program has changed is sent before every call that queues work or waits for it; what the
//! device has changed is fetched after every call that has waited. Between these the two sides do not
//! see each other, as with devices that do not share page tables with the host: a kernel that runs
//! while the program spins on what it writes is not seen before the program waits.
//!
//! Each session has twins of its own, all of them at the addresses that the first one got, so memory
//! that devices of several servers use has one in each: what one server's device has changed is in the
//! program's memory after a wait, and from there goes to the others before their next work.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_cuda_abi::types::*;
use harp_driver_front::address_map::AddressMap;
use harp_wire::twin::{collect, lines, LINE, PAGE, REGION};
use harp_wire::{calls, CallId, Encoder};

use super::handles::session_of;
use super::{outcome, Session};
use crate::api::{is_alive, Visit};

/// Changes leave in records of about this many bytes.
const PIECE: usize = 1 << 20;
/// Places that are tried for new memory before giving up.
const TRIES: usize = 64;
/// Distance between places, so that an overrun of one does not reach the next.
const STEP: u64 = 64 << 10;

/// The twins of a session by the first address that its devices have for them.
#[derive(Debug, Default)]
pub struct Twins {
    any: AtomicBool,
    /// How many managed allocations of the process had been made when all of them had twins here.
    known: AtomicU64,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    by_address: BTreeMap<u64, Twin>,
    /// Their addresses by that of the program's memory: no two have any of it in common.
    by_memory: AddressMap<u64>,
}

impl All {
    fn insert(&mut self, address: u64, twin: Twin) {
        self.by_memory.insert(twin.memory as u64, address);
        self.by_address.insert(address, twin);
    }

    fn remove(&mut self, address: u64) -> bool {
        let removed = self.by_address.remove(&address);
        if let Some(twin) = &removed {
            self.by_memory.remove(twin.memory as u64);
        }
        removed.is_some()
    }

    /// Where the device sees the program's memory at `pointer`.
    fn address_of(&self, pointer: usize) -> Option<u64> {
        let (memory, address) = self.by_memory.at_or_below(pointer as u64)?;
        let above = pointer - memory as usize;
        let twin = self.by_address.get(address)?;
        (above < twin.shadow.len()).then_some(address + above as u64)
    }
}

#[derive(Debug)]
struct Twin {
    /// The program's memory: at the same address, or elsewhere where it registered its own.
    memory: usize,
    /// What both sides agreed on last.
    shadow: Vec<u8>,
    /// Whose memory it is: the twin ends with this context.
    context: u64,
    /// The context of this session that the server made it in, with which it ends there: the memory's own
    /// where that is one of this session's, else the one that was current.
    made_in: Option<u64>,
}

/// Calls after which earlier work is known to be over, and before which what the program has written
/// must be there.
fn is_fence(call: CallId) -> bool {
    matches!(
        call,
        CallId::cuStreamSynchronize
            | CallId::cuCtxSynchronize
            | CallId::cuEventSynchronize
            | CallId::cuStreamQuery
            | CallId::cuEventQuery
            | CallId::cuMemFree_v2
    )
}

impl Twins {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are any; the usual case is that there are none.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Where the device sees the program's memory at `pointer`, if it has a twin.
    pub fn device_address(&self, pointer: usize) -> Option<u64> {
        if !self.any() {
            return None;
        }
        self.lock().address_of(pointer)
    }

    /// Of a twin at `address`: the context that it was made in, if in one.
    pub fn made_in(&self, address: u64) -> Option<Option<u64>> {
        Some(self.lock().by_address.get(&address)?.made_in)
    }

    /// Whether managed memory may be without twins here, of which the process has `made` so many.
    pub fn are_behind(&self, made: u64) -> bool {
        self.known.load(Ordering::Relaxed) < made
    }

    /// The first `made` managed allocations have twins, as far as they are still there.
    pub fn have_caught_up(&self, made: u64) {
        self.known.fetch_max(made, Ordering::Relaxed);
    }

    /// Whether the device sees one allocation of the program at all of `address..address + bytes`.
    pub fn holds(&self, address: u64, bytes: u64) -> bool {
        if !self.any() || !is_placed(address) {
            return false;
        }
        let all = self.lock();
        let found = all.by_address.range(..=address).next_back();
        found.is_some_and(|(base, twin)| {
            let room = (twin.shadow.len() as u64).checked_sub(address - base);
            room.is_some_and(|room| room > 0 && bytes <= room)
        })
    }
}

impl Session {
    /// Makes the server's twin of `bytes` at `memory`, which the device is to see at `address`.
    /// Both are the same for memory that was [placed](place). Where an earlier call's error comes with the
    /// answer, the twin is there all the same. `is_there` says whether the memory still is: whoever frees it
    /// makes that false first, and then ends its twins.
    pub fn create_twin(
        &self,
        address: u64,
        memory: usize,
        bytes: usize,
        context: u64,
        is_there: impl FnOnce() -> bool,
    ) -> CUresult {
        let mut all = self.twins.lock();
        if all.by_address.contains_key(&address) {
            return CUDA_SUCCESS;
        }
        let base = address / PAGE * PAGE;
        let pages = (address + bytes as u64).next_multiple_of(PAGE) - base;
        let own = session_of(context) == self.number && is_alive(context);
        let _visit = own.then(|| Visit::of(context));
        let encode = |encoder: &mut Encoder| calls::encode_harp_twin_create(encoder, base, pages);
        let asked = self.ask(CallId::harp_twin_create, encode, None);
        let reply = match asked.and_then(|ticket| self.wait(ticket)) {
            Ok(reply) => reply,
            Err(code) => return code,
        };
        if reply.status == CUDA_SUCCESS {
            if !is_there() {
                self.end_twin(address);
                return CUDA_ERROR_INVALID_VALUE;
            }
            let shadow = vec![0; bytes];
            all.insert(
                address,
                Twin {
                    memory,
                    shadow,
                    context,
                    made_in: self.current(),
                },
            );
            self.twins.any.store(true, Ordering::Relaxed);
        }
        outcome(&reply)
    }

    /// Ends the server's twin at `address`, if there is one. Whoever calls has waited for the device.
    pub fn destroy_twin(&self, address: u64) {
        let mut all = self.twins.lock();
        if all.remove(address) {
            self.end_twin(address);
        }
        self.twins
            .any
            .store(!all.by_address.is_empty(), Ordering::Relaxed);
    }

    /// Ends the twins of a context that has ended, and those that have ended with it on the server: of memory
    /// that is still there new ones are made when a device is to see it again.
    pub fn end_twins_of(&self, context: u64) {
        if !self.twins.any() {
            return;
        }
        let mut all = self.twins.lock();
        let ends = |twin: &Twin| twin.context == context || twin.made_in == Some(context);
        let ended = all.by_address.iter().filter(|(_, twin)| ends(twin));
        let ended: Vec<u64> = ended.map(|(address, _)| *address).collect();
        for address in ended {
            all.remove(address);
            self.end_twin(address);
            self.twins.known.store(0, Ordering::Relaxed);
        }
        self.twins
            .any
            .store(!all.by_address.is_empty(), Ordering::Relaxed);
    }

    /// Sends what the program has changed.
    pub fn push_twins(&self) -> CUresult {
        if !self.twins.any() {
            return CUDA_SUCCESS;
        }
        let mut changed = Vec::new();
        // Until all is sent: another thread finds nothing to send, and launches.
        let mut all = self.twins.lock();
        for (address, twin) in &mut all.by_address {
            let (memory, shadow) = (twin.memory as *const u8, &mut twin.shadow);
            let mut from = 0;
            while from < shadow.len() {
                // SAFETY: the program keeps its memory until it is unregistered or freed, which ends the twin.
                from = unsafe { collect(memory, *address, shadow, from, PIECE, &mut changed) };
                if changed.len() >= PIECE {
                    let status = self.send_changes(&mut changed);
                    if status != CUDA_SUCCESS {
                        return status;
                    }
                }
            }
        }
        self.send_changes(&mut changed)
    }

    /// Fetches what the device has changed.
    pub fn pull_twins(&self) -> CUresult {
        if !self.twins.any() {
            return CUDA_SUCCESS;
        }
        let mut all = self.twins.lock();
        let mut cursor = 0;
        loop {
            let (mut next, mut sound) = (0, true);
            let status = self.request(
                CallId::harp_twin_read,
                |encoder| calls::encode_harp_twin_read(encoder, cursor),
                |decoder| {
                    let reply = calls::HarpTwinReadReply::read(decoder);
                    next = reply.next;
                    sound = store(&mut all.by_address, reply.lines);
                },
            );
            if status != CUDA_SUCCESS {
                return status;
            }
            if next == 0 || next <= cursor || !sound {
                return if sound {
                    CUDA_SUCCESS
                } else {
                    CUDA_ERROR_UNKNOWN
                };
            }
            cursor = next;
        }
    }

    fn send_changes(&self, changed: &mut Vec<u8>) -> CUresult {
        if changed.is_empty() {
            return CUDA_SUCCESS;
        }
        let status = self.one_way_bytes(CallId::harp_twin_write, |_| (), changed);
        changed.clear();
        status
    }

    fn end_twin(&self, address: u64) {
        let _ = self.one_way(CallId::harp_twin_destroy, |encoder| {
            calls::encode_harp_twin_destroy(encoder, address / PAGE * PAGE);
        });
    }

    /// What a fence does before: everything that the program has written goes ahead of it.
    #[inline]
    pub(super) fn twins_before(&self, call: CallId) -> CUresult {
        match self.twins.any() && is_fence(call) {
            true => self.push_twins(),
            false => CUDA_SUCCESS,
        }
    }

    /// What a fence does after it succeeded.
    #[inline]
    pub(super) fn twins_after(&self, call: CallId) -> CUresult {
        match self.twins.any() && is_fence(call) {
            true => self.pull_twins(),
            false => CUDA_SUCCESS,
        }
    }
}

/// Stores changes; false if the server sent what are none. What lies in the same page as the program's
/// memory, but not in it, is left alone.
fn store(all: &mut BTreeMap<u64, Twin>, changed: &[u8]) -> bool {
    for line in lines(changed) {
        let Some(line) = line else { return false };
        // Twins are far apart: a line touches one of them.
        let end = line.address.saturating_add(LINE as u64 - 1);
        let Some((base, twin)) = all.range_mut(..=end).next_back() else {
            continue;
        };
        for (address, byte) in line.bytes() {
            let offset = address.wrapping_sub(*base) as usize;
            if let Some(known) = twin.shadow.get_mut(offset) {
                *known = byte;
                // SAFETY: within the program's memory, which it keeps until the twin has ended.
                unsafe { ((twin.memory + offset) as *mut u8).write_volatile(byte) };
            }
        }
    }
    true
}

/// Maps `bytes` of zeroed memory at an address that a worker can map too; without access where only
/// the addresses are wanted.
pub fn place(bytes: usize, access: i32) -> Option<*mut c_void> {
    static NEXT: AtomicU64 = AtomicU64::new(REGION.start);
    let pages = (bytes as u64).checked_next_multiple_of(PAGE)?;
    let step = pages.checked_next_multiple_of(STEP)?.checked_add(STEP)?;
    if step > REGION.end - REGION.start {
        return None;
    }
    for _ in 0..TRIES {
        let base = NEXT.fetch_add(step, Ordering::Relaxed);
        if base + step > REGION.end {
            // Freed places are used again once the region has been gone through.
            NEXT.store(REGION.start, Ordering::Relaxed);
            continue;
        }
        let flags = libc::MAP_PRIVATE
            | libc::MAP_ANONYMOUS
            | libc::MAP_NORESERVE
            | libc::MAP_FIXED_NOREPLACE;
        let wanted = base as *mut c_void;
        // SAFETY: MAP_FIXED_NOREPLACE touches no other mapping.
        let mapped = unsafe { libc::mmap(wanted, pages as usize, access, flags, -1, 0) };
        if mapped == wanted {
            return Some(mapped);
        }
        if mapped != libc::MAP_FAILED {
            // SAFETY: just mapped, somewhere else, by a kernel that does not know the flag.
            unsafe { libc::munmap(mapped, pages as usize) };
            return None;
        }
    }
    None
}

/// Unmaps what [`place`] has mapped for as many bytes.
///
/// # Safety
/// Nobody uses the memory any more.
pub unsafe fn vacate(base: u64, bytes: u64) {
    let pages = bytes.next_multiple_of(PAGE) as usize;
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(base as *mut c_void, pages) };
}

/// Whether memory at `address` was [placed](place), so that its twin can have the same address.
#[inline]
pub fn is_placed(address: u64) -> bool {
    REGION.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_behind_until_they_have_caught_up() {
        let twins = Twins::default();
        assert!(!twins.are_behind(0));
        assert!(twins.are_behind(2));
        assert!(twins.are_behind(2), "asking makes no twins");
        twins.have_caught_up(2);
        assert!(!twins.are_behind(2) && twins.are_behind(3));
        // Another thread that had seen fewer is done.
        twins.have_caught_up(1);
        assert!(!twins.are_behind(2));
    }

    #[test]
    fn memory_is_found_where_the_device_has_it() {
        let twins = Twins::default();
        let twin = |memory, bytes| Twin {
            memory,
            shadow: vec![0; bytes],
            context: 1,
            made_in: None,
        };
        twins.any.store(true, Ordering::Relaxed);
        // In another order there than here.
        twins.lock().insert(0x9000, twin(0x1000, 0x100));
        twins.lock().insert(0x5000, twin(0x2000, 0x100));
        assert_eq!(twins.device_address(0x1010), Some(0x9010));
        assert_eq!(twins.device_address(0x20ff), Some(0x50ff));
        for outside in [0xfff, 0x1100, 0x1fff, 0x2100] {
            assert_eq!(twins.device_address(outside), None, "{outside:#x}");
        }
        assert!(twins.lock().remove(0x5000) && !twins.lock().remove(0x5000));
        assert_eq!(twins.device_address(0x2010), None);
        assert_eq!(twins.device_address(0x1010), Some(0x9010));
    }
}
