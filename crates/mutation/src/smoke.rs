//! A short, seeded run of a fuzz target, as an ordinary test.
//!
//! `FUZZ_RUNS` and `FUZZ_SEED` in the environment replace the number of inputs and where they begin.
//! An input that makes the target panic is cut to what is needed for that; one that crashes it, takes
//! too much memory or too long is kept as it is. Either lands in `target/fuzz/`, and the message says
//! how to run it again (`FUZZ_INPUT=FILE`).

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::{mutate, Random};

/// Longest that one input may take. Machines that run tests are loaded.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fuzz target with its seeds.
pub struct Smoke<'a> {
    /// Name of the target.
    pub name: &'a str,
    /// Good inputs to begin with.
    pub seeds: Vec<Vec<u8>>,
    /// Inputs of an ordinary run.
    pub runs: u64,
    /// Longest input, in bytes.
    pub longest: usize,
}

/// The files of a folder, in the order of their names.
pub fn seeds(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no seeds in {folder:?}");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

impl Smoke<'_> {
    /// Runs the target on its seeds, then on mutations of them and of mutations.
    pub fn run(self, target: impl Fn(&[u8])) {
        watch(self.name);
        if let Some(path) = std::env::var_os("FUZZ_INPUT") {
            return one(&fs::read(path).unwrap(), &target);
        }
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let runs = number("FUZZ_RUNS").unwrap_or(self.runs);
        let first = number("FUZZ_SEED").unwrap_or(0);
        for seed in &self.seeds {
            self.judge(seed, &target, u64::MAX);
        }
        let mut bytes = Vec::new();
        for run in first..first + runs {
            let mut random = Random::new(run);
            // A few generations from one seed, so that changes add up.
            if run % 8 == 0 || run == first {
                bytes.clone_from(random.pick(&self.seeds));
            }
            mutate(&mut bytes, &self.seeds, self.longest, &mut random);
            self.judge(&bytes, &target, run);
        }
    }

    fn judge(&self, bytes: &[u8], target: &impl Fn(&[u8]), run: u64) {
        if catch_unwind(AssertUnwindSafe(|| one(bytes, target))).is_ok() {
            return;
        }
        let needed = minimise(bytes, |bytes| {
            catch_unwind(AssertUnwindSafe(|| one(bytes, target))).is_err()
        });
        let path = keep(self.name, &needed);
        panic!(
            "{}: input {run} makes it panic: FUZZ_INPUT={} runs it again",
            self.name,
            path.display()
        );
    }
}

/// Runs one input, with the watch on it.
fn one(bytes: &[u8], target: &impl Fn(&[u8])) {
    CURRENT_LEN.store(bytes.len(), SeqCst);
    CURRENT.store(bytes.as_ptr().cast_mut(), SeqCst);
    STARTED.fetch_add(1, SeqCst);
    target(bytes);
    CURRENT.store(std::ptr::null_mut(), SeqCst);
}

/// Cuts pieces out, large ones first, as long as what is left still fails.
fn minimise(bytes: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut piece = bytes.len().div_ceil(2);
    let mut tries = 2000;
    while piece > 0 && tries > 0 {
        let mut at = 0;
        while at < bytes.len() && tries > 0 {
            tries -= 1;
            let mut shorter = bytes.clone();
            shorter.drain(at..(at + piece).min(bytes.len()));
            if fails(&shorter) {
                bytes = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    bytes
}

fn keep(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz");
    let path = folder.join(format!("{name}-{}.bin", std::process::id()));
    let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, bytes));
    if let Err(error) = kept {
        eprintln!("cannot keep the input: {error}");
    }
    path
}

static CURRENT: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static CURRENT_LEN: AtomicUsize = AtomicUsize::new(0);
static STARTED: AtomicU64 = AtomicU64::new(0);
static NAME: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());
static FAILING: AtomicBool = AtomicBool::new(false);

/// Keeps the input at hand and ends the process: for what cannot be caught.
fn give_up(cause: &str) -> ! {
    if !FAILING.swap(true, SeqCst) {
        let (input, name) = (CURRENT.load(SeqCst), NAME.load(SeqCst));
        if !input.is_null() && !name.is_null() {
            // SAFETY: `one` has stored what lives until it takes it back; `watch` has leaked the name.
            let (bytes, name) = unsafe {
                let len = CURRENT_LEN.load(SeqCst);
                (std::slice::from_raw_parts(input, len), &*name)
            };
            let path = keep(name, bytes);
            eprintln!(
                "{name}: {cause}: FUZZ_INPUT={} runs it again",
                path.display()
            );
        }
    }
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(101) }
}

/// Sees to crashes and to inputs that take too long. One target runs in a process at a time.
fn watch(name: &str) {
    let leaked = Box::into_raw(Box::new(name.to_owned()));
    if !NAME.swap(leaked, SeqCst).is_null() {
        return;
    }
    extern "C" fn crashed(_: libc::c_int) {
        // What is not safe in a handler may hang or crash again; the process ends either way.
        give_up("crashes");
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
        // SAFETY: a plain function as the handler.
        unsafe { libc::signal(signal, crashed as *const () as libc::sighandler_t) };
    }
    std::thread::spawn(|| loop {
        let before = STARTED.load(SeqCst);
        std::thread::sleep(PATIENCE);
        if before == STARTED.load(SeqCst) && !CURRENT.load(SeqCst).is_null() {
            give_up("does not end");
        }
    });
}

/// An allocator that ends the test when the target takes more than `MOST` bytes in all: make it the
/// test's `#[global_allocator]`.
pub struct Bounded<const MOST: usize>;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed to the system's allocator; only bytes are counted.
unsafe impl<const MOST: usize> GlobalAlloc for Bounded<MOST> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if TAKEN.fetch_add(layout.size(), SeqCst) + layout.size() > MOST && !FAILING.load(SeqCst) {
            give_up("takes too much memory");
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_cut_to_what_it_takes() {
        let bytes = b"a long text with one ! in it, and more".to_vec();
        assert_eq!(minimise(&bytes, |bytes| bytes.contains(&b'!')), b"!");
    }

    #[test]
    fn a_panic_is_found_and_kept() {
        let found = catch_unwind(|| {
            let smoke = Smoke {
                name: "self_test",
                seeds: vec![b"size 12".to_vec()],
                runs: 10_000,
                longest: 100,
            };
            smoke.run(|bytes| assert!(!bytes.starts_with(b"size 9")));
        });
        let message = *found.unwrap_err().downcast::<String>().unwrap();
        let path = message
            .split("FUZZ_INPUT=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap();
        assert_eq!(fs::read(path).unwrap(), b"size 9");
        fs::remove_file(path).unwrap();
    }
}
