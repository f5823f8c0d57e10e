//! Device code as programs hand it to a driver: fatbins, cubins, PTX text.
//!
//! The container formats are not documented; what is known of them comes from observing what
//! `nvcc` and the CUDA libraries produce. Two halves:
//!
//! * [`in_memory`]: an image of the calling program named by a bare pointer, without a length.
//!   Trusts the program, as every driver must.
//! * [`archive`], [`container`], [`select`]: the bytes of an image, from anyone. Never reads outside them and
//!   never allocates by a size that the bytes merely claim.

pub mod archive;
pub mod container;
mod decompress;
pub mod in_memory;
pub mod select;

use core::fmt;

pub use archive::embedded;
pub use container::{fatbins, Entry, Fatbin, Kind};
pub use in_memory::{flatten, image_len};
pub use select::{reduce, select, Ptx};

/// Magic word of the wrapper struct that `nvcc` puts into host programs.
pub const WRAPPER_MAGIC: u32 = 0x4662_43b1;
/// Magic word of a fatbin header.
pub const FATBIN_MAGIC: u32 = 0xBA55_ED50;
/// First four bytes of an ELF file.
pub const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// What a person can do about [`ImageError::NoPtx`] on a device that executes PTX.
pub const HOW_TO_GET_PTX: &str =
    "the soft GPU executes PTX. What gives PTX: CUPY_COMPILE_WITH_PTX=1 for CuPy, nvcc \
     -gencode arch=compute_80,code=compute_80 for nvcc programs (docs/clients-setup.md has more)";

/// Why an image could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The image ends before what it announces.
    Truncated,
    /// Neither a fatbin, nor ELF, nor PTX text.
    UnknownForm,
    /// Fields that contradict each other; names the field.
    Corrupt(&'static str),
    /// Larger than this library is ready to unpack.
    TooLarge,
    /// Machine code only: the architectures (75, 90, ...) that it is for.
    NoPtx { machine_code_for: Vec<u32> },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the image is truncated"),
            Self::UnknownForm => write!(f, "the image is neither a fatbin, nor a cubin, nor PTX"),
            Self::Corrupt(field) => write!(f, "the image is corrupt ({field})"),
            Self::TooLarge => write!(f, "the image is too large"),
            Self::NoPtx { machine_code_for } => {
                write!(f, "the image holds machine code")?;
                for (index, arch) in machine_code_for.iter().enumerate() {
                    write!(f, "{} sm_{arch}", if index == 0 { " for" } else { "," })?;
                }
                write!(f, " and no PTX")
            }
        }
    }
}

impl std::error::Error for ImageError {}
