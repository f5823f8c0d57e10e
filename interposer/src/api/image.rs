//! Module images on their way to the server: found in the program's memory, sent in pieces.

use std::ffi::{c_char, c_void, CStr};
use std::sync::atomic::{AtomicU64, Ordering};

use harp_cuda_abi::types::*;
use harp_wire::calls::encode_harp_blob_append;
use harp_wire::CallId;

use crate::session::settings::{say, LogLevel};
use crate::session::{one_way_bytes, session};

/// An image leaves in pieces of this many bytes.
const PIECE: usize = 1 << 20;

static LAST_BLOB: AtomicU64 = AtomicU64::new(0);

/// An image that the server holds.
#[derive(Clone, Copy)]
pub struct Uploaded {
    /// What a load call names it by.
    pub blob: u64,
}

/// Sends the image at `pointer`: a fatbin wrapper, a bare fatbin, an ELF or NUL-terminated PTX.
///
/// # Errors
/// `CUDA_ERROR_INVALID_IMAGE` when it is none of these, or what the session failed with.
///
/// # Safety
/// `pointer` is NULL or points at an image as `cuModuleLoadData` takes it.
pub unsafe fn upload_at(pointer: *const c_void) -> Result<Uploaded, CUresult> {
    if pointer.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    let image = unsafe { harp_cuda_image::flatten(pointer) }.map_err(|error| {
        say(
            LogLevel::Normal,
            &format!("a module image was refused: {error}"),
        );
        CUDA_ERROR_INVALID_IMAGE
    })?;
    upload(&image)
}

/// Sends an image of known length.
pub fn upload(image: &[u8]) -> Result<Uploaded, CUresult> {
    session()?;
    let blob = LAST_BLOB.fetch_add(1, Ordering::Relaxed) + 1;
    for piece in image.chunks(PIECE) {
        let status = one_way_bytes(
            CallId::harp_blob_append,
            |e| encode_harp_blob_append(e, blob),
            piece,
        );
        if status != CUDA_SUCCESS {
            return Err(status);
        }
    }
    Ok(Uploaded { blob })
}

/// Reads an image file whose path the program passed.
///
/// # Errors
/// `CUDA_ERROR_FILE_NOT_FOUND` when it cannot be read.
///
/// # Safety
/// `path` is NULL or a C string.
pub unsafe fn read_file(path: *const c_char) -> Result<Vec<u8>, CUresult> {
    if path.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    let path = std::ffi::OsStr::new(path.to_str().map_err(|_| CUDA_ERROR_INVALID_VALUE)?);
    std::fs::read(path).map_err(|_| CUDA_ERROR_FILE_NOT_FOUND)
}
