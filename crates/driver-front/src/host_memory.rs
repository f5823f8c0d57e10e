//! Page-locked host memory: what its calls answer without a device.

use harp_cuda_abi::types::*;

/// The flags that `cuMemHostAlloc` takes.
pub const ALLOCATION_FLAGS: u32 =
    CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;

/// The flags that `cuMemHostRegister` takes.
pub const REGISTRATION_FLAGS: u32 = CU_MEMHOSTREGISTER_PORTABLE
    | CU_MEMHOSTREGISTER_DEVICEMAP
    | CU_MEMHOSTREGISTER_IOMEMORY
    | CU_MEMHOSTREGISTER_READ_ONLY;

/// What `cuMemHostGetFlags` answers for memory that was allocated or registered with `given`: with
/// one range of addresses for host and devices all of it is mapped, whether that was asked for or not.
pub fn flags(given: u32) -> u32 {
    given | CU_MEMHOSTALLOC_DEVICEMAP
}

/// Whether `bytes` of this process's memory from `address` are there, to be registered.
pub fn is_mapped(address: usize, bytes: usize) -> bool {
    const PAGE: usize = 4096;
    const STEP: usize = 1 << 14;
    let Some(end) = address.checked_add(bytes) else {
        return false;
    };
    let mut resident = [0; STEP];
    (address / PAGE * PAGE..end)
        .step_by(STEP * PAGE)
        .all(|start| {
            let length = (end - start).min(STEP * PAGE);
            // SAFETY: room for the state of as many pages; the system fails where one is not there.
            unsafe { libc::mincore(start as *mut _, length, resident.as_mut_ptr()) == 0 }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_told_from_what_is() {
        let here = [0_u8; 10_000];
        assert!(is_mapped(here.as_ptr() as usize, here.len()));
        assert!(!is_mapped(0x1000, 4096));
        assert!(!is_mapped(usize::MAX - 10, 4096));
    }

    #[test]
    fn all_of_it_is_mapped() {
        assert_eq!(flags(0), CU_MEMHOSTALLOC_DEVICEMAP);
        let both = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
        assert_eq!(flags(CU_MEMHOSTALLOC_PORTABLE), both);
    }
}
