//! The calls that the interposer answers or completes itself; all others are generated
//! (`generated::forward`). Every function has its C name, signature and contract (cuda.h), and is
//! called by the export of that name.
//!
//! These files are unsafe by nature: their pointers are the program's.
#![allow(non_snake_case, clippy::missing_safety_doc, clippy::too_many_arguments)]

mod context;
mod copy;
mod copy_between;
mod copy_shaped;
mod device;
mod event;
mod foretold;
mod front;
mod function;
mod host_function;
mod host_memory;
mod image;
mod jit_options;
mod launch;
mod launch_attributes;
mod library;
mod link;
mod managed;
mod memory;
mod memset;
mod module;
mod occupancy;
mod outputs;
mod pointer;
mod pool;
mod stream;
mod tensor_map;

pub use context::*;
pub use copy::*;
pub use copy_between::*;
pub use copy_shaped::*;
pub use device::*;
pub use event::*;
pub use front::*;
pub use function::*;
pub use host_function::*;
pub use host_memory::*;
pub use launch::*;
pub use library::*;
pub use link::*;
pub use managed::{
    cuMemAdvise, cuMemAllocManaged, cuMemHostGetDevicePointer_v2, cuMemPrefetchAsync,
    cuStreamAttachMemAsync, shared_with_device, shown_to_another,
};
pub use memory::*;
pub use memset::*;
pub use module::*;
pub use occupancy::*;
pub use pointer::*;
pub use pool::*;
pub use stream::*;
pub use tensor_map::*;
