//! Memory of the devices and pinned memory of the host.

pub mod heap;
pub mod host;
pub mod pool;
pub mod virtual_memory;
pub mod window;
