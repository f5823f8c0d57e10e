//! Pieces that the tenant's cache has, in place of bytes that the client would have sent.

use harp_content::Name;
use harp_cuda_abi::types::CUresult;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder};

use super::copies::{copy_stream, upload};
use super::live;
use crate::session::{Session, Violation};

/// A piece of an image that a later call loads. That call says so if the piece is not there.
pub fn harp_blob_append_cached(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpBlobAppendCachedArgs::decode(d)?;
    let name = Name::of(args.check, args.proof);
    match cx.cache.named(args.piece, name)? {
        Some(piece) => cx.blobs.append(args.blob, &piece)?,
        None => cx.blobs.lacks_a_piece(args.blob)?,
    }
    Ok(0)
}

pub fn harp_cache_list(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpCacheListArgs::decode(d)?;
    encode_harp_cache_list_reply(out, &cx.cache.list(args.known));
    Ok(0)
}

pub fn harp_cache_fetch(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpCacheFetchArgs::decode(d)?;
    encode_harp_cache_fetch_reply(out, &cx.cache.fetch(&args.pieces)?);
    Ok(0)
}

/// As `cuMemcpyHtoD_v2`, with bytes that have been fetched.
pub fn harp_copy_cached(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = HarpCopyCachedArgs::decode(d)?;
    let stream = live!(copy_stream(cx, args.stream));
    let others = cx.has_others();
    let bytes = cx.cache.fetched(args.piece, args.proof)?;
    let way = (cx.driver, &cx.staging, &mut cx.uploads);
    Ok(upload(way, others, args.dst, bytes, (args.stream, stream)))
}
