//! What every `libcuda.so.1` answers inside the program's own process, whether it forwards calls
//! (the interposer) or executes them (the soft GPU).
//!
//! * [`guard`], [`caught`] and [`unsupported`]: the frame around every exported symbol;
//! * [`default_stream`]: which stream a call without one means on this thread;
//! * [`context_stack`]: the calling thread's stack of current contexts;
//! * [`context_storage`]: values that runtimes keep per context, with destructors;
//! * [`lifecycle`]: initialised, forked, exited;
//! * [`export_table`]: the private tables that the CUDA runtime and libraries ask for;
//! * [`proc_address`]: `cuGetProcAddress`; [`errors`]: names and texts of codes;
//! * [`address_map`]: what is at which address; [`free_ranges`]: which addresses are free;
//! * [`boxes`]: two- and three-dimensional copies as programs describe them;
//! * [`host_memory`]: page-locked memory of the process;
//! * [`managed`]: managed memory without page tables in common;
//! * [`threads`]: a library's manners in threads, the program's and its own;
//! * [`notice`] and [`write_line`]: lines on stderr.
//!
//! A driver registers itself once with [`install`].

pub mod address_map;
pub mod boxes;
pub mod context_stack;
pub mod context_storage;
mod default_stream;
mod entry;
pub mod errors;
pub mod free_ranges;
mod front_driver;
pub mod host_memory;
pub mod lifecycle;
pub mod managed;
mod notices;
pub mod proc_address;
#[cfg(feature = "runtime-handshake")]
mod runtime_handshake;
pub mod threads;
mod visible_devices;

pub use default_stream::{default_stream, per_thread_stream, resolve_stream};
pub use entry::{caught, guard, tell_failure, unsupported, unsupported_calls};
pub use front_driver::{install, DeviceIdentity, FrontDriver};
pub use notices::{lines, notice, notice_once, quiet, talkative, write_line};
#[cfg(feature = "runtime-handshake")]
pub use runtime_handshake::export_table;
pub use visible_devices::visible_devices;

/// `cuGetExportTable` of a build without the runtime handshake: there are no private tables.
///
/// # Safety
/// `table` is null or points to a writable pointer.
#[cfg(not(feature = "runtime-handshake"))]
pub unsafe fn export_table(
    table: *mut *const core::ffi::c_void,
    _id: *const harp_cuda_abi::types::CUuuid,
) -> harp_cuda_abi::types::CUresult {
    if !table.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *table = core::ptr::null() };
    }
    harp_cuda_abi::types::CUDA_ERROR_INVALID_VALUE
}
