//! Executes PTX on the CPU.
//!
//! [`Module::parse`] indexes a PTX text, [`Module::kernel`] decodes one kernel of it into
//! operations over whole groups of warps, and [`Grid`] runs a launch on any number of threads.
//! There is no code generation: a kernel is ready in well under a millisecond, and whatever a
//! program does, the worst is a wrong number in its own memory or a [`Fault`].
//!
//! * [`ptx`]: the language: tokens, declarations, statements;
//! * [`decode`]: from statements to instructions;
//! * [`exec`]: running them;
//! * [`ops`]: the arithmetic of one lane, over many.

pub mod decode;
pub mod exec;
pub mod ops;
pub mod ptx;

pub use decode::Signature;
pub use exec::fault::{Fault, Place};
pub use exec::grid::{Console, DeviceMemory, Grid, Launch, Scratch, Text};
pub use exec::kernel::{Kernel, Param};
pub use ptx::initializer::Relocation;
pub use ptx::module::{Module, Variable};
pub use ptx::types::Space;
pub use ptx::PtxError;
