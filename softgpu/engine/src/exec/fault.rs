//! What can go wrong while a kernel runs.

use std::fmt;

/// Where in a launch something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub kernel: String,
    /// The function, if it is not the kernel itself.
    pub function: Option<String>,
    /// Line of the PTX text.
    pub line: u32,
    pub block: [u32; 3],
    pub thread: [u32; 3],
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            kernel,
            function,
            line,
            block: [bx, by, bz],
            thread: [tx, ty, tz],
        } = self;
        write!(f, "kernel `{kernel}`")?;
        if let Some(function) = function {
            write!(f, ", function `{function}`")?;
        }
        write!(
            f,
            ", PTX line {line}, block ({bx},{by},{bz}), thread ({tx},{ty},{tz})"
        )
    }
}

/// Why a launch ended before its last block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An access outside every allocation. CUDA: `CUDA_ERROR_ILLEGAL_ADDRESS`.
    IllegalAddress {
        place: Place,
        address: u64,
        bytes: u32,
    },
    /// An address that is not a multiple of the access size. CUDA: `CUDA_ERROR_MISALIGNED_ADDRESS`.
    MisalignedAddress {
        place: Place,
        address: u64,
        bytes: u32,
    },
    /// An instruction or call that cannot be carried out. CUDA: `CUDA_ERROR_ILLEGAL_INSTRUCTION`.
    IllegalInstruction { place: Place, reason: String },
    /// A failed `assert`. CUDA: `CUDA_ERROR_ASSERT`.
    Assert { place: Place, message: String },
    /// `trap`. CUDA: `CUDA_ERROR_LAUNCH_FAILED`.
    Trap { place: Place },
    /// Threads wait for each other and none can go on. CUDA programs hang here.
    Deadlock { place: Place, waiting: String },
    /// Calls nested deeper than a thread's local memory. CUDA: `CUDA_ERROR_LAUNCH_FAILED`.
    StackOverflow { place: Place },
    /// The host has no memory for the block. CUDA: `CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES`.
    OutOfMemory { kernel: String, bytes: u64 },
    /// [`Grid::cancel`](super::grid::Grid::cancel) was called.
    Cancelled,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::IllegalAddress {
                place,
                address,
                bytes,
            } => {
                write!(f, "illegal address {address:#x} ({bytes} bytes) in {place}")
            }
            Fault::MisalignedAddress {
                place,
                address,
                bytes,
            } => {
                write!(
                    f,
                    "address {address:#x} is not a multiple of {bytes} in {place}"
                )
            }
            Fault::IllegalInstruction { place, reason } => write!(f, "{reason} in {place}"),
            Fault::Assert { place, message } => {
                write!(f, "assertion `{message}` failed in {place}")
            }
            Fault::Trap { place } => write!(f, "trap in {place}"),
            Fault::Deadlock { place, waiting } => write!(f, "deadlock: {waiting} in {place}"),
            Fault::StackOverflow { place } => write!(f, "calls nested too deeply in {place}"),
            Fault::OutOfMemory { kernel, bytes } => {
                write!(
                    f,
                    "no host memory for a block of kernel `{kernel}` ({bytes} bytes)"
                )
            }
            Fault::Cancelled => write!(f, "the launch was cancelled"),
        }
    }
}

impl std::error::Error for Fault {}

/// A fault as the operation that met it knows it; the scheduler adds the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    Address { address: u64, bytes: u32 },
    Misaligned { address: u64, bytes: u32 },
    Instruction(String),
    Assert(String),
    Trap,
    Stack,
}

impl Violation {
    /// The fault that the violation is at `place`.
    pub fn at(self, place: Place) -> Fault {
        match self {
            Violation::Address { address, bytes } => Fault::IllegalAddress {
                place,
                address,
                bytes,
            },
            Violation::Misaligned { address, bytes } => Fault::MisalignedAddress {
                place,
                address,
                bytes,
            },
            Violation::Instruction(reason) => Fault::IllegalInstruction { place, reason },
            Violation::Assert(message) => Fault::Assert { place, message },
            Violation::Trap => Fault::Trap { place },
            Violation::Stack => Fault::StackOverflow { place },
        }
    }
}
