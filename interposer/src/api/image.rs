//! Module images on their way to the server: found in the program's memory, sent in pieces.

use std::ffi::{c_char, c_void, CStr};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::Session;
use harp_content::{PIECE, PIECES_MISSING};
use harp_cuda_abi::types::*;
use harp_cuda_image::{reduce, ImageError, HOW_TO_GET_PTX};
use harp_driver_front::notice_once;

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

/// Sends an image, and then has `load` make the call that loads it by its number. What the server has of it is named
/// rather than sent; where it has not, after all, everything is sent and loaded again.
pub fn load(session: &Session, image: &[u8], mut load: impl FnMut(u64) -> CUresult) -> CUresult {
    let mut sent = |may_name| {
        let blob = LAST_BLOB.fetch_add(1, Ordering::Relaxed) + 1;
        let mut named = false;
        for piece in image.chunks(PIECE) {
            named |= session.append_to_blob(blob, piece, may_name)?;
        }
        Ok((load(blob), named))
    };
    let status = sent(true).and_then(|(status, named)| match status {
        PIECES_MISSING if named => sent(false).map(|(status, _)| status),
        status => Ok(status),
    });
    status.unwrap_or_else(|code| code)
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
