//! Each filter is installed in a child process that then makes one call.

use super::*;
use std::io;

/// What became of a child that made a call under a profile.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Returned,
    Failed(i32),
    Killed(i32),
}

fn fate(profile: Profile, attempt: fn() -> libc::c_long) -> Fate {
    let programs = programs(profile).expect("the filters compile");
    // SAFETY: between fork and exit the child makes system calls only; everything it uses was prepared before.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            libc::signal(libc::SIGSYS, libc::SIG_DFL);
            for program in &programs {
                if seccompiler::apply_filter(program).is_err() {
                    libc::syscall(libc::SYS_exit_group, 255);
                }
            }
            let code = match attempt() {
                result if result >= 0 => 0,
                _ => io::Error::last_os_error().raw_os_error().unwrap_or(254),
            };
            libc::syscall(libc::SYS_exit_group, code);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        if libc::WIFSIGNALED(status) {
            return Fate::Killed(libc::WTERMSIG(status));
        }
        match libc::WEXITSTATUS(status) {
            0 => Fate::Returned,
            code => Fate::Failed(code),
        }
    }
}

fn open() -> libc::c_long {
    // SAFETY: a valid path.
    unsafe { libc::open(c"/etc/hostname".as_ptr(), libc::O_RDONLY).into() }
}

fn execute() -> libc::c_long {
    // SAFETY: a valid path; Linux takes null for empty lists.
    unsafe { libc::execve(c"/bin/true".as_ptr(), std::ptr::null(), std::ptr::null()).into() }
}

fn fork() -> libc::c_long {
    // SAFETY: a child, should there be one, ends at once.
    unsafe {
        match libc::fork() {
            0 => libc::syscall(libc::SYS_exit_group, 0),
            child => child.into(),
        }
    }
}

fn internet_socket() -> libc::c_long {
    // SAFETY: no pointers.
    unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0).into() }
}

fn unix_socket() -> libc::c_long {
    // SAFETY: no pointers.
    unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).into() }
}

fn map(protection: libc::c_int) -> libc::c_long {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping.
    unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) as libc::c_long }
}

fn trace_parent() -> libc::c_long {
    // SAFETY: no memory is touched.
    unsafe { libc::ptrace(libc::PTRACE_ATTACH, libc::getppid(), 0, 0) }
}

fn kill_parent_thread() -> libc::c_long {
    // SAFETY: signal 0 only asks whether it could be sent.
    unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 0) }
}

fn send_signals() -> libc::c_long {
    // SAFETY: no pointers; this process is to hear of what happens to its standard input.
    unsafe { libc::fcntl(0, libc::F_SETOWN, libc::getpid()).into() }
}

fn send_signals_by_request() -> libc::c_long {
    // SAFETY: the kernel reads one number, or refuses to.
    unsafe { libc::ioctl(0, 0x8901, &libc::getpid()).into() }
}

fn read_flags() -> libc::c_long {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(0, libc::F_GETFL).into() }
}

#[test]
fn a_soft_worker_can_compute_and_nothing_else() {
    let soft = |attempt| fate(Profile::Soft, attempt);
    assert_eq!(
        soft(|| map(libc::PROT_READ | libc::PROT_WRITE)),
        Fate::Returned
    );
    // SAFETY: an empty poll.
    assert_eq!(
        soft(|| unsafe { libc::poll(std::ptr::null_mut(), 0, 0).into() }),
        Fate::Returned
    );
    assert_eq!(
        soft(open),
        Fate::Failed(libc::EACCES),
        "a probe is answered, not killed"
    );
    let killed = Fate::Killed(libc::SIGSYS);
    assert_eq!(soft(execute), killed);
    assert_eq!(soft(fork), killed);
    assert_eq!(soft(internet_socket), killed);
    assert_eq!(soft(unix_socket), killed);
    assert_eq!(soft(|| map(libc::PROT_EXEC)), killed);
    assert_eq!(soft(trace_parent), killed);
    assert_eq!(soft(kill_parent_thread), killed);
    assert_eq!(soft(read_flags), Fate::Returned);
    assert_eq!(soft(send_signals), killed);
    assert_eq!(soft(send_signals_by_request), killed);
    // SAFETY: an ioctl without memory, not in the list.
    assert_eq!(
        soft(|| unsafe { libc::ioctl(0, libc::TIOCSTI, 0).into() }),
        killed
    );
    // SAFETY: asks only.
    let handler = || unsafe {
        let none: *const libc::sigaction = std::ptr::null();
        libc::sigaction(libc::SIGSYS, none, std::ptr::null_mut()).into()
    };
    assert_eq!(soft(handler), killed);
}

#[test]
fn a_worker_for_nvidias_driver_opens_files_but_starts_nothing() {
    let nvidia = |attempt| fate(Profile::Nvidia, attempt);
    assert_eq!(
        nvidia(|| map(libc::PROT_READ | libc::PROT_EXEC)),
        Fate::Returned
    );
    assert_eq!(nvidia(unix_socket), Fate::Returned);
    let refused = Fate::Failed(libc::EPERM);
    assert_ne!(nvidia(open), refused);
    assert_eq!(nvidia(execute), refused);
    assert_eq!(nvidia(fork), refused);
    assert_eq!(nvidia(internet_socket), refused);
    assert_eq!(nvidia(trace_parent), refused);
    assert_eq!(nvidia(read_flags), Fate::Returned);
    assert_eq!(nvidia(send_signals), refused);
    assert_eq!(nvidia(send_signals_by_request), refused);
}

#[test]
fn a_filter_cannot_be_replaced() {
    // SAFETY: no memory is read before the call is refused.
    let another = || unsafe {
        let filter: *const u8 = std::ptr::null();
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, filter)
    };
    assert_eq!(fate(Profile::Soft, another), Fate::Killed(libc::SIGSYS));
}
