//! Host memory that CUDA knows: page-locked memory and managed memory. Device addresses are addresses
//! of this process, so kernels reach both where they lie.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use harp_cuda_abi::types::{
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_OUT_OF_MEMORY,
};

use super::heap::next_id;
use super::window::PAGE;
use crate::call::Outcome;

/// How a range came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `cuMemHostAlloc`
    Allocated,
    /// `cuMemHostRegister`: the program's own memory.
    Registered,
    /// `cuMemAllocManaged`
    Managed,
}

/// One range of page-locked or managed memory.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    pub start: usize,
    pub size: usize,
    pub kind: Kind,
    /// As given to the call that made it.
    pub flags: u32,
    /// [`crate::context::Context::id`].
    pub context: u64,
    /// `CU_POINTER_ATTRIBUTE_BUFFER_ID`.
    pub id: u64,
}

impl Pinned {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.size
    }

    /// Whether `length` bytes from `address` lie in it.
    pub fn holds(&self, address: u64, length: u64) -> bool {
        let above = address.checked_sub(self.start as u64);
        above.is_some_and(|above| above <= self.size as u64 && length <= self.size as u64 - above)
    }
}

static PINNED: RwLock<BTreeMap<usize, Pinned>> = RwLock::new(BTreeMap::new());

/// Allocates zeroed memory, page-locked or managed.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for no bytes, `CUDA_ERROR_OUT_OF_MEMORY` where the system refuses.
pub fn allocate(size: usize, kind: Kind, flags: u32, context: u64) -> Outcome<usize> {
    if size == 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at an address of the system's choice.
    let mapped = unsafe { libc::mmap(core::ptr::null_mut(), size, access, private, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(CUDA_ERROR_OUT_OF_MEMORY);
    }
    let start = mapped as usize;
    let pinned = Pinned {
        start,
        size,
        kind,
        flags,
        context,
        id: next_id(),
    };
    PINNED
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(start, pinned);
    Ok(start)
}

/// Frees what [`allocate`] returned for the same `kind`.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where `start` is nothing of the kind.
pub fn free(start: usize, kind: Kind) -> Outcome {
    let mut pinned = PINNED.write().unwrap_or_else(PoisonError::into_inner);
    let size = pinned
        .get(&start)
        .filter(|range| range.kind == kind)
        .map(|range| range.size)
        .ok_or(CUDA_ERROR_INVALID_VALUE)?;
    pinned.remove(&start);
    // SAFETY: `allocate` mapped this range and the program gives it up.
    unsafe { libc::munmap(start as *mut _, size.next_multiple_of(PAGE as usize)) };
    Ok(())
}

/// Makes the program's own memory count as page-locked.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for an empty range, `CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED` where
/// a part of it is page-locked already.
pub fn register(start: usize, size: usize, flags: u32, context: u64) -> Outcome {
    let end = start
        .checked_add(size)
        .filter(|end| start != 0 && *end > start);
    let end = end.ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let mut pinned = PINNED.write().unwrap_or_else(PoisonError::into_inner);
    if pinned
        .range(..end)
        .next_back()
        .is_some_and(|(_, last)| last.range().end > start)
    {
        return Err(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    }
    pinned.insert(
        start,
        Pinned {
            start,
            size,
            kind: Kind::Registered,
            flags,
            context,
            id: next_id(),
        },
    );
    Ok(())
}

/// Undoes [`register`].
///
/// # Errors
/// `CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED` where `start` was not registered,
/// `CUDA_ERROR_INVALID_VALUE` within what was.
pub fn unregister(start: usize) -> Outcome {
    let registered = find(start).filter(|range| range.kind == Kind::Registered);
    if registered
        .ok_or(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)?
        .start
        != start
    {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let mut pinned = PINNED.write().unwrap_or_else(PoisonError::into_inner);
    pinned.remove(&start);
    Ok(())
}

/// The range that holds `address`.
pub fn find(address: usize) -> Option<Pinned> {
    let pinned = PINNED.read().unwrap_or_else(PoisonError::into_inner);
    let (_, range) = pinned.range(..=address).next_back()?;
    range.range().contains(&address).then_some(*range)
}

/// Ends what a destroyed context allocated or registered.
pub fn free_all_of(context: u64) {
    let owned: Vec<Pinned> = PINNED
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .values()
        .filter(|range| range.context == context)
        .copied()
        .collect();
    for range in owned {
        let _ = match range.kind {
            Kind::Registered => unregister(range.start),
            kind => free(range.start, kind),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_and_registered_ranges_are_told_apart() {
        let start = allocate(100, Kind::Allocated, 1, 77).unwrap();
        assert_eq!(find(start + 99).unwrap().flags, 1);
        assert!(find(start + 100).is_none());
        assert_eq!(
            unregister(start),
            Err(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)
        );
        assert_eq!(free(start, Kind::Managed), Err(CUDA_ERROR_INVALID_VALUE));
        free(start, Kind::Allocated).unwrap();
        assert_eq!(free(start, Kind::Allocated), Err(CUDA_ERROR_INVALID_VALUE));
        assert_eq!(
            allocate(0, Kind::Managed, 0, 77),
            Err(CUDA_ERROR_INVALID_VALUE)
        );
    }

    #[test]
    fn registrations_must_not_overlap() {
        register(0x1000_0000, 0x2000, 0, 78).unwrap();
        let again = register(0x1000_1fff, 0x2000, 0, 78);
        assert_eq!(again, Err(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED));
        register(0x1000_2000, 0x1000, 0, 78).unwrap();
        assert_eq!(unregister(0x1000_2800), Err(CUDA_ERROR_INVALID_VALUE));
        assert_eq!(
            free(0x1000_0000, Kind::Allocated),
            Err(CUDA_ERROR_INVALID_VALUE)
        );
        free_all_of(78);
        assert!(find(0x1000_0000).is_none() && find(0x1000_2000).is_none());
        assert_eq!(
            register(0x1000, usize::MAX, 0, 78),
            Err(CUDA_ERROR_INVALID_VALUE)
        );
    }
}
