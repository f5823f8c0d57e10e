//! Room for sealed bytes, where the kernel copies them fast.

use std::ops::{Deref, DerefMut};

pub const PAGE: usize = 4096;

/// Where in a page it begins. The kernel copies to and from a socket with `rep movsb`, which takes ten times as long where
/// the target lies up to 63 bytes behind the source, seen within pages: the processor takes what it reads for what it has
/// just written. (glibc's `memmove` uses another way there.) The kernel's side of a message begins at the beginning of a
/// page, or a short message later; what is allocated here would begin 16 bytes behind that of a page.
const START: usize = PAGE / 2;

/// Bytes, zeroed at first, that begin in the middle of a page.
#[derive(Default)]
pub struct WireRoom {
    bytes: Box<[u8]>,
    start: usize,
}

impl WireRoom {
    /// Room for `len` bytes at least.
    pub fn new(len: usize) -> WireRoom {
        let bytes = vec![0; len + PAGE].into_boxed_slice();
        let start = START.wrapping_sub(bytes.as_ptr() as usize) % PAGE;
        WireRoom { bytes, start }
    }
}

impl Deref for WireRoom {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for WireRoom {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_in_the_middle_of_a_page() {
        for len in [1, 100, 4096, 1 << 18, 1 << 20] {
            let mut room = WireRoom::new(len);
            assert_eq!(room.as_ptr() as usize % PAGE, START);
            assert!(room.len() >= len);
            room.fill(7);
        }
        assert!(WireRoom::default().is_empty());
    }
}
