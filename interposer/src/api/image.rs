//! Module images on their way to the server: found in the program's memory, sent in pieces.

use std::ffi::{c_char, c_void, CStr};
use std::sync::atomic::{AtomicU64, Ordering};

use harp_cuda_abi::types::*;
use harp_cuda_image::{reduce, ImageError, HOW_TO_GET_PTX};
use harp_driver_front::notice_once;
use harp_wire::calls::encode_harp_blob_append;
use harp_wire::CallId;

use crate::session::Session;

/// An image leaves in pieces of this many bytes.
const PIECE: usize = 1 << 20;

static LAST_BLOB: AtomicU64 = AtomicU64::new(0);

/// Why an image was not loaded: the code, and words for the program's log (empty where the server
/// has none).
pub struct Refusal {
    pub code: CUresult,
    pub words: String,
}

impl From<CUresult> for Refusal {
    fn from(code: CUresult) -> Self {
        Self {
            code,
            words: String::new(),
        }
    }
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        let (code, words) = match error {
            ImageError::NoPtx { .. } => (
                CUDA_ERROR_NO_BINARY_FOR_GPU,
                format!("{error}; {HOW_TO_GET_PTX}"),
            ),
            other => (CUDA_ERROR_INVALID_IMAGE, other.to_string()),
        };
        notice_once(&words);
        Self { code, words }
    }
}

/// An image that the server holds.
#[derive(Clone, Copy)]
pub struct Uploaded {
    /// What a load call names it by.
    pub blob: u64,
}

/// The image at `pointer`: a fatbin wrapper, a bare fatbin, an ELF or NUL-terminated PTX.
///
/// # Errors
/// `CUDA_ERROR_INVALID_IMAGE` when it is none of these.
///
/// # Safety
/// `pointer` is NULL or points at an image as `cuModuleLoadData` takes it.
pub unsafe fn image_at(pointer: *const c_void) -> Result<Vec<u8>, Refusal> {
    if pointer.is_null() {
        return Err(CUDA_ERROR_INVALID_VALUE.into());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { harp_cuda_image::flatten(pointer) }?)
}

/// What a session's devices need of a module image. A soft GPU executes PTX and nothing else: of a
/// fatbin only what it will take is sent, which for a library of many architectures is a small part.
///
/// # Errors
/// `CUDA_ERROR_NO_BINARY_FOR_GPU` where a soft GPU finds no PTX.
pub fn needed(session: &Session, image: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    match session.soft_architecture {
        Some(architecture) => Ok(reduce(image, architecture)?),
        None => Ok(image),
    }
}

/// Sends bytes as they are.
pub fn upload(session: &Session, image: &[u8]) -> Result<Uploaded, CUresult> {
    let blob = LAST_BLOB.fetch_add(1, Ordering::Relaxed) + 1;
    for piece in image.chunks(PIECE) {
        let status = session.one_way_bytes(
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
