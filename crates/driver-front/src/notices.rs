//! Lines for the person at the terminal.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use once_cell::race::OnceBool;

use crate::threads::Uncancelled;

/// Whether `HARP_LOG=quiet` asks for silence.
pub fn quiet() -> bool {
    static QUIET: OnceBool = OnceBool::new();
    QUIET.get_or_init(|| std::env::var_os("HARP_LOG").is_some_and(|level| level == "quiet"))
}

/// Whether `HARP_LOG=debug` asks for everything.
pub fn talkative() -> bool {
    static TALKATIVE: OnceBool = OnceBool::new();
    TALKATIVE.get_or_init(|| std::env::var_os("HARP_LOG").is_some_and(|level| level == "debug"))
}

/// Writes one line `harp: text` to stderr, unless `HARP_LOG=quiet`. Never fails: a closed stderr
/// is the program's own choice.
pub fn notice(text: &str) {
    if !quiet() {
        write_line(text);
    }
}

/// As [`notice`]; a text that was said before is not said again. (It is, where another thread says
/// something at this moment: nobody waits for a lock here that a forked child may find taken.)
pub fn notice_once(text: &str) {
    /// Most texts that are remembered; what comes after them is said every time.
    const REMEMBERED: usize = 1000;
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let is_new = match SAID.try_lock() {
        Ok(mut said) => {
            let said = said.get_or_insert_default();
            said.len() >= REMEMBERED || said.insert(text.to_owned())
        }
        Err(_) => true,
    };
    if is_new {
        notice(text);
    }
}

/// Writes one line `harp: text` to stderr, whatever `HARP_LOG` says.
///
/// The standard library's stderr has a lock that a forked child may find taken for ever, and a
/// stderr that nobody reads any more must not kill the program with SIGPIPE; so neither is relied
/// on here.
pub fn write_line(text: &str) {
    let line = format!("harp: {text}\n");
    let _uncancelled = Uncancelled::new();
    let mut left = line.as_bytes();
    while !left.is_empty() && !is_broken(libc::STDERR_FILENO) {
        // SAFETY: the pointer and length are those of a live slice.
        let written = unsafe { libc::write(libc::STDERR_FILENO, left.as_ptr().cast(), left.len()) };
        match usize::try_from(written) {
            Ok(count) if count > 0 => left = &left[count.min(left.len())..],
            _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
    LINES.fetch_add(1, Ordering::Release);
}

/// Lines that have been written.
static LINES: AtomicU64 = AtomicU64::new(0);

/// How many lines have been written.
pub fn lines() -> u64 {
    LINES.load(Ordering::Acquire)
}

/// Whether `file` is a pipe whose reader is gone, or nothing at all.
fn is_broken(file: libc::c_int) -> bool {
    let mut polled = libc::pollfd {
        fd: file,
        events: 0,
        revents: 0,
    };
    // SAFETY: one entry on the stack, and no waiting.
    unsafe { libc::poll(&mut polled, 1, 0) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_harms_nobody() {
        // SAFETY: the child makes a pipe without a reader its stderr and leaves with _exit.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                let mut ends = [0; 2];
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                libc::pipe(ends.as_mut_ptr());
                libc::close(ends[0]);
                libc::dup2(ends[1], libc::STDERR_FILENO);
                write_line("nobody hears this");
                libc::_exit(7);
            }
            let mut status = 0;
            libc::waitpid(child, &mut status, 0);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7);
        }
    }
}
