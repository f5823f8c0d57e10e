//! What kernels print.
//!
//! As with CUDA, device `printf` appears when the program synchronises (or the buffer is full), and
//! goes through the C library's stdout, so that it keeps its place among the program's own output.

use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use harp_softgpu_engine::Console;

/// Bytes that are kept back at most.
const KEPT_MAX: usize = 1 << 20;

#[derive(Default)]
struct Output(Mutex<Vec<u8>>);

impl Console for Output {
    fn print(&self, text: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(text);
        if kept.len() > KEPT_MAX {
            write(&core::mem::take(&mut *kept));
        }
    }
}

static OUTPUT: LazyLock<Arc<Output>> = LazyLock::new(Arc::default);

/// Where kernels print.
pub fn console() -> Arc<dyn Console> {
    OUTPUT.clone()
}

/// Shows what kernels have printed so far.
pub fn flush() {
    let kept = core::mem::take(&mut *OUTPUT.0.lock().unwrap_or_else(PoisonError::into_inner));
    if !kept.is_empty() {
        write(&kept);
    }
}

fn write(text: &[u8]) {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    let _uncancelled = harp_driver_front::threads::Uncancelled::new();
    // SAFETY: the C library's own stream, locked by fwrite itself.
    unsafe { libc::fwrite(text.as_ptr().cast::<c_void>(), 1, text.len(), stdout) };
}
