//! Pools of stream-ordered memory.

use std::mem::MaybeUninit;

use harp_cuda_abi::types::*;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, HandleKind};

use super::live;
use crate::session::{Session, Violation};

pub fn cuMemPoolCreate(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemPoolCreateArgs::decode(d)?;
    let place = match location(cx, args.location_type, args.location) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    // A pool that can be exported would hand out a descriptor of this machine.
    let status = if args.handle_types != CU_MEM_HANDLE_TYPE_NONE {
        CUDA_ERROR_NOT_SUPPORTED
    } else {
        // SAFETY: numbers and null pointers.
        let mut properties: CUmemPoolProps = unsafe { MaybeUninit::zeroed().assume_init() };
        properties.allocType = args.alloc_type;
        properties.handleTypes = args.handle_types;
        properties.location = place;
        properties.maxSize = args.max_bytes as usize;
        properties.usage = args.usage as u16;
        let mut pool = std::ptr::null_mut();
        // SAFETY: see the module.
        let status = unsafe { (cx.driver.cuMemPoolCreate)(&mut pool, &properties) };
        cx.handles
            .created(HandleKind::Pool, args.pool, pool.cast(), status)?;
        status
    };
    Ok(status)
}

pub fn cuMemPoolSetAttribute(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemPoolSetAttributeArgs::decode(d)?;
    let pool = live!(cx.handles.get(HandleKind::Pool, args.pool));
    // As wide as the widest attribute; a narrower one reads the low bytes.
    let mut value = args.value;
    // SAFETY: see the module.
    Ok(unsafe { (cx.driver.cuMemPoolSetAttribute)(pool, args.attribute, (&raw mut value).cast()) })
}

pub fn cuMemPoolGetAttribute(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemPoolGetAttributeArgs::decode(d)?;
    let pool = live!(cx.handles.get(HandleKind::Pool, args.pool));
    let mut value = 0u64;
    // SAFETY: see the module.
    let status =
        unsafe { (cx.driver.cuMemPoolGetAttribute)(pool, args.attribute, (&raw mut value).cast()) };
    encode_cuMemPoolGetAttribute_reply(out, value);
    Ok(status)
}

pub fn cuMemPoolSetAccess(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemPoolSetAccessArgs::decode(d)?;
    if args.location_types.len() != args.locations.len() || args.flags.len() != args.locations.len()
    {
        return Err(Violation::new("lists of pool access that differ in length"));
    }
    let pool = live!(cx.handles.get(HandleKind::Pool, args.pool));
    let places = args.location_types.iter().zip(&args.locations);
    let access: Result<Vec<CUmemAccessDesc>, CUresult> = places
        .zip(&args.flags)
        .map(|((kind, id), flags)| {
            Ok(CUmemAccessDesc {
                location: location(cx, *kind, *id)?,
                flags: *flags,
            })
        })
        .collect();
    let access = match access {
        Ok(access) => access,
        Err(code) => return Ok(code),
    };
    // SAFETY: see the module.
    Ok(unsafe { (cx.driver.cuMemPoolSetAccess)(pool, access.as_ptr(), access.len()) })
}

pub fn cuMemPoolGetAccess(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuMemPoolGetAccessArgs::decode(d)?;
    let pool = live!(cx.handles.get(HandleKind::Pool, args.pool));
    let mut place = match location(cx, args.location_type, args.location) {
        Ok(place) => place,
        Err(code) => return Ok(code),
    };
    let mut flags = 0;
    // SAFETY: see the module.
    let status = unsafe { (cx.driver.cuMemPoolGetAccess)(&mut flags, pool, &mut place) };
    encode_cuMemPoolGetAccess_reply(out, flags);
    Ok(status)
}

/// A place for memory, with the driver's number where it is a device.
fn location(cx: &Session, kind: u32, id: i32) -> Result<CUmemLocation, CUresult> {
    // SAFETY: numbers.
    let mut location: CUmemLocation = unsafe { MaybeUninit::zeroed().assume_init() };
    location.type_ = kind;
    location.anonymous.id = match kind {
        CU_MEM_LOCATION_TYPE_DEVICE => cx.device(id)?,
        _ => id,
    };
    Ok(location)
}
