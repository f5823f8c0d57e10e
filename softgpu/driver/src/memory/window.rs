//! The address window of a device: reserved once, backed piece by piece.
//!
//! Device addresses are addresses of this process. The window is reserved without access, so that
//! no host pointer ever looks like a device pointer and a stray access faults.

use std::sync::atomic::{AtomicU64, Ordering};

use harp_cuda_abi::types::CUDA_ERROR_OUT_OF_MEMORY;

use crate::call::Outcome;

/// Where the window of device 0 starts.
const FIRST_WINDOW: u64 = 0x2000_0000_0000;
/// Addresses of one device: far more than it has memory, so that fragments never matter.
pub const WINDOW_SIZE: u64 = 1 << 40;
/// Smallest unit of backing.
pub const PAGE: u64 = 4096;

/// The reserved addresses of one device.
#[derive(Debug)]
pub struct Window {
    base: AtomicU64,
}

impl Window {
    /// Reserves the window of device `ordinal`: at its fixed place, or where the system likes if
    /// something else is there.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` where the process has no such range of addresses left.
    pub fn reserve(ordinal: usize) -> Outcome<Self> {
        let wanted = FIRST_WINDOW + ordinal as u64 * WINDOW_SIZE;
        let base = map(wanted, libc::MAP_FIXED_NOREPLACE)
            .or_else(|| map(0, 0))
            .ok_or(CUDA_ERROR_OUT_OF_MEMORY)?;
        Ok(Self {
            base: AtomicU64::new(base),
        })
    }

    /// Moves a window in which nothing is backed.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` where something else is there; the window stays where it is.
    pub fn move_to(&self, base: u64) -> Outcome {
        if base == self.base() {
            return Ok(());
        }
        let moved = map(base, libc::MAP_FIXED_NOREPLACE).filter(|mapped| *mapped == base);
        let before = self
            .base
            .swap(moved.ok_or(CUDA_ERROR_OUT_OF_MEMORY)?, Ordering::Relaxed);
        // SAFETY: mapped by `map`, and nothing in it is in use.
        unsafe { libc::munmap(before as *mut _, WINDOW_SIZE as usize) };
        Ok(())
    }

    /// First address.
    pub fn base(&self) -> u64 {
        self.base.load(Ordering::Relaxed)
    }

    /// Whether `address` lies in this window.
    pub fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.base()) < WINDOW_SIZE
    }

    /// Backs a range with zeroed memory. `start` and `length` are multiples of [`PAGE`].
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` where the system refuses.
    pub fn back(&self, start: u64, length: u64) -> Outcome {
        assert!(self.contains(start) && self.contains(start + length - 1));
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range lies in this window and holds nothing that is in use.
        let refused = unsafe { libc::mprotect(start as *mut _, length as usize, access) } != 0;
        if refused {
            return Err(CUDA_ERROR_OUT_OF_MEMORY);
        }
        const HUGE_PAGE: u64 = 2 << 20;
        if length >= HUGE_PAGE {
            // SAFETY: as above; advice only, its failure changes nothing.
            unsafe { libc::madvise(start as *mut _, length as usize, libc::MADV_HUGEPAGE) };
        }
        Ok(())
    }

    /// Takes the memory behind a range away; what was there is gone.
    pub fn release(&self, start: u64, length: u64) {
        assert!(self.contains(start) && self.contains(start + length - 1));
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the range lies in this window and nothing uses it any more. Should the system
        // have no room for another mapping, the memory stays behind, which is harmless.
        unsafe {
            libc::mmap(
                start as *mut _,
                length as usize,
                libc::PROT_NONE,
                flags,
                -1,
                0,
            );
        }
        keep_from_children(start, length);
    }
}

/// Maps a window without access.
fn map(address: u64, how: libc::c_int) -> Option<u64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | how;
    let (wanted, length) = (address as *mut _, WINDOW_SIZE as usize);
    // SAFETY: without MAP_FIXED no existing mapping is touched.
    let mapped = unsafe { libc::mmap(wanted, length, libc::PROT_NONE, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    keep_from_children(mapped as u64, WINDOW_SIZE);
    Some(mapped as u64)
}

/// Device memory is the device's, not the process's: a forked child, where no call works, has none,
/// and the parent need not copy what it writes while a child lives.
fn keep_from_children(start: u64, length: u64) {
    // SAFETY: advice about addresses of a window; its failure costs children some memory.
    unsafe { libc::madvise(start as *mut _, length as usize, libc::MADV_DONTFORK) };
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the window was mapped by `reserve` and its owner is gone.
        unsafe { libc::munmap(self.base() as *mut _, WINDOW_SIZE as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backed_memory_is_zero_again_after_release() {
        let window = Window::reserve(7).unwrap();
        let start = window.base() + (4 << 20);
        window.back(start, PAGE).unwrap();
        let word = start as *mut u64;
        // SAFETY: the page is backed.
        unsafe {
            assert_eq!(*word, 0);
            *word = 42;
        }
        window.release(start, PAGE);
        window.back(start, PAGE).unwrap();
        // SAFETY: the page is backed.
        assert_eq!(unsafe { *word }, 0);
        assert!(window.contains(start) && !window.contains(window.base() - 1));
        assert!(!window.contains(window.base() + WINDOW_SIZE));
    }

    #[test]
    fn a_window_moves_where_nothing_is() {
        let (window, other) = (Window::reserve(40).unwrap(), Window::reserve(41).unwrap());
        let before = window.base();
        assert_eq!(window.move_to(other.base()), Err(CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(window.base(), before);
        let free = other.base() + WINDOW_SIZE;
        window.move_to(free).unwrap();
        assert!(window.contains(free) && !window.contains(before));
        window.back(free, PAGE).unwrap();
        other.move_to(before).unwrap();
    }
}
