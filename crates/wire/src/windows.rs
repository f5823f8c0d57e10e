//! Where the devices of a session have their addresses, if their driver can be told.
//!
//! A program that uses several servers asks each for addresses that none of the others has: it says
//! where the first device's may start, and finds in the snapshot where they do.

use core::ops::Range;

/// The option of a hello with the address, in decimal, at which the first device's window is to start.
pub const OPTION: &str = "first_window";
/// Where windows lie: addresses that neither programs nor drivers use by themselves.
pub const REGION: Range<u64> = 0x2000_0000_0000..0x4000_0000_0000;
/// Addresses of one device: far more than it has memory. Windows start at multiples of it.
pub const SIZE: u64 = 1 << 40;

/// Whether `devices` windows may start at `first`.
pub fn is_place(first: u64, devices: usize) -> bool {
    let end = (devices as u64)
        .checked_mul(SIZE)
        .and_then(|bytes| first.checked_add(bytes));
    first.is_multiple_of(SIZE) && first >= REGION.start && end.is_some_and(|end| end <= REGION.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_whole_in_their_region() {
        assert!(is_place(REGION.start, 32) && is_place(REGION.end - SIZE, 1));
        assert!(!is_place(REGION.start, 33) && !is_place(REGION.end - SIZE, 2));
        assert!(!is_place(REGION.start - SIZE, 1) && !is_place(REGION.start + 4096, 1));
        assert!(!is_place(REGION.start, usize::MAX) && !is_place(u64::MAX - SIZE + 1, 1));
    }
}
