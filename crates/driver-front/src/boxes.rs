//! Two- and three-dimensional copies as the C records describe them: what such a description means, and whether there can
//! be such a box.

use harp_cuda_abi::types::*;

/// One end of a two- or three-dimensional copy as the records describe it.
#[derive(Clone, Copy, Debug)]
pub struct BoxEnd {
    pub memory_type: CUmemorytype,
    pub host: usize,
    pub device: CUdeviceptr,
    pub x: usize,
    pub y: usize,
    pub z: usize,
    /// Bytes from row to row; 0 where rows touch.
    pub pitch: usize,
    /// Rows of a slice; 0 where slices touch.
    pub height: usize,
}

/// What such a record describes: where a box comes from, where it goes, and its size.
#[derive(Clone, Copy, Debug)]
pub struct BoxCopy {
    pub from: BoxEnd,
    pub to: BoxEnd,
    pub extent: Extent,
}

/// All records have the same fields but for slices, which those of two dimensions lack: of each end the first slice and
/// rows to the next, and how many slices.
macro_rules! described {
    ($record:ident, from $from:expr, to $to:expr, depth $depth:expr) => {
        BoxCopy {
            from: BoxEnd {
                memory_type: $record.srcMemoryType,
                host: $record.srcHost as usize,
                device: $record.srcDevice,
                x: $record.srcXInBytes,
                y: $record.srcY,
                z: $from.0,
                pitch: $record.srcPitch,
                height: $from.1,
            },
            to: BoxEnd {
                memory_type: $record.dstMemoryType,
                host: $record.dstHost as usize,
                device: $record.dstDevice,
                x: $record.dstXInBytes,
                y: $record.dstY,
                z: $to.0,
                pitch: $record.dstPitch,
                height: $to.1,
            },
            extent: Extent {
                width: $record.WidthInBytes,
                height: $record.Height,
                depth: $depth,
            },
        }
    };
    ($record:ident) => {
        described!(
            $record,
            from ($record.srcZ, $record.srcHeight),
            to ($record.dstZ, $record.dstHeight),
            depth $record.Depth
        )
    };
}

impl From<&CUDA_MEMCPY2D> for BoxCopy {
    fn from(record: &CUDA_MEMCPY2D) -> BoxCopy {
        described!(record, from (0, 0), to (0, 0), depth 1)
    }
}

impl From<&CUDA_MEMCPY3D> for BoxCopy {
    fn from(record: &CUDA_MEMCPY3D) -> BoxCopy {
        described!(record)
    }
}

impl From<&CUDA_MEMCPY3D_PEER> for BoxCopy {
    fn from(record: &CUDA_MEMCPY3D_PEER) -> BoxCopy {
        described!(record)
    }
}

/// Size of a box: bytes of a row, rows of a slice, slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub width: usize,
    pub height: usize,
    pub depth: usize,
}

impl Extent {
    /// Whether there is nothing in it.
    pub fn is_empty(self) -> bool {
        self.width == 0 || self.height == 0 || self.depth == 0
    }

    /// Bytes from the first to the last of the box, with those from row to row and from slice to slice.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for more than a number has room for.
    pub fn span(self, row: usize, slice: usize) -> Result<u64, CUresult> {
        if self.is_empty() {
            return Ok(0);
        }
        let rows = (self.height - 1).checked_mul(row);
        let slices = (self.depth - 1).checked_mul(slice);
        rows.zip(slices)
            .and_then(|(rows, slices)| rows.checked_add(slices)?.checked_add(self.width))
            .map(|bytes| bytes as u64)
            .ok_or(CUDA_ERROR_INVALID_VALUE)
    }
}

/// Where a box lies: its first byte, and the bytes from row to row and from slice to slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub start: u64,
    pub row: usize,
    pub slice: usize,
}

impl Place {
    /// The address of row `y` of slice `z`, both from 0.
    pub fn row_at(&self, z: usize, y: usize) -> u64 {
        self.start + (z * self.slice + y * self.row) as u64
    }

    /// The same from that row on.
    pub fn starting_at(&self, z: usize, y: usize) -> Place {
        Place {
            start: self.row_at(z, y),
            ..*self
        }
    }

    /// Whether the rows lie next to each other, so that the box is one run of bytes.
    pub fn is_solid(&self, extent: Extent) -> bool {
        let Extent {
            width,
            height,
            depth,
        } = extent;
        (height == 1 || self.row == width) && (depth == 1 || self.slice == width * height)
    }
}

impl BoxEnd {
    /// Where the box lies.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for rows or slices that overlap, and for a box beyond all addresses;
    /// `CUDA_ERROR_NOT_SUPPORTED` for arrays.
    pub fn place(&self, extent: Extent) -> Result<Place, CUresult> {
        let base = match self.memory_type {
            CU_MEMORYTYPE_HOST => self.host as u64,
            CU_MEMORYTYPE_DEVICE | CU_MEMORYTYPE_UNIFIED => self.device,
            CU_MEMORYTYPE_ARRAY => return Err(CUDA_ERROR_NOT_SUPPORTED),
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        };
        let Extent {
            width,
            height,
            depth,
        } = extent;
        let rows_overlap = self.pitch != 0 && self.pitch < width.saturating_add(self.x);
        let slices_overlap = self.height != 0 && self.height < height.saturating_add(self.y);
        let many_rows = height > 1 || depth > 1;
        if (many_rows && rows_overlap) || (depth > 1 && slices_overlap) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        self.reach(base, extent).ok_or(CUDA_ERROR_INVALID_VALUE)
    }

    /// `None` where a number has no room for it.
    fn reach(&self, base: u64, extent: Extent) -> Option<Place> {
        let Extent { width, height, .. } = extent;
        let or = |given: usize, otherwise: usize| if given == 0 { otherwise } else { given };
        let row = or(self.pitch, width);
        let slice = row.checked_mul(or(self.height, height))?;
        let rows = self.y.checked_mul(row)?;
        let slices = self.z.checked_mul(slice)?;
        let offset = rows.checked_add(slices)?.checked_add(self.x)?;
        let start = base.checked_add(offset as u64)?;
        start.checked_add(extent.span(row, slice).ok()?)?;
        Some(Place { start, row, slice })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: BoxEnd = BoxEnd {
        memory_type: CU_MEMORYTYPE_HOST,
        host: 0x1000,
        device: 0,
        x: 4,
        y: 2,
        z: 1,
        pitch: 64,
        height: 8,
    };

    fn extent(width: usize, height: usize, depth: usize) -> Extent {
        Extent {
            width,
            height,
            depth,
        }
    }

    #[test]
    fn a_box_starts_where_its_offsets_say() {
        let place = Place {
            start: 0x1000 + 4 + 2 * 64 + 64 * 8,
            row: 64,
            slice: 512,
        };
        assert_eq!(HOST.place(extent(16, 4, 2)), Ok(place));
        let plain = BoxEnd {
            memory_type: CU_MEMORYTYPE_UNIFIED,
            device: 0x9000,
            x: 0,
            y: 0,
            z: 0,
            pitch: 0,
            height: 0,
            ..HOST
        };
        let place = Place {
            start: 0x9000,
            row: 16,
            slice: 64,
        };
        assert_eq!(plain.place(extent(16, 4, 2)), Ok(place));
        assert_eq!(extent(16, 4, 2).span(16, 64), Ok(128));
        assert_eq!(extent(16, 0, 2).span(16, 64), Ok(0));
    }

    #[test]
    fn a_box_is_solid_where_rows_and_slices_touch() {
        let place = Place {
            start: 0x1000,
            row: 16,
            slice: 64,
        };
        assert_eq!(place.row_at(1, 2), 0x1000 + 64 + 32);
        assert_eq!(place.starting_at(1, 2).row_at(1, 0), 0x1000 + 128 + 32);
        let solid = [(16, 4, 2), (16, 3, 1), (8, 1, 1), (0, 1, 1)];
        assert!(solid
            .iter()
            .all(|(w, h, d)| place.is_solid(extent(*w, *h, *d))));
        let split = [(8, 2, 1), (16, 3, 2), (16, 1, 2)];
        assert!(!split
            .iter()
            .any(|(w, h, d)| place.is_solid(extent(*w, *h, *d))));
    }

    #[test]
    fn impossible_boxes_are_refused() {
        let invalid = Err(CUDA_ERROR_INVALID_VALUE);
        let narrow = BoxEnd { pitch: 8, ..HOST };
        assert_eq!(narrow.place(extent(16, 4, 1)), invalid);
        assert_eq!(narrow.place(extent(16, 1, 2)), invalid);
        assert!(narrow.place(extent(16, 1, 1)).is_ok(), "of one row");
        let low = BoxEnd { height: 3, ..HOST };
        assert_eq!(low.place(extent(16, 4, 2)), invalid);
        assert!(low.place(extent(16, 4, 1)).is_ok(), "of one slice");
        let array = BoxEnd {
            memory_type: CU_MEMORYTYPE_ARRAY,
            ..HOST
        };
        assert_eq!(array.place(extent(1, 1, 1)), Err(CUDA_ERROR_NOT_SUPPORTED));
        let nothing = BoxEnd {
            memory_type: 99,
            ..HOST
        };
        assert_eq!(nothing.place(extent(1, 1, 1)), invalid);
        for far in [
            BoxEnd {
                y: usize::MAX,
                ..HOST
            },
            BoxEnd {
                z: usize::MAX,
                ..HOST
            },
            BoxEnd {
                x: usize::MAX,
                ..HOST
            },
            BoxEnd {
                pitch: usize::MAX,
                ..HOST
            },
        ] {
            assert_eq!(far.place(extent(1, 1, 1)), invalid, "{far:?}");
        }
        for extent in [
            extent(usize::MAX - 8, 1, 1),
            extent(8, usize::MAX, 1),
            extent(8, 2, usize::MAX / 64),
        ] {
            assert_eq!(HOST.place(extent), invalid, "{extent:?}");
        }
        assert_eq!(
            extent(8, 2, 1).span(usize::MAX, 0),
            invalid.map(|_: Place| 0)
        );
    }
}
