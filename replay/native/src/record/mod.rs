//! `harp-trace record`: takes the blocks of programs out of their rings and writes them to disk.
//!
//! Programs connect to the socket (`harp_trace::greeting`); the first one's trace is what `--out` names,
//! the next one's has `.2` before the suffix, and so on. A disk that is slow or full, and a trace that has as many
//! bytes as `--limit` says, costs blocks of the trace and never the program's time.
//!
//! Standard input says that whoever started it lives: when it ends nobody else is waited for, the socket is
//! removed (and its folder, if there is nothing else in it), and once the traces of all who have gone are
//! finished, standard output ends. It holds a line of JSON each:
//!
//! | line | meaning |
//! |---|---|
//! | `{"type":"ready"}` | programs can connect |
//! | `{"type":"trace","path":…,"pid":…,"program":…,"calls":…,"bytes":…,"blobs":…,"blob_bytes":…,"lost":{"blocks":…,"bytes":…,"reasons":[…]},"ended":…}` | a trace; `bytes` are those on disk, `ended` is `exit`, `gone` (without a goodbye), `broken` (the ring makes no sense) or `running` (the program goes on, and so does its trace) |
//! | `{"type":"failed","path":…,"pid":…,"program":…,"error":…}` | no trace, and why |
//!
//! The terminal's signals, and SIGTERM, are ignored: the programs' ends end it.

mod client;
mod recording;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use harp_trace::greeting;

use crate::arguments::Arguments;
use crate::Failure;
use client::Told;

/// Programs that are recorded at a time; more are turned away.
const CLIENTS_MAX: usize = 512;
/// What programs that are just ending have, once standard input has ended, if `--grace` does not say.
const GRACE_MS: u64 = 500;
/// The longest wait for what comes when it comes.
const LONG: Duration = Duration::from_secs(3600);

/// What all traces of this run have in common.
pub struct Common {
    out: PathBuf,
    payload: String,
    level: i32,
    /// Bytes that a trace may have on disk.
    limit: u64,
    /// What programs that are just ending have, once standard input has ended.
    grace: Duration,
    traces: AtomicU32,
}

impl Common {
    /// Where the next trace goes.
    fn next_path(&self) -> PathBuf {
        loop {
            let number = self.traces.fetch_add(1, Ordering::Relaxed) + 1;
            let path = numbered(&self.out, number);
            if number == 1 || !path.exists() {
                return path;
            }
        }
    }
}

/// `out.htrace`, `out.2.htrace`, …
fn numbered(out: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return out.to_owned();
    }
    let mut name = OsString::from(out.file_stem().unwrap_or_default());
    name.push(format!(".{number}"));
    if let Some(suffix) = out.extension() {
        name.push(".");
        name.push(suffix);
    }
    out.with_file_name(name)
}

pub fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let wanted = |what: &str| Failure::Usage(format!("{what} is missing"));
    let socket = arguments.value("--socket")?;
    let owns_folder = arguments.flag("--own-folder");
    let common = Common {
        out: arguments
            .value("--out")?
            .ok_or_else(|| wanted("--out"))?
            .into(),
        payload: arguments.parsed("--payload")?.unwrap_or_default(),
        level: arguments.parsed("--level")?.unwrap_or(1),
        limit: arguments.parsed("--limit")?.unwrap_or(u64::MAX),
        grace: Duration::from_millis(arguments.parsed("--grace")?.unwrap_or(GRACE_MS)),
        traces: AtomicU32::new(0),
    };
    arguments.none()?;
    if common.out.exists() {
        return Err(Failure::Told(format!(
            "{} exists; name another file, or remove it",
            common.out.display()
        )));
    }
    ignore_signals();
    let door = Door::open(&socket.ok_or_else(|| wanted("--socket"))?, owns_folder)?;
    Recorder::new(door, common)?.run();
    Ok(())
}

fn ignore_signals() {
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGTSTP,
        libc::SIGTTOU,
        libc::SIGXFSZ,
    ] {
        // SAFETY: a plain system call.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The socket at which programs come.
struct Door {
    listener: OwnedFd,
    /// Where it was made, if that was here.
    path: Option<PathBuf>,
    /// The folder it is in was made for it alone.
    owns_folder: bool,
}

impl Door {
    /// `socket` is an inherited descriptor that listens, or a path to make one at.
    fn open(socket: &OsStr, owns_folder: bool) -> Result<Door, Failure> {
        let number = socket.to_str().and_then(|text| text.parse::<RawFd>().ok());
        let door = match number {
            Some(descriptor) => Door {
                // SAFETY: whoever started this process passed the descriptor for it to own.
                listener: unsafe { OwnedFd::from_raw_fd(descriptor) },
                path: None,
                owns_folder: false,
            },
            None => Door {
                listener: greeting::listen(Path::new(socket)).map_err(|error| {
                    Failure::Told(format!(
                        "cannot listen at {}: {error}; name a path in a folder of yours",
                        socket.to_string_lossy()
                    ))
                })?,
                path: Some(socket.into()),
                owns_folder,
            },
        };
        // SAFETY: a system call on a descriptor that is held.
        unsafe { libc::fcntl(door.listener.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        Ok(door)
    }
}

impl Drop for Door {
    /// Who comes later finds that there is no recorder, also where whoever started it was killed.
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
            if self.owns_folder {
                let _ = path.parent().map(fs::remove_dir);
            }
        }
    }
}

/// What is known of a program that is recorded.
#[derive(Default)]
struct Client {
    /// Its line while it goes on.
    running: Option<serde_json::Value>,
    gone: bool,
}

struct Recorder {
    /// None when nobody else is waited for.
    door: Option<Door>,
    common: Arc<Common>,
    clients: BTreeMap<u64, Client>,
    came: u64,
    told: mpsc::Receiver<(u64, Told)>,
    tell: mpsc::Sender<(u64, Told)>,
    /// Readable when something has been told.
    bell: UnixStream,
    ring: Arc<UnixStream>,
}

impl Recorder {
    fn new(door: Door, common: Common) -> io::Result<Recorder> {
        let (tell, told) = mpsc::channel();
        let (bell, ring) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ring.set_nonblocking(true)?;
        Ok(Recorder {
            door: Some(door),
            common: Arc::new(common),
            clients: BTreeMap::new(),
            came: 0,
            told,
            tell,
            bell,
            ring: Arc::new(ring),
        })
    }

    fn run(mut self) {
        say(&serde_json::json!({"type": "ready"}));
        while self.wait(LONG) {
            self.accept();
            self.hear();
        }
        // Whoever has connected by now is recorded.
        self.accept();
        self.door = None;
        let deadline = Instant::now() + self.common.grace;
        loop {
            self.hear();
            let now = Instant::now();
            let ending = self.clients.values().any(|client| client.gone);
            if self.clients.is_empty() || !ending && now >= deadline {
                break;
            }
            let patience = match ending {
                true => Duration::from_secs(1),
                false => deadline - now,
            };
            self.wait(patience);
        }
        for client in self.clients.values_mut() {
            if let Some(line) = client.running.take() {
                say(&line);
            }
        }
        end_output();
        while !self.clients.is_empty() {
            self.wait(LONG);
            self.hear();
        }
    }

    /// Waits until somebody comes or something is told; `false` when standard input has ended. Once the door is
    /// shut only for what is told.
    fn wait(&self, patience: Duration) -> bool {
        let polled = |fd: Option<RawFd>| libc::pollfd {
            fd: fd.unwrap_or(-1),
            events: libc::POLLIN,
            revents: 0,
        };
        let door = self.door.as_ref();
        let has_room = self.clients.len() < CLIENTS_MAX;
        let comes_in = door.filter(|_| has_room);
        let mut files = [
            polled(door.map(|_| libc::STDIN_FILENO)),
            polled(comes_in.map(|door| door.listener.as_raw_fd())),
            polled(Some(self.bell.as_raw_fd())),
        ];
        let milliseconds = patience.as_millis().min(i32::MAX as u128) as i32 + 1;
        // SAFETY: three entries that live. A signal ends the wait early, which does no harm.
        unsafe {
            libc::poll(
                files.as_mut_ptr(),
                files.len() as libc::nfds_t,
                milliseconds,
            )
        };
        let mut bytes = [0; 64];
        while matches!((&self.bell).read(&mut bytes), Ok(count) if count > 0) {}
        files[0].revents == 0 || !matches!(io::stdin().read(&mut bytes), Ok(0) | Err(_))
    }

    fn accept(&mut self) {
        let Some(door) = &self.door else { return };
        let (listener, flags) = (door.listener.as_raw_fd(), libc::SOCK_CLOEXEC);
        while self.clients.len() < CLIENTS_MAX {
            let nobody = std::ptr::null_mut();
            // SAFETY: no address is wanted; the descriptor is new and nobody else's.
            let socket = unsafe {
                let descriptor = libc::accept4(listener, nobody, std::ptr::null_mut(), flags);
                if descriptor < 0 {
                    return;
                }
                OwnedFd::from_raw_fd(descriptor)
            };
            self.came += 1;
            let number = self.came;
            let (tell, ring) = (self.tell.clone(), self.ring.clone());
            let tell = move |told| {
                let _ = tell.send((number, told));
                let _ = (&*ring).write(&[0]);
            };
            let common = self.common.clone();
            let serve = move || client::serve(&socket, &common, &tell);
            if thread::Builder::new().spawn(serve).is_ok() {
                self.clients.insert(number, Client::default());
            }
        }
    }

    fn hear(&mut self) {
        while let Ok((number, told)) = self.told.try_recv() {
            let Some(client) = self.clients.get_mut(&number) else {
                continue;
            };
            match told {
                Told::Began(line) => client.running = Some(line),
                Told::Gone => client.gone = true,
                Told::Ended(line) => {
                    if let Some(line) = line {
                        say(&line);
                    }
                    self.clients.remove(&number);
                }
            }
        }
    }
}

/// Writes one line; nobody may be there to read it.
fn say(line: &serde_json::Value) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Lets whoever reads standard output go on.
fn end_output() {
    // SAFETY: plain system calls; descriptor 1 stays a valid one.
    unsafe {
        let nowhere = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if nowhere >= 0 {
            libc::dup2(nowhere, libc::STDOUT_FILENO);
            libc::close(nowhere);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_numbered_before_their_suffix() {
        let name = |out: &str, number| numbered(Path::new(out), number).display().to_string();
        assert_eq!(name("a/out.htrace", 1), "a/out.htrace");
        assert_eq!(name("a/out.htrace", 2), "a/out.2.htrace");
        assert_eq!(name("a.b/out", 13), "a.b/out.13");
        assert_eq!(name("out.v1.htrace", 2), "out.v1.2.htrace");
    }
}
