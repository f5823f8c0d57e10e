//! The driver calls by area, under their C names.
//!
//! This folder is unsafe by nature: every function is called by C code under the contract of
//! cuda.h. Pointers are null or what that contract says; anything null that must not be is refused.
//! A call without a `Safety` section asks for that contract and nothing else.
#![allow(non_snake_case, clippy::missing_safety_doc, clippy::too_many_arguments)]

mod context;
mod copies;
mod devices;
mod entry;
mod functions;
mod host_memory;
mod launches;
mod libraries;
mod linking;
mod managed;
mod memory;
mod modules;
mod occupancy;
mod placement;
mod pointers;
mod pools;
mod stream_values;
mod streams;
mod timing;
mod virtual_memory;

pub use context::*;
pub use copies::*;
pub use devices::*;
pub use entry::*;
pub use functions::*;
pub use host_memory::*;
pub use launches::*;
pub use libraries::*;
pub use linking::*;
pub use managed::{cuMemAdvise, cuMemAllocManaged, cuMemPrefetchAsync, cuStreamAttachMemAsync};
pub use memory::*;
pub use modules::*;
pub use occupancy::*;
pub use pointers::*;
pub use pools::*;
pub use stream_values::*;
pub use streams::*;
pub use timing::*;
pub use virtual_memory::*;
