//! From an image's bytes to PTX programs, with words for what is wrong with it.

use std::sync::Arc;

use harp_cuda_abi::types::{
    CUresult, CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_PTX, CUDA_ERROR_NO_BINARY_FOR_GPU,
};
use harp_cuda_image::{select, ImageError, Ptx};
use harp_driver_front::notice;
use harp_softgpu_engine::{Module as Program, PtxError};

use crate::settings::settings;

/// The PTX programs of an image: one for each fatbin in it.
pub type Programs = Vec<Arc<Program>>;

/// A refused image: the code for the program and the words for its log.
#[derive(Debug)]
pub struct Refusal {
    pub code: CUresult,
    pub words: String,
}

impl Refusal {
    /// Says on stderr what is wrong, and is the code.
    pub fn tell(self) -> CUresult {
        notice(&self.words);
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
                words: format!(
                    "{error}; the soft GPU executes PTX. What gives PTX: CUPY_COMPILE_WITH_PTX=1 \
                     for CuPy, nvcc -gencode arch=compute_80,code=compute_80 for nvcc programs"
                ),
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

/// The programs that an image holds for this device.
///
/// # Errors
/// As for [`texts_of`], and what is wrong with a text as a whole.
pub fn programs(image: &[u8]) -> Result<Programs, Refusal> {
    let parse = |ptx: Ptx| {
        let parsed = Program::parse(ptx.text);
        parsed
            .map(Arc::new)
            .map_err(|error| Refusal::of_ptx("PTX", &error))
    };
    texts_of(image)?.into_iter().map(parse).collect()
}
