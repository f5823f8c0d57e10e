//! Where the small spaces appear in generic addresses.
//!
//! Global memory is at its own address in this process. Shared, local and parameter space have
//! windows of 4 GiB each below the places where a Linux process has anything mapped, and above
//! what small integers reach.

/// First generic address of a block's shared memory.
pub const SHARED: u64 = 0x0100_0000_0000;
/// First generic address of a thread's local memory.
pub const LOCAL: u64 = 0x0101_0000_0000;
/// First generic address of the kernel's parameters.
pub const PARAM: u64 = 0x0102_0000_0000;
/// First address of functions; they cannot be read.
pub const CODE: u64 = 0x0103_0000_0000;
/// Bytes of one window.
pub const SIZE: u64 = 1 << 32;
/// Bytes between the addresses of two functions.
pub const CODE_STEP: u64 = 16;

/// Whether `address` is in one of the windows that loads and stores must translate.
#[inline(always)]
pub const fn contain(address: u64) -> bool {
    address.wrapping_sub(SHARED) < 3 * SIZE
}
