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

/// The records of three dimensions have the same fields beside their contexts.
macro_rules! cuboid {
    ($record:expr) => {
        BoxCopy {
            from: BoxEnd {
                memory_type: $record.srcMemoryType,
                host: $record.srcHost as usize,
                device: $record.srcDevice,
                x: $record.srcXInBytes,
                y: $record.srcY,
                z: $record.srcZ,
                pitch: $record.srcPitch,
                height: $record.srcHeight,
            },
            to: BoxEnd {
                memory_type: $record.dstMemoryType,
                host: $record.dstHost as usize,
                device: $record.dstDevice,
                x: $record.dstXInBytes,
                y: $record.dstY,
                z: $record.dstZ,
                pitch: $record.dstPitch,
                height: $record.dstHeight,
            },
            extent: ($record.WidthInBytes, $record.Height, $record.Depth),
        }
    };
}

impl From<&CUDA_MEMCPY2D> for BoxCopy {
    fn from(record: &CUDA_MEMCPY2D) -> BoxCopy {
        BoxCopy {
            from: BoxEnd {
                memory_type: record.srcMemoryType,
                host: record.srcHost as usize,
                device: record.srcDevice,
                x: record.srcXInBytes,
                y: record.srcY,
                z: 0,
                pitch: record.srcPitch,
                height: 0,
            },
            to: BoxEnd {
                memory_type: record.dstMemoryType,
                host: record.dstHost as usize,
                device: record.dstDevice,
                x: record.dstXInBytes,
                y: record.dstY,
                z: 0,
                pitch: record.dstPitch,
                height: 0,
            },
            extent: (record.WidthInBytes, record.Height, 1),
        }
    }
}

impl From<&CUDA_MEMCPY3D> for BoxCopy {
    fn from(record: &CUDA_MEMCPY3D) -> BoxCopy {
        cuboid!(record)
    }
}

impl From<&CUDA_MEMCPY3D_PEER> for BoxCopy {
    fn from(record: &CUDA_MEMCPY3D_PEER) -> BoxCopy {
        cuboid!(record)
    }
}

/// Size of a box: bytes of a row, rows, slices.
pub type Extent = (usize, usize, usize);

/// Where a box lies: its first byte, and the bytes from row to row and from slice to slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub start: u64,
    pub row: usize,
    pub slice: usize,
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
        let (width, height, depth) = extent;
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
        let (width, height, _) = extent;
        let or = |given: usize, otherwise: usize| if given == 0 { otherwise } else { given };
        let row = or(self.pitch, width);
        let slice = row.checked_mul(or(self.height, height))?;
        let rows = self.y.checked_mul(row)?;
        let slices = self.z.checked_mul(slice)?;
        let offset = rows.checked_add(slices)?.checked_add(self.x)?;
        let start = base.checked_add(offset as u64)?;
        start.checked_add(span(extent, row, slice).ok()?)?;
        Some(Place { start, row, slice })
    }
}

/// Bytes from the first to the last of a box, with those from row to row and from slice to slice.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` for more than a number has room for.
pub fn span((width, height, depth): Extent, row: usize, slice: usize) -> Result<u64, CUresult> {
    if width == 0 || height == 0 || depth == 0 {
        return Ok(0);
    }
    let rows = (height - 1).checked_mul(row);
    let slices = (depth - 1).checked_mul(slice);
    rows.zip(slices)
        .and_then(|(rows, slices)| rows.checked_add(slices)?.checked_add(width))
        .map(|bytes| bytes as u64)
        .ok_or(CUDA_ERROR_INVALID_VALUE)
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

    #[test]
    fn a_box_starts_where_its_offsets_say() {
        let place = Place {
            start: 0x1000 + 4 + 2 * 64 + 64 * 8,
            row: 64,
            slice: 512,
        };
        assert_eq!(HOST.place((16, 4, 2)), Ok(place));
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
        assert_eq!(plain.place((16, 4, 2)), Ok(place));
        assert_eq!(span((16, 4, 2), 16, 64), Ok(128));
        assert_eq!(span((16, 0, 2), 16, 64), Ok(0));
    }

    #[test]
    fn impossible_boxes_are_refused() {
        let invalid = Err(CUDA_ERROR_INVALID_VALUE);
        let narrow = BoxEnd { pitch: 8, ..HOST };
        assert_eq!(narrow.place((16, 4, 1)), invalid);
        assert_eq!(narrow.place((16, 1, 2)), invalid);
        assert!(narrow.place((16, 1, 1)).is_ok(), "of one row");
        let low = BoxEnd { height: 3, ..HOST };
        assert_eq!(low.place((16, 4, 2)), invalid);
        assert!(low.place((16, 4, 1)).is_ok(), "of one slice");
        let array = BoxEnd {
            memory_type: CU_MEMORYTYPE_ARRAY,
            ..HOST
        };
        assert_eq!(array.place((1, 1, 1)), Err(CUDA_ERROR_NOT_SUPPORTED));
        let nothing = BoxEnd {
            memory_type: 99,
            ..HOST
        };
        assert_eq!(nothing.place((1, 1, 1)), invalid);
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
            assert_eq!(far.place((1, 1, 1)), invalid, "{far:?}");
        }
        for extent in [
            (usize::MAX - 8, 1, 1),
            (8, usize::MAX, 1),
            (8, 2, usize::MAX / 64),
        ] {
            assert_eq!(HOST.place(extent), invalid, "{extent:?}");
        }
        assert_eq!(span((8, 2, 1), usize::MAX, 0), invalid.map(|_: Place| 0));
    }
}
