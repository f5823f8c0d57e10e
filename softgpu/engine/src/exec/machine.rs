//! What an instruction can reach while it runs.

use std::ops::Range;

use super::fault::Violation;
use super::grid::GridState;
use super::heap;
use super::inst::Flags;
use super::kernel::Kernel;
use super::lanes::{Lanes, LANES};
use super::memory::{CachedRange, Known};
use super::windows;

/// The warp group that runs, and the block and grid around it.
pub struct Machine<'g> {
    pub lanes: Lanes,
    pub kernel: &'g Kernel,
    pub grid: &'g GridState,
    /// The block's shared memory.
    pub shared: *mut u8,
    pub shared_bytes: u32,
    /// Local memory of the group's first lane; each lane has `local_bytes`, one after the other.
    pub local: *mut u8,
    pub local_bytes: u32,
    /// Where the running function's frame starts in local memory.
    pub frame: u32,
    /// For each site, the allocation that it used last.
    pub ranges: &'g mut [CachedRange],
    /// Addresses of the runs of accesses that are under way.
    pub known: [Known; Flags::RUNS],
    /// Why the last operation failed, and in which warp and lane.
    pub violation: Option<(Violation, usize, usize)>,
    /// Coordinates of the block, and the group's first thread in it.
    pub block: [u32; 3],
    pub first_thread: u32,
}

impl Machine<'_> {
    /// Notes why the operation fails; always false.
    #[cold]
    #[inline(never)]
    pub fn fail(&mut self, violation: Violation, warp: usize, lane: usize) -> bool {
        self.violation = Some((violation, warp, lane));
        false
    }

    /// The allocation that holds `address`.
    #[cold]
    #[inline(never)]
    pub fn find_range(&self, address: u64) -> Option<Range<u64>> {
        let found = self
            .grid
            .memory
            .range_of(address)
            .or_else(|| heap::range_of(address));
        let found = found.or_else(|| self.grid.workspace_range(address))?;
        found.contains(&address).then_some(found)
    }

    /// The memory behind a generic address in one of the windows, for warp and lane `at`, and how
    /// many bytes are left there.
    pub fn windowed(&self, address: u64, at: (usize, usize)) -> Option<(*mut u8, u64)> {
        let within = |start: u64, bytes: u64| {
            let offset = address.wrapping_sub(start);
            (offset < bytes).then(|| (offset as usize, bytes - offset))
        };
        if let Some((offset, room)) = within(windows::SHARED, self.shared_bytes.into()) {
            return Some((self.shared.wrapping_add(offset), room));
        }
        if let Some((offset, room)) = within(windows::LOCAL, self.local_bytes.into()) {
            return Some((self.local_of(at).wrapping_add(offset), room));
        }
        let params = &self.grid.params;
        let (offset, room) = within(windows::PARAM, params.len() as u64 * 8)?;
        Some((
            params.as_ptr().cast::<u8>().cast_mut().wrapping_add(offset),
            room,
        ))
    }

    /// The local memory of a warp's lane.
    #[inline(always)]
    pub fn local_of(&self, (warp, lane): (usize, usize)) -> *mut u8 {
        self.local
            .wrapping_add((warp * LANES + lane) * self.local_bytes as usize)
    }

    /// Linear number in the block of a thread of the group.
    pub fn thread_number(&self, warp: usize, lane: usize) -> u32 {
        self.first_thread + (warp * LANES + lane) as u32
    }
}
