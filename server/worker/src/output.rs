//! What the driver writes to this process's standard output and standard error: text that kernels
//! print, failed assertions. It belongs to the program, whose own streams it goes to.
//!
//! One way serves every driver: descriptors 1 and 2 are pipes to this process itself. NVIDIA's
//! driver writes there at calls that synchronise, the soft GPU at the same calls. Whatever they have
//! written is passed on before any reply that is sent later (`session::replies`), so a program finds
//! the text where it would with a local device: in front of what it prints once the call returns.
//! While the session has nothing to send, a thread of its own empties the pipes, for no driver is to
//! block in a call because its text is longer than a pipe.
//!
//! Nothing is kept here, so nothing grows: a client that does not read holds up the driver, as a
//! full pipe behind a program's own output would.
//!
//! Before the session, for panics of the worker itself, and for what a soft GPU says about itself, there is the log: what
//! stderr was.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use harp_wire::push::{OutputStream, OUTPUT_MAX};

/// Bytes that a pipe should hold, and the most that is passed on before one reply.
const PIPE_BYTES: usize = 1 << 20;

/// How each line begins that the soft GPU says about itself.
const NOTICE: &[u8] = b"harp: ";

extern "C" {
    static stdout: *mut libc::FILE;
}

/// The reading ends of the pipes.
pub struct Output {
    out: File,
    error: File,
    log: File,
    /// Whether what was passed on of stderr last ended within a line.
    within_line: bool,
    piece: Vec<u8>,
}

/// Takes a piece of text for a stream of the program.
pub type Sink<'a> = &'a mut dyn FnMut(OutputStream, &[u8]);

impl Output {
    /// Turns the process's standard streams into pipes. Nothing of this is possible in the jail.
    pub fn capture() -> io::Result<Self> {
        let log = duplicate(libc::STDERR_FILENO)?;
        let out = replace(libc::STDOUT_FILENO)?;
        let error = replace(libc::STDERR_FILENO)?;
        // SAFETY: the C library's own stream, before anything was written to it. It would ask for the
        // file's kind at its first write, which the jail refuses.
        unsafe { libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOFBF, OUTPUT_MAX) };
        let for_panics = log.try_clone()?;
        std::panic::set_hook(Box::new(move |panic| {
            let line = format!("harp-worker: {panic}\n");
            let _ = (&for_panics).write_all(line.as_bytes());
        }));
        Ok(Self {
            out,
            error,
            log,
            within_line: false,
            piece: vec![0; OUTPUT_MAX],
        })
    }

    /// Gives stderr back, for a worker that cannot start after all.
    pub fn release(self) {
        // SAFETY: both descriptors are open.
        unsafe { libc::dup2(self.log.as_raw_fd(), libc::STDERR_FILENO) };
    }

    /// The reading ends, for [`wait_for_text`]. They stay open as long as the process lives.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.out.as_raw_fd(), self.error.as_raw_fd()]
    }

    /// What was written before there was a session goes to the log.
    pub fn begin(&mut self) {
        settle();
        let Ok(log) = self.log.try_clone() else {
            return;
        };
        self.drain(&mut |_, text| {
            let _ = (&log).write_all(text);
        });
    }

    /// Passes on what the pipes hold.
    pub fn drain(&mut self, sink: Sink) {
        let [out, error] = match readable(self.descriptors(), 0) {
            [false, false] => return,
            ready => ready,
        };
        let mut piece = std::mem::take(&mut self.piece);
        if out {
            pass_on(&self.out, &mut piece, |text| {
                sink(OutputStream::Stdout, text)
            });
        }
        if error {
            let mut split = Splitter {
                held: Vec::new(),
                within_line: self.within_line,
            };
            let log = &self.log;
            let mut sink = |said: Said| match said {
                Said::ByProgram(text) => sink(OutputStream::Stderr, text),
                // About the device, for whoever runs the server.
                Said::BySoftGpu(line) => note(log, line),
            };
            pass_on(&self.error, &mut piece, |text| split.take(text, &mut sink));
            split.finish(&mut sink);
            self.within_line = split.within_line;
        }
        self.piece = piece;
    }
}

/// Writes a line of the soft GPU to the log, as it was. Who reads the log may be gone.
fn note(mut log: &File, notice: &[u8]) {
    let _ = log.write_all(&[NOTICE, notice, b"\n"].concat());
}

/// Sees that what the driver has written is in the pipes and not in the C library's buffer. May
/// block until somebody drains them.
pub fn settle() {
    // SAFETY: the C library's own stream. (Its stderr has no buffer.)
    unsafe { libc::fflush(stdout) };
}

/// Blocks until one of the pipes holds something.
pub fn wait_for_text(descriptors: [RawFd; 2]) {
    readable(descriptors, -1);
}

fn readable(descriptors: [RawFd; 2], timeout: libc::c_int) -> [bool; 2] {
    let mut polled = descriptors.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: two live entries.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, timeout) };
    polled.map(|entry| ready > 0 && entry.revents & libc::POLLIN != 0)
}

/// Reads a pipe until it is empty, or has given all that it could hold when this began.
fn pass_on(mut pipe: &File, piece: &mut [u8], mut sink: impl FnMut(&[u8])) {
    let mut left = PIPE_BYTES;
    while left > 0 {
        match pipe.read(piece) {
            Ok(count @ 1..) => {
                sink(&piece[..count]);
                left = left.saturating_sub(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Ok(0) | Err(_) => return,
        }
    }
}

/// What was written to stderr.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    /// What kernels or the driver say to the program.
    ByProgram(&'a [u8]),
    /// One line of a soft GPU about itself, without its beginning and its end.
    BySoftGpu(&'a [u8]),
}

/// Tells the soft GPU's own lines from the program's text on stderr.
struct Splitter {
    /// The beginning of a line that may be one of the soft GPU's.
    held: Vec<u8>,
    within_line: bool,
}

impl Splitter {
    fn take(&mut self, text: &[u8], sink: &mut dyn FnMut(Said)) {
        let joined = [std::mem::take(&mut self.held).as_slice(), text].concat();
        let mut rest = joined.as_slice();
        while !rest.is_empty() {
            let line_end = rest.iter().position(|byte| *byte == b'\n');
            let own =
                !self.within_line && rest.starts_with(&NOTICE[..NOTICE.len().min(rest.len())]);
            match line_end {
                Some(end) if own => {
                    sink(Said::BySoftGpu(&rest[NOTICE.len().min(end)..end]));
                    rest = &rest[end + 1..];
                }
                // A line is written at once, so the rest of it is in the pipe.
                None if own && rest.len() < OUTPUT_MAX => {
                    self.held = rest.to_vec();
                    return;
                }
                _ => {
                    let end = next_notice(rest);
                    sink(Said::ByProgram(&rest[..end]));
                    self.within_line = rest[end - 1] != b'\n';
                    rest = &rest[end..];
                }
            }
        }
    }

    /// What is left was no line of the soft GPU's.
    fn finish(&mut self, sink: &mut dyn FnMut(Said)) {
        if !self.held.is_empty() {
            sink(Said::ByProgram(&self.held));
            self.within_line = true;
            self.held.clear();
        }
    }
}

/// Where the first line after the beginning of `text` starts that may be one of the soft GPU's.
fn next_notice(text: &[u8]) -> usize {
    let starts = text.iter().enumerate().skip(1);
    let mut starts = starts.filter(|(at, _)| text[at - 1] == b'\n');
    let found = starts.find(|(at, _)| {
        let line = &text[*at..];
        line.starts_with(&NOTICE[..NOTICE.len().min(line.len())])
    });
    found.map_or(text.len(), |(at, _)| at)
}

fn duplicate(fd: RawFd) -> io::Result<File> {
    // SAFETY: the descriptor that comes back is owned once, here.
    unsafe {
        match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) {
            -1 => Err(io::Error::last_os_error()),
            copy => Ok(File::from_raw_fd(copy)),
        }
    }
}

/// Makes descriptor `fd` the writing end of a pipe; its reading end does not block.
fn replace(fd: RawFd) -> io::Result<File> {
    let mut ends = [-1; 2];
    // SAFETY: `ends` has room for two descriptors, each of which is owned once from here on.
    let (read, write) = unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
    };
    // SAFETY: plain calls on descriptors that are open. That a pipe stays small costs only time.
    unsafe {
        libc::fcntl(read.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES);
        if libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) != 0
            || libc::dup2(write.as_raw_fd(), fd) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program's text, joined, and the soft GPU's lines; `true` for the latter.
    fn split(pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let mut splitter = Splitter {
            held: Vec::new(),
            within_line: false,
        };
        let mut passed: Vec<(bool, Vec<u8>)> = Vec::new();
        let mut sink = |said: Said| match (said, passed.last_mut()) {
            (Said::ByProgram(text), Some((false, last))) => last.extend_from_slice(text),
            (Said::ByProgram(text), _) => passed.push((false, text.to_vec())),
            (Said::BySoftGpu(line), _) => passed.push((true, line.to_vec())),
        };
        for piece in pieces {
            splitter.take(piece, &mut sink);
        }
        splitter.finish(&mut sink);
        passed
    }

    #[test]
    fn lines_of_the_soft_gpu_are_told_from_text() {
        let whole = b"harp: one\na.cu:3: Assertion\nb\nharp: two\nharp:\nno harp: here\nrest";
        let expected = vec![
            (true, b"one".to_vec()),
            (false, b"a.cu:3: Assertion\nb\n".to_vec()),
            (true, b"two".to_vec()),
            (false, b"harp:\nno harp: here\nrest".to_vec()),
        ];
        assert_eq!(split(&[whole]), expected);
        for cut in 1..whole.len() {
            assert_eq!(
                split(&[&whole[..cut], &whole[cut..]]),
                expected,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn the_beginning_of_a_line_that_never_ends_is_text() {
        assert_eq!(split(&[b"har"]), vec![(false, b"har".to_vec())]);
        assert_eq!(split(&[b"\n"]), vec![(false, b"\n".to_vec())]);
    }
}
