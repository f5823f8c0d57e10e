//! Which stream a call means that names none.
//!
//! CUDA has two default streams: the *legacy* one, which synchronises with every blocking stream of
//! its context, and one *per thread*. A program compiled for per-thread default streams reaches the
//! `_ptds`/`_ptsz` twins of the entry points; these run the plain call inside
//! [`per_thread_stream`].

use std::cell::Cell;

use harp_cuda_abi::types::{CUstream, CU_STREAM_LEGACY, CU_STREAM_PER_THREAD};

thread_local! {
    static PER_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call` with the calling thread's own stream as the default stream.
pub fn per_thread_stream<R>(call: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            PER_THREAD.set(self.0);
        }
    }
    let _restore = Restore(PER_THREAD.replace(true));
    call()
}

/// `CU_STREAM_LEGACY`, or `CU_STREAM_PER_THREAD` inside [`per_thread_stream`].
pub fn default_stream() -> CUstream {
    if PER_THREAD.get() {
        CU_STREAM_PER_THREAD
    } else {
        CU_STREAM_LEGACY
    }
}

/// The stream that a handle means: null is the default stream of this call.
pub fn resolve_stream(stream: CUstream) -> CUstream {
    if stream.is_null() {
        default_stream()
    } else {
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_nests_and_is_restored() {
        assert_eq!(default_stream(), CU_STREAM_LEGACY);
        per_thread_stream(|| {
            assert_eq!(resolve_stream(core::ptr::null_mut()), CU_STREAM_PER_THREAD);
            per_thread_stream(|| ());
            assert_eq!(default_stream(), CU_STREAM_PER_THREAD);
        });
        assert_eq!(default_stream(), CU_STREAM_LEGACY);
        let own = 0x1234 as CUstream;
        assert_eq!(resolve_stream(own), own);
    }
}
