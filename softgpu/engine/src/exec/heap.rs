//! The device heap: what `malloc` in device code returns.
//!
//! It belongs to the process, because what one kernel allocates another may free.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that device code may have allocated at once: CUDA's default for
/// `CU_LIMIT_MALLOC_HEAP_SIZE`.
const LIMIT: u64 = 8 << 20;

/// One allocation, in units that give it `malloc`'s alignment.
type Chunk = Box<[u128]>;

struct Heap {
    chunks: BTreeMap<u64, (u64, Chunk)>,
    used: u64,
}

static HEAP: Mutex<Heap> = Mutex::new(Heap {
    chunks: BTreeMap::new(),
    used: 0,
});

fn heap() -> MutexGuard<'static, Heap> {
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Allocates zeroed memory; 0 if the heap is full.
pub fn allocate(bytes: u64) -> u64 {
    let mut heap = heap();
    if bytes == 0 || bytes > LIMIT - heap.used.min(LIMIT) {
        return 0;
    }
    let mut chunk = vec![0u128; bytes.div_ceil(16) as usize].into_boxed_slice();
    let address = chunk.as_mut_ptr().expose_provenance() as u64;
    heap.used += bytes;
    heap.chunks.insert(address, (bytes, chunk));
    address
}

/// Frees what [`allocate`] returned; false if it did not.
pub fn release(address: u64) -> bool {
    let mut heap = heap();
    match heap.chunks.remove(&address) {
        Some((bytes, _)) => {
            heap.used -= bytes;
            true
        }
        None => address == 0,
    }
}

/// The allocation that holds `address`.
pub fn range_of(address: u64) -> Option<Range<u64>> {
    let heap = heap();
    let (&start, (bytes, _)) = heap.chunks.range(..=address).next_back()?;
    (address - start < *bytes).then(|| start..start + bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_found_until_they_are_freed() {
        let address = allocate(24);
        assert_ne!(address, 0);
        assert_eq!(range_of(address + 23), Some(address..address + 24));
        assert_eq!(
            range_of(address + 24).map(|range| range.start == address),
            None
        );
        assert!(release(address));
        assert!(!release(address));
        assert_eq!(range_of(address), None);
        assert_eq!(allocate(LIMIT + 1), 0);
    }
}
