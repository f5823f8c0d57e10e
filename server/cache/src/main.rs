//! harp-cache: keeps the pieces of content that a server's tenants have uploaded, for their next sessions.
//!
//! ```text
//! harp-cache --control-fd N --folder PATH --size BYTES --tenant-size BYTES [--uid N]
//! ```
//!
//! Workers are jailed without a file to open, so what they are to have of the cache is given to them. The agent makes a
//! socket for each session and says here whose it is; the worker at its other end gets that tenant's pieces and no
//! others. Over it (`harp_content::channel`) the worker takes pieces, as files that are open for reading, and hands
//! contents over through shared memory. It is this process that names them, so a worker that a client has taken over
//! can keep no content under the name of another.
//!
//! The control socket is an inherited `SOCK_SEQPACKET` Unix socket; every message is one JSON object:
//!
//! | direction | message | descriptor |
//! |---|---|---|
//! | out, once | `{"event":"ready","pieces":3,"bytes":2097200}` | |
//! | in | `{"tenant":"3f…"}`: what the tenant's folder is called | a session's socket |
//! | out | `{"event":"damaged","tenant":"3f…","piece":"0a…"}`, `{"event":"failing","cause":"…"}` | |
//!
//! It ends when the agent closes the control socket, once it has written what workers had handed over by then, and is
//! killed when the thread that started it ends (PR_SET_PDEATHSIG). Run as root it becomes user `--uid` (default 65534).

mod folder;
mod jail;
mod serve;
mod session;
mod store;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serve::Cache;
use store::{Limits, Store};

const USAGE: &str =
    "usage: harp-cache --control-fd N --folder PATH --size BYTES --tenant-size BYTES [--uid N]";

/// The unprivileged user that most systems call "nobody".
const NOBODY: u32 = 65534;

/// Below the folder that the operator names, so that nothing else there is touched.
const TENANTS: &std::ffi::CStr = c"tenants";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("harp-cache: {cause}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    // SAFETY: the agent passed this descriptor for the cache to own.
    let control = unsafe { OwnedFd::from_raw_fd(options.control) };
    let folder = open(&options.folder)
        .map_err(|e| format!("cannot use {}: {e}", options.folder.display()))?;
    ignore_signals();
    jail::confine(&folder, options.uid)?;
    let store = Store::open(folder, options.limits)
        .map_err(|e| format!("cannot read {}: {e}", options.folder.display()))?;
    let cache = Cache::new(store, control).map_err(|e| format!("cannot start a thread: {e}"))?;
    jail::seal()?;
    cache.serve().map_err(|e| format!("stopped: {e}"))
}

/// The folder of the tenants' folders, made if it is not there, for this user alone.
fn open(path: &Path) -> std::io::Result<OwnedFd> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let parent = std::fs::File::open(path)?;
    // SAFETY: a C string and an open folder.
    if unsafe { libc::mkdirat(parent.as_raw_fd(), TENANTS.as_ptr(), 0o700) } < 0 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::AlreadyExists {
            return Err(error);
        }
    }
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    folder::open_at(parent.as_raw_fd(), TENANTS, flags, 0)
}

/// The agent ends this process by closing its socket, and what has been handed over is written then. A file that may not
/// become so large is one that cannot be written.
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGXFSZ] {
        // SAFETY: a plain system call.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

struct Options {
    control: RawFd,
    folder: PathBuf,
    limits: Limits,
    uid: u32,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut control, mut folder, mut all, mut tenant) = (None, None, None, None);
        let mut uid = NOBODY;
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value; {USAGE}"))?;
            match name.as_str() {
                "--control-fd" => control = Some(number(&name, &value)?),
                "--folder" => folder = Some(PathBuf::from(value)),
                "--size" => all = Some(number(&name, &value)?),
                "--tenant-size" => tenant = Some(number(&name, &value)?),
                "--uid" => uid = number(&name, &value)?,
                _ => return Err(format!("unknown option {name}; {USAGE}")),
            }
        }
        let missing = |name| format!("{name} is missing; {USAGE}");
        Ok(Self {
            control: control.ok_or_else(|| missing("--control-fd"))?,
            folder: folder.ok_or_else(|| missing("--folder"))?,
            limits: Limits {
                all: all.ok_or_else(|| missing("--size"))?,
                tenant: tenant.ok_or_else(|| missing("--tenant-size"))?,
            },
            uid,
        })
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name} needs a number, not {value:?}; {USAGE}"))
}
