//! Two- and three-dimensional copies. A box is rows of `width` bytes, `height` rows a slice, `depth` slices; the client's
//! side of it travels packed.

use std::mem::MaybeUninit;

use harp_cuda_abi::types::*;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, SYNCHRONOUS};

use super::copies::{copy_stream, reply_bytes};
use super::live;
use crate::session::{Session, Violation, Wait};

/// One side of a box: where it begins, bytes from row to row, rows from slice to slice.
#[derive(Clone, Copy)]
enum Side {
    Host {
        address: *mut u8,
    },
    Device {
        address: CUdeviceptr,
        pitch: u64,
        slice_pitch: u64,
    },
}

#[derive(Clone, Copy)]
struct Extent {
    width: u64,
    height: u64,
    depth: u64,
}

impl Extent {
    /// Bytes of the box when packed; `None` if there are more than numbers for them.
    fn packed(self) -> Option<u64> {
        self.width.checked_mul(self.height)?.checked_mul(self.depth)
    }

    /// The driver's description of a copy of this box. `Err` for pitches that no box has.
    fn copy(self, from: Side, to: Side) -> Result<CUDA_MEMCPY3D, CUresult> {
        // SAFETY: numbers and null pointers.
        let mut copy: CUDA_MEMCPY3D = unsafe { MaybeUninit::zeroed().assume_init() };
        copy.WidthInBytes = self.width as usize;
        copy.Height = self.height as usize;
        copy.Depth = self.depth as usize;
        match from {
            Side::Host { address } => {
                copy.srcMemoryType = CU_MEMORYTYPE_HOST;
                copy.srcHost = address.cast();
                (copy.srcPitch, copy.srcHeight) = (self.width as usize, self.height as usize);
            }
            Side::Device {
                address,
                pitch,
                slice_pitch,
            } => {
                copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
                copy.srcDevice = address;
                (copy.srcPitch, copy.srcHeight) = (pitch as usize, rows(pitch, slice_pitch)?);
            }
        }
        match to {
            Side::Host { address } => {
                copy.dstMemoryType = CU_MEMORYTYPE_HOST;
                copy.dstHost = address.cast();
                (copy.dstPitch, copy.dstHeight) = (self.width as usize, self.height as usize);
            }
            Side::Device {
                address,
                pitch,
                slice_pitch,
            } => {
                copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
                copy.dstDevice = address;
                (copy.dstPitch, copy.dstHeight) = (pitch as usize, rows(pitch, slice_pitch)?);
            }
        }
        Ok(copy)
    }
}

/// Rows from slice to slice: the driver counts in rows what the wire counts in bytes.
fn rows(pitch: u64, slice_pitch: u64) -> Result<usize, CUresult> {
    match slice_pitch.checked_rem(pitch) {
        Some(0) => Ok((slice_pitch / pitch) as usize),
        // A box of one row needs no pitch.
        None if slice_pitch == 0 => Ok(0),
        _ => Err(CUDA_ERROR_INVALID_VALUE),
    }
}

/// Issues a copy that is not to the host. Host memory in it is the worker's and pageable: the driver has taken it when
/// this returns, for which it may wait for the stream; where that may wait for the client, the client has waited before.
fn issue(cx: &Session, copy: &CUDA_MEMCPY3D, stream_id: u64, stream: CUstream) -> CUresult {
    // SAFETY: see the module.
    unsafe {
        match stream_id {
            SYNCHRONOUS => (cx.driver.cuMemcpy3D_v2)(copy),
            _ => (cx.driver.cuMemcpy3DAsync_v2)(copy, stream),
        }
    }
}

pub fn harp_copy_box_to_device(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpCopyBoxToDeviceArgs::decode(d)?;
    let extent = Extent {
        width: args.width,
        height: args.height,
        depth: args.depth,
    };
    if extent.packed() != Some(args.data.len() as u64) {
        return Err(Violation::new(format!(
            "a box whose payload has {} bytes",
            args.data.len()
        )));
    }
    let stream = live!(copy_stream(cx, args.stream));
    let from = Side::Host {
        address: args.data.as_ptr().cast_mut(),
    };
    let to = Side::Device {
        address: args.dst,
        pitch: args.dst_pitch,
        slice_pitch: args.dst_slice_pitch,
    };
    match extent.copy(from, to) {
        Ok(copy) => Ok(issue(cx, &copy, args.stream, stream)),
        Err(code) => Ok(code),
    }
}

pub fn harp_copy_box_to_host(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpCopyBoxToHostArgs::decode(d)?;
    let extent = Extent {
        width: args.width,
        height: args.height,
        depth: args.depth,
    };
    let bytes = reply_bytes(extent.packed().unwrap_or(u64::MAX))?;
    let stream = live!(copy_stream(cx, args.stream));
    let from = Side::Device {
        address: args.src,
        pitch: args.src_pitch,
        slice_pitch: args.src_slice_pitch,
    };
    // Where the wait finds room for it.
    let to = Side::Host {
        address: std::ptr::null_mut(),
    };
    let copy = match extent.copy(from, to) {
        Ok(copy) => Box::new(copy),
        Err(code) => return Ok(code),
    };
    cx.wait_for(Wait::CopyBox {
        copy,
        bytes,
        stream: (args.stream != SYNCHRONOUS).then_some(stream),
    })
}

pub fn harp_copy_box_on_device(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpCopyBoxOnDeviceArgs::decode(d)?;
    let extent = Extent {
        width: args.width,
        height: args.height,
        depth: args.depth,
    };
    let stream = live!(cx.handles.get_stream(args.stream));
    let side = |address, pitch, slice_pitch| Side::Device {
        address,
        pitch,
        slice_pitch,
    };
    let from = side(args.src, args.src_pitch, args.src_slice_pitch);
    let to = side(args.dst, args.dst_pitch, args.dst_slice_pitch);
    match extent.copy(from, to) {
        Ok(copy) => Ok(issue(cx, &copy, args.stream, stream)),
        Err(code) => Ok(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_described_in_rows() {
        let extent = Extent {
            width: 12,
            height: 3,
            depth: 2,
        };
        assert_eq!(extent.packed(), Some(72));
        let device = Side::Device {
            address: 0x1000,
            pitch: 64,
            slice_pitch: 320,
        };
        let mut host = [0; 72];
        let copy = extent
            .copy(
                device,
                Side::Host {
                    address: host.as_mut_ptr(),
                },
            )
            .unwrap();
        assert_eq!((copy.srcPitch, copy.srcHeight), (64, 5));
        assert_eq!((copy.dstPitch, copy.dstHeight), (12, 3));
        assert_eq!((copy.WidthInBytes, copy.Height, copy.Depth), (12, 3, 2));
    }

    #[test]
    fn impossible_boxes_are_refused() {
        assert_eq!(
            Extent {
                width: 1 << 40,
                height: 1 << 40,
                depth: 1
            }
            .packed(),
            None
        );
        assert_eq!(rows(64, 100), Err(CUDA_ERROR_INVALID_VALUE));
        assert_eq!(rows(0, 100), Err(CUDA_ERROR_INVALID_VALUE));
        assert_eq!(rows(0, 0), Ok(0));
    }
}
