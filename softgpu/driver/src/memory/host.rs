//! Page-locked host memory: plain memory that transfers may use after the call returned.

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

/// One range of page-locked memory.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    pub start: usize,
    pub size: usize,
    /// As given to `cuMemHostAlloc` or `cuMemHostRegister`.
    pub flags: u32,
    /// Allocated by this driver, as against registered by the program.
    pub owned: bool,
    /// [`crate::context::Context::id`].
    pub context: u64,
    /// `CU_POINTER_ATTRIBUTE_BUFFER_ID`.
    pub id: u64,
}

impl Pinned {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.size
    }
}

static PINNED: RwLock<BTreeMap<usize, Pinned>> = RwLock::new(BTreeMap::new());

/// Allocates zeroed page-locked memory.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for no bytes, `CUDA_ERROR_OUT_OF_MEMORY` where the system refuses.
pub fn allocate(size: usize, flags: u32, context: u64) -> Outcome<usize> {
    if size == 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at an address of the system's choice.
    let mapped = unsafe { libc::mmap(core::ptr::null_mut(), size, access, kind, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(CUDA_ERROR_OUT_OF_MEMORY);
    }
    let start = mapped as usize;
    let pinned = Pinned {
        start,
        size,
        flags,
        owned: true,
        context,
        id: next_id(),
    };
    PINNED
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(start, pinned);
    Ok(start)
}

/// Frees what [`allocate`] returned.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where `start` is nothing of the kind.
pub fn free(start: usize) -> Outcome {
    let mut pinned = PINNED.write().unwrap_or_else(PoisonError::into_inner);
    let size = pinned
        .get(&start)
        .filter(|range| range.owned)
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
            flags,
            owned: false,
            context,
            id: next_id(),
        },
    );
    Ok(())
}

/// Undoes [`register`].
///
/// # Errors
/// `CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED` where `start` was not registered.
pub fn unregister(start: usize) -> Outcome {
    let mut pinned = PINNED.write().unwrap_or_else(PoisonError::into_inner);
    if pinned.get(&start).is_none_or(|range| range.owned) {
        return Err(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    }
    pinned.remove(&start);
    Ok(())
}

/// The page-locked range that holds `address`.
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
        let _ = if range.owned {
            free(range.start)
        } else {
            unregister(range.start)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocated_and_registered_ranges_are_told_apart() {
        let start = allocate(100, 1, 77).unwrap();
        assert_eq!(find(start + 99).unwrap().flags, 1);
        assert!(find(start + 100).is_none());
        assert_eq!(
            unregister(start),
            Err(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)
        );
        free(start).unwrap();
        assert_eq!(free(start), Err(CUDA_ERROR_INVALID_VALUE));
        assert_eq!(allocate(0, 0, 77), Err(CUDA_ERROR_INVALID_VALUE));
    }

    #[test]
    fn registrations_must_not_overlap() {
        register(0x1000_0000, 0x2000, 0, 78).unwrap();
        let again = register(0x1000_1fff, 0x2000, 0, 78);
        assert_eq!(again, Err(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED));
        register(0x1000_2000, 0x1000, 0, 78).unwrap();
        assert_eq!(free(0x1000_0000), Err(CUDA_ERROR_INVALID_VALUE));
        free_all_of(78);
        assert!(find(0x1000_0000).is_none() && find(0x1000_2000).is_none());
        assert_eq!(
            register(0x1000, usize::MAX, 0, 78),
            Err(CUDA_ERROR_INVALID_VALUE)
        );
    }
}
