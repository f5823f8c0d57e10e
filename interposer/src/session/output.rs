//! Text that kernels print, on its way to the program's own streams.
//!
//! It goes through the C library's `stdout` and `stderr`, as the driver of a local device writes it, so
//! that it keeps its place among what the program itself prints, is buffered as that is, and goes
//! where that goes. A thread that waits for the device writes what came before its reply, on its way
//! back to the program. Whoever reads from the server only queues: the program may hold a stream's
//! lock while it waits for a reply that another thread reads.
//!
//! Lock order: the stream's own lock before [`Lane::queued`].

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use harp_driver_front::threads::Uncancelled;
use harp_wire::push::OutputStream;

use super::settings::{say, LogLevel};

/// From so many bytes on, whoever reads writes too, if the program does not hold the stream.
const QUEUED_SOON: usize = 1 << 20;
/// So many bytes are queued at most; what comes then is lost.
const QUEUED_MAX: usize = 64 << 20;

extern "C" {
    static stdout: *mut libc::FILE;
    static stderr: *mut libc::FILE;
    fn flockfile(file: *mut libc::FILE);
    fn ftrylockfile(file: *mut libc::FILE) -> c_int;
    fn funlockfile(file: *mut libc::FILE);
}

/// What the server said that kernels printed, until it is written.
#[derive(Default)]
pub struct Output {
    out: Lane,
    error: Lane,
}

/// The text for one stream.
#[derive(Default)]
struct Lane {
    queued: Mutex<Vec<u8>>,
    /// Bytes that are queued or being written.
    unwritten: AtomicUsize,
}

impl Output {
    /// Queues text of the server.
    pub fn queue(&self, stream: OutputStream, text: &[u8]) {
        match stream {
            // SAFETY: the C library's own streams.
            OutputStream::Stdout => self.out.queue(text, || unsafe { stdout }),
            OutputStream::Stderr => self.error.queue(text, || unsafe { stderr }),
        }
    }

    /// Writes what has been queued; it has been written when this returns, whoever did it.
    #[inline]
    pub fn write(&self) {
        if self.out.unwritten.load(Ordering::Acquire) > 0 {
            // SAFETY: as in `queue`.
            self.out.write(unsafe { stdout });
        }
        if self.error.unwritten.load(Ordering::Acquire) > 0 {
            // SAFETY: as in `queue`.
            self.error.write(unsafe { stderr });
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.queued
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    fn queue(&self, text: &[u8], file: impl Fn() -> *mut libc::FILE) {
        let before = self.unwritten.fetch_add(text.len(), Ordering::AcqRel);
        if before + text.len() > QUEUED_MAX {
            self.unwritten.fetch_sub(text.len(), Ordering::AcqRel);
            static SAID: AtomicBool = AtomicBool::new(false);
            if !SAID.swap(true, Ordering::Relaxed) {
                say(
                    LogLevel::Normal,
                    "text that kernels printed is lost: the program keeps its own output locked",
                );
            }
            return;
        }
        self.lock().extend_from_slice(text);
        if before + text.len() > QUEUED_SOON {
            let file = file();
            let _uncancelled = Uncancelled::new();
            // SAFETY: a stream of the C library, unlocked below if it could be locked.
            unsafe {
                if ftrylockfile(file) == 0 {
                    self.write_locked(file);
                    funlockfile(file);
                }
            }
        }
    }

    #[cold]
    fn write(&self, file: *mut libc::FILE) {
        let _uncancelled = Uncancelled::new();
        // SAFETY: a stream of the C library; the lock counts, so that a thread which has it may
        // take it again.
        unsafe {
            flockfile(file);
            self.write_locked(file);
            funlockfile(file);
        }
    }

    /// # Safety
    /// The calling thread has locked `file`.
    unsafe fn write_locked(&self, file: *mut libc::FILE) {
        let text = std::mem::take(&mut *self.lock());
        // A program that has closed the stream loses the text, as it does with a local device.
        // SAFETY: the bytes are there; the stream is the C library's.
        unsafe { libc::fwrite(text.as_ptr().cast::<c_void>(), 1, text.len(), file) };
        self.unwritten.fetch_sub(text.len(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A stream that writes to memory, in place of the program's.
    struct Memory {
        file: *mut libc::FILE,
        /// Where the stream tells of its bytes when it is closed.
        text: Box<Cell<*mut libc::c_char>>,
        size: Box<Cell<libc::size_t>>,
    }

    impl Memory {
        fn open() -> Memory {
            let (text, size) = (Box::new(Cell::new(std::ptr::null_mut())), Box::default());
            // SAFETY: the places stay where they are until `fclose`.
            let file = unsafe { libc::open_memstream(text.as_ptr(), Cell::as_ptr(&size)) };
            Memory { file, text, size }
        }

        fn close(self) -> Vec<u8> {
            // SAFETY: closed once; the stream then leaves `size` bytes at `text`, which are ours.
            unsafe {
                libc::fclose(self.file);
                let (text, size) = (self.text.get(), self.size.get());
                let bytes = std::slice::from_raw_parts(text.cast(), size).to_vec();
                libc::free(text.cast());
                bytes
            }
        }
    }

    #[test]
    fn text_is_written_once_and_in_order_by_whoever_comes_first() {
        let (lane, memory) = (Lane::default(), Memory::open());
        let file = memory.file as usize;
        let line = |n: usize| format!("line {n} \0 of a kernel\n").into_bytes();
        std::thread::scope(|scope| {
            for n in 0..2000 {
                lane.queue(&line(n), || file as *mut libc::FILE);
                if n % 100 == 0 {
                    scope.spawn(|| lane.write(file as *mut libc::FILE));
                }
            }
        });
        lane.write(file as *mut libc::FILE);
        assert_eq!(lane.unwritten.load(Ordering::Relaxed), 0);
        let expected: Vec<u8> = (0..2000).flat_map(line).collect();
        assert_eq!(memory.close(), expected);
    }

    #[test]
    fn a_stream_that_the_program_keeps_locked_bounds_what_is_queued() {
        let (lane, memory) = (Lane::default(), Memory::open());
        let file = memory.file as usize;
        let piece = vec![b'x'; 1 << 20];
        // SAFETY: unlocked below.
        unsafe { flockfile(memory.file) };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..80 {
                    lane.queue(&piece, || file as *mut libc::FILE);
                }
            });
        });
        assert_eq!(lane.lock().len(), QUEUED_MAX);
        // The thread that has the lock can write.
        lane.write(memory.file);
        // SAFETY: locked above.
        unsafe { funlockfile(memory.file) };
        assert_eq!(memory.close().len(), QUEUED_MAX);
    }
}
