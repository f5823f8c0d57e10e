//! What the worker gives up before it reads a byte from a client (DESIGN D7).
//!
//! The order matters, and `main` follows it:
//! 1. [`close_inherited`]: no descriptor but the standard streams and the control socket;
//! 2. the driver's library is loaded (its path may be readable by root only);
//! 3. [`confine`]: user, resource limits, Landlock. Landlock binds the calling thread and those it starts later, so
//!    this comes before the driver starts threads;
//! 4. the driver is initialised: it may still read what `confine` leaves open;
//! 5. [`seal`]: not dumpable (soft profile), seccomp on all threads. Nothing can be opened from here on (soft profile).
//!
//! Two profiles: `Soft` needs no file, no device and no ioctl, so its list is short and a call outside it ends the
//! process. `Nvidia` keeps open what NVIDIA's driver uses while it runs: files below system directories, `/dev/nvidia*`
//! with ioctl, executable mappings (it generates code) and Unix sockets (persistence daemon, MPS). It still refuses
//! programs, processes, network sockets, tracing and all writing to files but the names of its own threads, and refuses
//! with EPERM, because a driver probes. For those names it stays dumpable, since the kernel lets nobody but root into
//! the `/proc` of a process that is not: Landlock keeps other workers of the same user from tracing it.

mod files;
mod system_calls;

use std::io;
use std::os::fd::RawFd;

pub use system_calls::refused_call_handler;

/// How much the driver library needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Soft,
    Nvidia,
}

/// How far the kernel enforces the file rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRules {
    Full,
    Partial,
    /// The kernel has no Landlock; seccomp alone keeps files out of reach.
    None,
}

impl FileRules {
    pub fn as_str(self) -> &'static str {
        match self {
            FileRules::Full => "full",
            FileRules::Partial => "partial",
            FileRules::None => "none",
        }
    }
}

/// Descriptors that a soft worker holds: streams, control, client, a few for polling.
const SOFT_DESCRIPTORS: u64 = 64;

/// Closes everything that was inherited by mistake, so that a jailed worker holds nothing it was not given.
pub fn close_inherited(control: RawFd) -> io::Result<()> {
    if control < 3 {
        return Err(io::Error::other(
            "the control socket cannot be a standard stream",
        ));
    }
    for (first, last) in [(3, control as u32 - 1), (control as u32 + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: runs before anything in this process has opened a descriptor.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) as libc::c_int })?;
        }
    }
    Ok(())
}

/// How much sooner than another process of its size the kernel ends a worker where memory runs out: a client decides how
/// much it takes.
const OUT_OF_MEMORY_SCORE: i32 = 500;

/// Step 3: user, death with the parent, limits, files.
pub fn confine(profile: Profile, uid: u32) -> Result<FileRules, String> {
    // While the file is this process's to write.
    prefer_when_memory_runs_out();
    drop_root(uid).map_err(|e| format!("cannot become user {uid}: {e}"))?;
    // After the change of user, which clears it.
    // SAFETY: a plain system call.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
        .map_err(|e| format!("cannot tie the worker to its parent: {e}"))?;
    if profile == Profile::Nvidia {
        dumpable(true).map_err(|e| format!("cannot open the worker's own /proc: {e}"))?;
    }
    limit_resources(profile).map_err(|e| format!("cannot set resource limits: {e}"))?;
    files::restrict(profile)
}

/// Step 5: seccomp on every thread. `no_new_privs` comes with it.
pub fn seal(profile: Profile) -> Result<(), String> {
    if profile == Profile::Soft {
        dumpable(false).map_err(|e| format!("cannot become non-dumpable: {e}"))?;
    }
    system_calls::install(profile)
}

/// A system that does not let it has the worker take its chance.
fn prefer_when_memory_runs_out() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let present = std::fs::read_to_string(FILE).ok();
    let present = present.and_then(|text| text.trim().parse::<i32>().ok());
    if present.is_some_and(|score| score < OUT_OF_MEMORY_SCORE) {
        let _ = std::fs::write(FILE, OUT_OF_MEMORY_SCORE.to_string());
    }
}

/// Whether other processes of this user may look into this one, and it into its own `/proc`. A change of user has
/// cleared it.
fn dumpable(yes: bool) -> io::Result<()> {
    // SAFETY: a plain system call.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(yes)) })
}

fn drop_root(uid: u32) -> io::Result<()> {
    // SAFETY: plain system calls; an empty group list needs no memory.
    unsafe {
        if libc::geteuid() != 0 {
            return Ok(());
        }
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(uid, uid, uid))?;
        check(libc::setresuid(uid, uid, uid))
    }
}

/// Not the size of files: stderr may be one, and no other can be opened.
fn limit_resources(profile: Profile) -> io::Result<()> {
    limit(libc::RLIMIT_CORE, 0)?;
    if profile == Profile::Soft {
        limit(libc::RLIMIT_NOFILE, SOFT_DESCRIPTORS)?;
        limit(libc::RLIMIT_MEMLOCK, 0)?;
    }
    Ok(())
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: the pointer is to a live rlimit.
    check(unsafe { libc::setrlimit(resource, &limit) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
