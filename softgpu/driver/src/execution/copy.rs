//! Byte movements between addresses of this process: device memory is plain memory here.
//!
//! This file is unsafe by nature: a movement is only made from ranges that the API has checked.

/// A box of bytes moved from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    pub from: u64,
    pub to: u64,
    /// Bytes of a row.
    pub width: usize,
    /// Rows of a slice.
    pub height: usize,
    /// Slices.
    pub depth: usize,
    /// Bytes from one row, and from one slice, to the next.
    pub from_pitch: usize,
    pub from_slice: usize,
    pub to_pitch: usize,
    pub to_slice: usize,
}

impl Copy {
    /// One run of bytes.
    pub fn linear(from: u64, to: u64, size: usize) -> Self {
        Self {
            from,
            to,
            width: size,
            height: 1,
            depth: 1,
            from_pitch: size,
            from_slice: size,
            to_pitch: size,
            to_slice: size,
        }
    }

    /// Moves the bytes. Overlap is allowed within a row.
    ///
    /// # Safety
    /// Every byte named must be readable or writable memory.
    pub unsafe fn run(&self) {
        let rows_touch = self.from_pitch == self.width && self.to_pitch == self.width;
        let (width, height) = if rows_touch {
            (self.width * self.height, 1)
        } else {
            (self.width, self.height)
        };
        for slice in 0..self.depth {
            for row in 0..height {
                let from = self.from as usize + slice * self.from_slice + row * self.from_pitch;
                let to = self.to as usize + slice * self.to_slice + row * self.to_pitch;
                // SAFETY: the caller's promise.
                unsafe { core::ptr::copy(from as *const u8, to as *mut u8, width) };
            }
        }
    }
}

/// A box of equal elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    pub to: u64,
    /// The element in its low bytes.
    pub value: u32,
    /// 1, 2 or 4 bytes.
    pub element: usize,
    /// Elements of a row.
    pub width: usize,
    /// Rows, and bytes from one to the next.
    pub height: usize,
    pub pitch: usize,
}

impl Fill {
    /// Stores the elements.
    ///
    /// # Safety
    /// Every byte named must be writable memory, aligned to the element.
    pub unsafe fn run(&self) {
        for row in 0..self.height {
            let to = (self.to as usize + row * self.pitch) as *mut u8;
            // SAFETY: the caller's promise.
            unsafe {
                match self.element {
                    1 => to.write_bytes(self.value as u8, self.width),
                    2 => core::slice::from_raw_parts_mut(to.cast::<u16>(), self.width)
                        .fill(self.value as u16),
                    _ => core::slice::from_raw_parts_mut(to.cast::<u32>(), self.width)
                        .fill(self.value),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_cut_out_of_a_larger_one() {
        let from: Vec<u8> = (0..60).collect();
        let mut to = [0u8; 24];
        let part = Copy {
            from: from.as_ptr() as u64 + 2,
            to: to.as_mut_ptr() as u64,
            width: 3,
            height: 2,
            depth: 2,
            from_pitch: 6,
            from_slice: 30,
            to_pitch: 4,
            to_slice: 12,
        };
        // SAFETY: both buffers hold the box.
        unsafe { part.run() };
        assert_eq!(to[..8], [2, 3, 4, 0, 8, 9, 10, 0]);
        assert_eq!(to[12..20], [32, 33, 34, 0, 38, 39, 40, 0]);
    }

    #[test]
    fn fills_of_every_width() {
        let mut words = [0u32; 6];
        let to = words.as_mut_ptr() as u64;
        let fill = |value, element, width| Fill {
            to,
            value,
            element,
            width,
            height: 2,
            pitch: 12,
        };
        let [bytes, halves, whole] = [
            fill(0x1ab, 1, 5),
            fill(0xabcd_1234, 2, 2),
            fill(0xdead_beef, 4, 1),
        ];
        // SAFETY: all of them lie in `words`.
        unsafe { bytes.run() };
        assert_eq!(words, [0xabab_abab, 0xab, 0, 0xabab_abab, 0xab, 0]);
        // SAFETY: as above.
        unsafe { halves.run() };
        assert_eq!(words, [0x1234_1234, 0xab, 0, 0x1234_1234, 0xab, 0]);
        // SAFETY: as above.
        unsafe { whole.run() };
        assert_eq!(words, [0xdead_beef, 0xab, 0, 0xdead_beef, 0xab, 0]);
    }
}
