//! From an image's bytes to a PTX program, with words for what is wrong with it.

use core::ffi::c_void;
use std::sync::Arc;

use harp_cuda_abi::types::{
    CUresult, CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_PTX, CUDA_ERROR_NO_BINARY_FOR_GPU,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
};
use harp_cuda_image::{flatten, select, ImageError, Ptx, HOW_TO_GET_PTX};
use harp_driver_front::notice_once;
use harp_softgpu_engine::{Module as Program, PtxError};

use crate::settings::settings;

/// The major number of the newest PTX version, CUDA 13's.
const NEWEST_PTX: u32 = 9;

/// A refused image: the code for the program and the words for its log.
#[derive(Debug)]
pub struct Refusal {
    pub code: CUresult,
    pub words: String,
}

impl Refusal {
    /// Says on stderr what is wrong (once: a library has many images alike), and is the code.
    pub fn tell(self) -> CUresult {
        notice_once(&self.words);
        self.code
    }

    /// A refused PTX text or kernel.
    pub fn of_ptx(what: &str, error: &PtxError) -> Self {
        Self {
            code: CUDA_ERROR_INVALID_PTX,
            words: format!("{what}: {error}"),
        }
    }
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::NoPtx { .. } => Self {
                code: CUDA_ERROR_NO_BINARY_FOR_GPU,
                words: format!("{error}; {HOW_TO_GET_PTX}"),
            },
            other => Self {
                code: CUDA_ERROR_INVALID_IMAGE,
                words: other.to_string(),
            },
        }
    }
}

/// The PTX texts that an image holds for this device.
///
/// # Errors
/// What is wrong with the image.
pub fn texts_of(image: &[u8]) -> Result<Vec<Ptx>, Refusal> {
    let (major, minor) = settings().compute_capability;
    Ok(select(image, (major * 10 + minor) as u32)?)
}

/// What a module or library is made from.
#[derive(Clone)]
pub struct Code {
    pub program: Arc<Program>,
}

/// The code of an image. What several fatbins hold is linked by putting the texts one after the
/// other (programs built from separately compiled files come like that).
///
/// # Errors
/// As for [`texts_of`], and what is wrong with the text as a whole.
pub fn code_of(image: &[u8]) -> Result<Code, Refusal> {
    let mut texts = texts_of(image)?.into_iter().map(|ptx| ptx.text);
    let mut whole = texts.next().unwrap_or_default();
    for text in texts {
        whole.push(b'\n');
        whole.extend(text);
    }
    match Program::parse(whole) {
        Ok(program) if program.isa_version().0 > NEWEST_PTX => {
            let (major, minor) = program.isa_version();
            Err(Refusal {
                code: CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
                words: format!(
                    "PTX {major}.{minor} is newer than this device, which takes {NEWEST_PTX}.x"
                ),
            })
        }
        Ok(program) => Ok(Code {
            program: Arc::new(program),
        }),
        Err(error) => Err(Refusal::of_ptx("PTX", &error)),
    }
}

/// The code of the image at a pointer.
///
/// # Errors
/// As for [`code_of`].
///
/// # Safety
/// `image` points to a readable image or wrapper.
pub unsafe fn code_at(image: *const c_void) -> Result<Code, Refusal> {
    // SAFETY: the caller's promise.
    code_of(&unsafe { flatten(image) }?)
}
