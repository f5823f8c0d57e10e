//! What kernels print.
//!
//! Each context has a buffer of a size that the program can set (`CU_LIMIT_PRINTF_FIFO_SIZE`). As CUDA
//! documents it, what is in there appears when the program synchronises, copies and waits, launches,
//! loads or unloads a module, before a host function runs, and when the context ends; not when the
//! program just ends. When the buffer is full, older text makes room for newer.
//!
//! Text goes through the C library's stdout, so that it keeps its place among the program's own
//! output; failed assertions go through its stderr.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_driver_front::context_stack;
use harp_driver_front::threads::Uncancelled;
use harp_softgpu_engine::{Console, Text};

use crate::context::CONTEXTS;

/// Bytes of a context's buffer that has not been given another size.
pub const DEFAULT_BYTES: usize = 1 << 20;

/// Bytes of lines about failed assertions that are kept at most: a grid that fails fails in many
/// threads at once.
const COMPLAINTS_MAX: usize = 1 << 20;

extern "C" {
    static stdout: *mut libc::FILE;
    static stderr: *mut libc::FILE;
    fn flockfile(file: *mut libc::FILE);
    fn funlockfile(file: *mut libc::FILE);
}

/// How often something has been written.
static SHOWN: AtomicU64 = AtomicU64::new(0);

/// How often what kernels had printed has been shown: counted when it has been written.
pub fn shown() -> u64 {
    SHOWN.load(Ordering::Acquire)
}

/// The buffer of one context.
pub struct Fifo {
    kept: Mutex<Kept>,
    /// Whether anything is kept.
    any: AtomicBool,
}

struct Kept {
    /// What the program may fill, in bytes as [`cost`] counts them.
    bytes: usize,
    filled: usize,
    texts: VecDeque<Text>,
    complaints: Vec<u8>,
}

/// Bytes that a call of `printf` takes of the buffer. A GPU keeps the format's address and the
/// arguments, and text is made of them on the host; here the text is kept, and its length counts a
/// little, so that what is kept stays within a few times the buffer's size.
fn cost(text: &Text) -> usize {
    16 + 8 * text.arguments as usize + text.bytes.len() / 8
}

impl Fifo {
    /// An empty buffer of [`DEFAULT_BYTES`].
    pub fn new() -> Self {
        Self {
            kept: Mutex::new(Kept {
                bytes: DEFAULT_BYTES,
                filled: 0,
                texts: VecDeque::new(),
                complaints: Vec::new(),
            }),
            any: AtomicBool::new(false),
        }
    }

    /// Gives the buffer another size; what is in there stays until something is added.
    pub fn resize(&self, bytes: usize) {
        self.lock().bytes = bytes;
    }

    /// Shows what kernels have printed so far.
    pub fn flush(&self) {
        if self.any.load(Ordering::Acquire) {
            let _uncancelled = Uncancelled::new();
            // SAFETY: the C library's own streams.
            unsafe { self.write(stdout, stderr) };
            SHOWN.fetch_add(1, Ordering::Release);
        }
    }

    /// Writes what is kept. Text is taken out under the stream's own lock, so that it stays in order
    /// whichever threads write, and a thread that comes second finds it written.
    ///
    /// # Safety
    /// Both are streams of the C library.
    unsafe fn write(&self, out: *mut libc::FILE, error: *mut libc::FILE) {
        let put = |bytes: &[u8], file| {
            // SAFETY: the bytes are there, the stream is the caller's. It may be closed, which is the
            // program's own choice.
            unsafe { libc::fwrite(bytes.as_ptr().cast::<c_void>(), 1, bytes.len(), file) };
        };
        // SAFETY: locked and unlocked in pairs.
        unsafe {
            flockfile(out);
            let texts = {
                let mut kept = self.lock();
                self.any
                    .store(!kept.complaints.is_empty(), Ordering::Release);
                kept.filled = 0;
                std::mem::take(&mut kept.texts)
            };
            texts.iter().for_each(|text| put(&text.bytes, out));
            funlockfile(out);

            flockfile(error);
            let complaints = {
                let mut kept = self.lock();
                self.any.store(!kept.texts.is_empty(), Ordering::Release);
                std::mem::take(&mut kept.complaints)
            };
            put(&complaints, error);
            funlockfile(error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console for Fifo {
    fn print(&self, texts: Vec<Text>) {
        let mut kept = self.lock();
        for text in texts {
            kept.filled += cost(&text);
            kept.texts.push_back(text);
            while kept.filled > kept.bytes {
                let Some(oldest) = kept.texts.pop_front() else {
                    break;
                };
                kept.filled -= cost(&oldest);
            }
        }
        self.any.store(true, Ordering::Release);
    }

    fn complain(&self, line: &[u8]) {
        let mut kept = self.lock();
        if kept.complaints.len() + line.len() <= COMPLAINTS_MAX {
            kept.complaints.extend_from_slice(line);
        }
        self.any.store(true, Ordering::Release);
    }
}

/// Shows what kernels of the calling thread's current context have printed, whatever state that is in.
pub fn flush_current() {
    if let Some(context) = CONTEXTS.get(context_stack::current()) {
        context.printed.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &str, arguments: u64) -> Text {
        Text {
            bytes: line.into(),
            arguments,
        }
    }

    fn written(fifo: &Fifo) -> (String, String) {
        let mut files = [(std::ptr::null_mut(), 0usize); 2];
        // SAFETY: the places outlive the streams; each stream is closed once and leaves its text.
        unsafe {
            let [out, error] = files
                .each_mut()
                .map(|(text, size)| libc::open_memstream(text, size));
            fifo.write(out, error);
            libc::fclose(out);
            libc::fclose(error);
            let [out, error] = files.map(|(text, size)| {
                let bytes = std::slice::from_raw_parts(text.cast::<u8>(), size).to_vec();
                libc::free(text.cast());
                String::from_utf8(bytes).unwrap()
            });
            (out, error)
        }
    }

    #[test]
    fn text_and_complaints_are_written_once() {
        let fifo = Fifo::new();
        fifo.print(vec![text("a 1\n", 1), text("b\n", 0)]);
        fifo.complain(b"no\n");
        fifo.print(vec![text("c\n", 0)]);
        assert_eq!(written(&fifo), ("a 1\nb\nc\n".into(), "no\n".into()));
        assert!(!fifo.any.load(Ordering::Relaxed));
        assert_eq!(written(&fifo), (String::new(), String::new()));
    }

    #[test]
    fn newer_text_takes_the_place_of_older() {
        let fifo = Fifo::new();
        fifo.resize(100);
        for n in 0..1000 {
            fifo.print(vec![text(&format!("{n}\n"), 1)]);
        }
        // Each costs 24.
        assert_eq!(written(&fifo).0, "996\n997\n998\n999\n");
        fifo.print(vec![text(&"x".repeat(4000), 0)]);
        assert_eq!(written(&fifo).0, "");
    }

    #[test]
    fn complaints_are_bounded() {
        let fifo = Fifo::new();
        let line = [b'x'; 1000];
        (0..5000).for_each(|_| fifo.complain(&line));
        assert_eq!(written(&fifo).1.len(), COMPLAINTS_MAX / 1000 * 1000);
    }
}
