//! A trace on disk: a folder, or the same packed into one tar. The grammar is docs/trace-format.md.
//!
//! Reading is of what a stranger may have made: sizes are capped before memory is taken, links are not
//! followed, nothing outside the trace is opened, and what is wrong is told with where it is.

mod alike;
mod blobs;
mod calls;
mod error;
mod folder;
mod frames;
mod manifest;
mod member;
mod tar;
mod trace;
mod writer;

pub use blobs::{hash_of, name_of, BlobWriter, Kept};
pub use calls::{Blocks, Located};
pub use error::{ErrorKind, TraceError};
pub use manifest::{reason_names, Counts, Manifest};
pub use tar::pack;
pub use trace::Trace;
pub use writer::{Finished, Writer};

/// The version of the format that is written here.
pub const FORMAT_MAJOR: u32 = 1;
pub const FORMAT_MINOR: u32 = 2;
/// The version of this reader: it reads every trace that asks for none newer.
pub const READER: u32 = 2;

/// Content of a frame, told in full, that is begun anew for the next block.
pub const FRAME_BYTES: usize = 1 << 20;
/// The most content of one frame, on disk and told in full.
pub(crate) const CONTENT_MAX: usize =
    FRAME_BYTES + crate::block::HEAD_BYTES + crate::block::BODY_MAX;

pub(crate) const MANIFEST: &str = "MANIFEST.json";
pub(crate) const INCOMPLETE: &str = "MANIFEST.json.incomplete";
pub(crate) const CALLS: &str = "calls.zst";
pub(crate) const BLOBS: &str = "blobs";
