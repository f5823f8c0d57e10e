//! Two- and three-dimensional copies between linear memory. Arrays are not supported.

use std::ffi::c_void;

use harp_cuda_abi::types::*;
use harp_driver_front::boxes::{BoxCopy, Extent, Place};
use harp_wire::calls::{
    encode_harp_copy_box_on_device, encode_harp_copy_box_to_device, encode_harp_copy_box_to_host,
};
use harp_wire::{CallId, Encoder, SYNCHRONOUS};

use super::context::Visit;
use super::copy::{
    before_moving, check, cuMemcpy, cuMemcpyAsync, is_device, landed, result, wait_for_functions,
    wait_for_writers, PIECE,
};
use super::copy_between::{before_program, is_within_one, Way, HELD};
use crate::session::{checks, handles, sessions, Session};

/// Rows from this width on travel as copies of their own.
const WIDE_ROW: usize = 64 << 10;

/// Bytes of a box from the first to the last.
fn span(place: &Place, extent: Extent) -> Result<usize, CUresult> {
    Ok(extent.span(place.row, place.slice)? as usize)
}

/// Runs of rows within a slice that travel together: (slice, first row, rows).
fn runs(extent: Extent) -> impl Iterator<Item = (usize, usize, usize)> {
    let step = if extent.width < WIDE_ROW {
        (PIECE / extent.width).max(1)
    } else {
        1
    };
    (0..extent.depth).flat_map(move |z| {
        (0..extent.height)
            .step_by(step)
            .map(move |y| (z, y, step.min(extent.height - y)))
    })
}

/// Copies a box.
unsafe fn copy_box(
    to: &Place,
    from: &Place,
    extent: Extent,
    stream: Option<CUstream>,
) -> Result<(), CUresult> {
    let sessions = sessions()?;
    if extent.is_empty() {
        return Ok(());
    }
    let ordered = stream.map_or(Ok(SYNCHRONOUS), handles::live_stream)?;
    let to_device = is_device(sessions, to.start);
    let from_device = is_device(sessions, from.start);
    if to.is_solid(extent) && from.is_solid(extent) {
        let bytes = extent.width * extent.height * extent.depth;
        return check(match stream {
            Some(stream) => unsafe { cuMemcpyAsync(to.start, from.start, bytes, stream) },
            None => unsafe { cuMemcpy(to.start, from.start, bytes) },
        });
    }
    match (to_device, from_device) {
        (true, true) if is_within_one(to.start, from.start, stream)? => {
            on_device(to, from, extent, stream)
        }
        (true, true) => unsafe { through_program(to, from, extent, stream) },
        (true, false) => unsafe { box_to_device(to, from, extent, ordered) },
        (false, true) => {
            let session = unsafe { box_to_host(to, from, extent, ordered) }?;
            landed(session, stream)
        }
        (false, false) => {
            before_moving(stream)?;
            for (z, y) in (0..extent.depth).flat_map(|z| (0..extent.height).map(move |y| (z, y))) {
                let (to, from) = (to.row_at(z, y) as *mut u8, from.row_at(z, y) as *const u8);
                // SAFETY: the caller's rows.
                unsafe { std::ptr::copy(from, to, extent.width) };
            }
            Ok(())
        }
    }
}

fn on_device(
    to: &Place,
    from: &Place,
    extent: Extent,
    stream: Option<CUstream>,
) -> Result<(), CUresult> {
    let _visit = Visit::to_memory(sessions()?, to.start);
    let (session, stream) = checks::stream(stream.unwrap_or(std::ptr::null_mut()))?;
    checks::device_span(session, to.start, span(to, extent)? as u64)?;
    checks::device_span(session, from.start, span(from, extent)? as u64)?;
    check(session.one_way(CallId::harp_copy_box_on_device, |encoder| {
        encode_harp_copy_box_on_device(
            encoder,
            to.start,
            to.row as u64,
            to.slice as u64,
            from.start,
            from.row as u64,
            from.slice as u64,
            extent.width as u64,
            extent.height as u64,
            extent.depth as u64,
            stream,
        );
    }))
}

/// Copies from one server's device to another's, several rows at a time.
unsafe fn through_program(
    to: &Place,
    from: &Place,
    extent: Extent,
    stream: Option<CUstream>,
) -> Result<(), CUresult> {
    let ends = [
        (to.start, span(to, extent)?),
        (from.start, span(from, extent)?),
    ];
    let ordered = before_program(ends[0], ends[1], stream)?;
    let rows = (HELD / extent.width).clamp(1, extent.height);
    let mut held = vec![0_u8; rows * extent.width];
    let between = Place {
        start: held.as_mut_ptr() as u64,
        row: extent.width,
        slice: 0,
    };
    for z in 0..extent.depth {
        for y in (0..extent.height).step_by(rows) {
            let part = Extent {
                height: rows.min(extent.height - y),
                depth: 1,
                ..extent
            };
            // SAFETY: `held` has room for the rows, packed, until both copies are done.
            unsafe {
                box_to_host(&between, &from.starting_at(z, y), part, ordered)?;
                box_to_device(&to.starting_at(z, y), &between, part, ordered)?;
            }
        }
    }
    Ok(())
}

unsafe fn box_to_device(
    to: &Place,
    from: &Place,
    extent: Extent,
    stream: u64,
) -> Result<(), CUresult> {
    let way = Way::to(to.start, span(to, extent)?, stream)?;
    if !wait_for_writers(&way, from.start as *const c_void)? {
        wait_for_functions(&way, to.start)?;
    }
    let mut packed = Vec::new();
    for (z, first, rows) in runs(extent) {
        if rows == 1 {
            let source = from.row_at(z, first) as *const c_void;
            // SAFETY: the caller's row.
            unsafe {
                super::copy::to_device(to.row_at(z, first), source, extent.width, way.stream)
            }?;
            continue;
        }
        packed.clear();
        for y in first..first + rows {
            let row = from.row_at(z, y) as *const u8;
            // SAFETY: the caller's row.
            packed.extend_from_slice(unsafe { std::slice::from_raw_parts(row, extent.width) });
        }
        let encode = |encoder: &mut Encoder| {
            encode_harp_copy_box_to_device(
                encoder,
                to.row_at(z, first),
                to.row as u64,
                to.slice as u64,
                extent.width as u64,
                rows as u64,
                1,
                way.stream,
            );
        };
        check(
            way.session
                .one_way_bytes(CallId::harp_copy_box_to_device, encode, &packed),
        )?;
    }
    Ok(())
}

/// Returns the session that the bytes came from.
unsafe fn box_to_host(
    to: &Place,
    from: &Place,
    extent: Extent,
    stream: u64,
) -> Result<&'static Session, CUresult> {
    let way = Way::to(from.start, span(from, extent)?, stream)?;
    let mut packed = Vec::new();
    for (z, first, rows) in runs(extent) {
        if rows == 1 {
            let destination = to.row_at(z, first) as *mut c_void;
            // SAFETY: the caller's row.
            unsafe {
                super::copy::to_host(destination, from.row_at(z, first), extent.width, way.stream)
            }?;
            continue;
        }
        packed.resize(rows * extent.width, 0_u8);
        let encode = |encoder: &mut Encoder| {
            encode_harp_copy_box_to_host(
                encoder,
                from.row_at(z, first),
                from.row as u64,
                from.slice as u64,
                extent.width as u64,
                rows as u64,
                1,
                way.stream,
            );
        };
        // SAFETY: `packed` lives until the ticket has been waited for, right here.
        let ticket = unsafe {
            let (at, len) = (packed.as_mut_ptr(), packed.len());
            way.session
                .ask_bytes(CallId::harp_copy_box_to_host, encode, at, len)
        }?;
        check(way.session.finish_bytes(ticket))?;
        for (y, row) in (first..).zip(packed.chunks_exact(extent.width)) {
            let destination = to.row_at(z, y) as *mut u8;
            // SAFETY: the caller's row.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), destination, row.len()) };
        }
    }
    Ok(way.session)
}

/// Copies the box that a record describes.
unsafe fn copy_described(copy: BoxCopy, stream: Option<CUstream>) -> Result<(), CUresult> {
    let to = copy.to.place(copy.extent)?;
    let from = copy.from.place(copy.extent)?;
    // SAFETY: the caller's.
    unsafe { copy_box(&to, &from, copy.extent, stream) }
}

unsafe fn copy_2d(copy: *const CUDA_MEMCPY2D, stream: Option<CUstream>) -> CUresult {
    if copy.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller passes a CUDA_MEMCPY2D.
    let copy = unsafe { &*copy };
    result(unsafe { copy_described(copy.into(), stream) })
}

pub unsafe fn cuMemcpy2D_v2(copy: *const CUDA_MEMCPY2D) -> CUresult {
    unsafe { copy_2d(copy, None) }
}

pub unsafe fn cuMemcpy2DUnaligned_v2(copy: *const CUDA_MEMCPY2D) -> CUresult {
    unsafe { copy_2d(copy, None) }
}

pub unsafe fn cuMemcpy2DAsync_v2(copy: *const CUDA_MEMCPY2D, stream: CUstream) -> CUresult {
    unsafe { copy_2d(copy, Some(stream)) }
}

unsafe fn copy_3d(copy: *const CUDA_MEMCPY3D, stream: Option<CUstream>) -> CUresult {
    if copy.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: the caller passes a CUDA_MEMCPY3D.
    let copy = unsafe { &*copy };
    if copy.srcLOD != 0 || copy.dstLOD != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    result(unsafe { copy_described(copy.into(), stream) })
}

pub unsafe fn cuMemcpy3D_v2(copy: *const CUDA_MEMCPY3D) -> CUresult {
    unsafe { copy_3d(copy, None) }
}

pub unsafe fn cuMemcpy3DAsync_v2(copy: *const CUDA_MEMCPY3D, stream: CUstream) -> CUresult {
    unsafe { copy_3d(copy, Some(stream)) }
}
