//! The seccomp allow-lists of the worker.
//!
//! Each list is stacked from filters, of which the kernel takes the strictest verdict: the allow-list itself, and
//! filters that answer harmless probes (glibc looks for a file, or tries `clone3` first) with an error instead of death.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use super::Profile;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Exit code of a worker that made a refused call, as a shell reports death by SIGSYS.
const REFUSED_CALL_EXIT: libc::c_int = 128 + libc::SIGSYS;

/// Installs the profile's filters on all threads of the process.
pub fn install(profile: Profile) -> Result<(), String> {
    for program in programs(profile).map_err(|e| format!("cannot build the seccomp filter: {e}"))? {
        seccompiler::apply_filter_all_threads(&program)
            .map_err(|e| format!("cannot install the seccomp filter: {e}"))?;
    }
    Ok(())
}

/// The filters of a profile. The one with the allow-list comes last: it forbids installing another.
pub fn programs(profile: Profile) -> Result<Vec<BpfProgram>, BackendError> {
    let mut allowed = always_allowed()?;
    let refusal = match profile {
        Profile::Soft => {
            // Answered with an error by the filter below; listed here so that it is not death.
            allowed.extend(FILE_PROBES.iter().map(|call| (*call, vec![])));
            SeccompAction::Trap
        }
        Profile::Nvidia => {
            allow_for_nvidia(&mut allowed)?;
            SeccompAction::Errno(libc::EPERM as u32)
        }
    };
    let mut programs = vec![answer_with(&[libc::SYS_clone3], libc::ENOSYS)?];
    if profile == Profile::Soft {
        programs.push(answer_with(FILE_PROBES, libc::EACCES)?);
    }
    programs.push(filter(allowed, refusal, SeccompAction::Allow)?);
    Ok(programs)
}

/// Calls by which libraries look for files; none of them is to succeed in a soft worker.
const FILE_PROBES: &[i64] = &[
    libc::SYS_openat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    // Of a panic inside the soft GPU, where backtraces are wanted.
    libc::SYS_getcwd,
    libc::SYS_faccessat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_prlimit64,
];

/// Calls of threads, memory, clocks and already open sockets: what both profiles need.
const PLAIN: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fstat,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_eventfd2,
    // The ring of a session that is recorded.
    libc::SYS_memfd_create,
    libc::SYS_fallocate,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrusage,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_clone3,
];

/// What may be asked of an open descriptor. Not who gets which signal when something happens to it (`F_SETOWN`,
/// `F_SETSIG`): that would reach the other processes of this user.
const DESCRIPTOR_COMMANDS: &[libc::c_int] = &[
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// What NVIDIA's driver may ask beside: copies, pipes, locks of its files.
const DESCRIPTOR_COMMANDS_FOR_NVIDIA: &[libc::c_int] = &[
    libc::F_DUPFD,
    libc::F_GETPIPE_SZ,
    libc::F_SETPIPE_SZ,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
];

/// The requests that do the same as the commands that are missing above, of sockets.
const SIGNAL_REQUESTS: [u64; 3] = [0x8901, 0x8902, libc::FIOASYNC]; // FIOSETOWN, SIOCSPGRP

fn one_of(argument: u8, values: &[libc::c_int]) -> Result<Vec<SeccompRule>, BackendError> {
    let values = values.iter().map(|value| *value as u64);
    values
        .map(|value| rule(&[(argument, SeccompCmpOp::Eq, value)]))
        .collect()
}

fn always_allowed() -> Result<Rules, BackendError> {
    let mut rules: Rules = PLAIN.iter().map(|call| (*call, vec![])).collect();
    let without_exec = (2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(
        libc::SYS_mmap,
        vec![rule(std::slice::from_ref(&without_exec))?],
    );
    rules.insert(libc::SYS_mprotect, vec![rule(&[without_exec])?]);
    // Threads, not processes. (clone3 hides its flags in memory and is answered ENOSYS: libc then uses clone.)
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(
        libc::SYS_clone,
        vec![rule(&[(0, SeccompCmpOp::MaskedEq(thread), thread)])?],
    );
    // The handler that reports refused calls stays.
    rules.insert(
        libc::SYS_rt_sigaction,
        vec![rule(&[(0, SeccompCmpOp::Ne, libc::SIGSYS as u64)])?],
    );
    // abort() and nothing beyond this process.
    let own = std::process::id().into();
    rules.insert(libc::SYS_tgkill, vec![rule(&[(0, SeccompCmpOp::Eq, own)])?]);
    rules.insert(
        libc::SYS_setsockopt,
        vec![
            rule(&[(1, SeccompCmpOp::Eq, libc::IPPROTO_TCP as u64)])?,
            rule(&[(1, SeccompCmpOp::Eq, libc::SOL_SOCKET as u64)])?,
        ],
    );
    rules.insert(libc::SYS_fcntl, one_of(1, DESCRIPTOR_COMMANDS)?);
    rules.insert(
        libc::SYS_ioctl,
        vec![
            rule(&[(1, SeccompCmpOp::Eq, libc::FIONBIO)])?,
            rule(&[(1, SeccompCmpOp::Eq, libc::FIONREAD)])?,
        ],
    );
    rules.insert(
        libc::SYS_prctl,
        vec![
            rule(&[(0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)])?,
            rule(&[(0, SeccompCmpOp::Eq, libc::PR_SET_VMA as u64)])?,
        ],
    );
    Ok(rules)
}

/// What NVIDIA's driver does while it runs, beyond the above. Landlock bounds which files these reach.
fn allow_for_nvidia(rules: &mut Rules) -> Result<(), BackendError> {
    const MORE: &[i64] = &[
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_msync,
        libc::SYS_openat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_access,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_stat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_lstat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_readlink,
        libc::SYS_readlinkat,
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_statfs,
        libc::SYS_fstatfs,
        libc::SYS_lseek,
        libc::SYS_pread64,
        libc::SYS_getdents64,
        libc::SYS_getcwd,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_pipe,
        libc::SYS_pipe2,
        libc::SYS_dup3,
        libc::SYS_memfd_create,
        libc::SYS_ftruncate,
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
        libc::SYS_accept4,
        libc::SYS_uname,
        libc::SYS_sysinfo,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_getppid,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_getparam,
        libc::SYS_sched_getscheduler,
        libc::SYS_sched_get_priority_max,
        libc::SYS_sched_get_priority_min,
        libc::SYS_getcpu,
        libc::SYS_get_mempolicy,
        libc::SYS_set_mempolicy,
        libc::SYS_mbind,
        libc::SYS_mlock,
        libc::SYS_munlock,
        libc::SYS_timer_create,
        libc::SYS_timer_settime,
        libc::SYS_timer_delete,
    ];
    rules.extend(MORE.iter().map(|call| (*call, vec![])));
    let commands = [DESCRIPTOR_COMMANDS, DESCRIPTOR_COMMANDS_FOR_NVIDIA].concat();
    rules.insert(libc::SYS_fcntl, one_of(1, &commands)?);
    let no_signals = SIGNAL_REQUESTS.map(|request| (1, SeccompCmpOp::Ne, request));
    rules.insert(libc::SYS_ioctl, vec![rule(&no_signals)?]);
    let local = (0, SeccompCmpOp::Eq, libc::AF_UNIX as u64);
    rules.insert(libc::SYS_socket, vec![rule(&[local])?]);
    // Reading limits, not setting them: the third argument is the pointer to new ones.
    let none = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![none])?]);
    Ok(())
}

fn answer_with(calls: &[i64], error: libc::c_int) -> Result<BpfProgram, BackendError> {
    let rules = calls.iter().map(|call| (*call, vec![])).collect();
    filter(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(error as u32),
    )
}

fn filter(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(
        rules,
        otherwise,
        matched,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// All of `conditions`: argument position, comparison, value (of the argument's low 32 bits).
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
    conditions
        .iter()
        .map(|(argument, op, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, op.clone(), *value)
        })
        .collect::<Result<Vec<_>, _>>()
        .and_then(SeccompRule::new)
}

static REPORT_TO: AtomicI32 = AtomicI32::new(-1);

/// Makes a refused system call end the process with a line on the control socket that names its number. Whoever has
/// taken over the worker can do no more without this than with it: the call does not happen either way.
pub fn refused_call_handler(control: RawFd) -> std::io::Result<()> {
    REPORT_TO.store(control, Ordering::Relaxed);
    // SAFETY: the handler calls only async-signal-safe functions; the zeroed sigaction is valid.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = report_refused_call as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        super::check(libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()))
    }
}

extern "C" fn report_refused_call(
    _: libc::c_int,
    information: *mut libc::siginfo_t,
    _: *mut libc::c_void,
) {
    /// Where a SIGSYS keeps the number of the refused call (siginfo_t's `si_syscall`): after three ints, padding to a
    /// pointer, and that pointer.
    const CALL_NUMBER_OFFSET: usize = 24;
    let mut text = *b"{\"event\":\"refused_call\",\"number\":    }";
    // SAFETY: the kernel passed a siginfo of a SIGSYS; the send and exit are async-signal-safe.
    unsafe {
        let mut number = information
            .cast::<u8>()
            .add(CALL_NUMBER_OFFSET)
            .cast::<i32>()
            .read();
        let mut at = text.len() - 2;
        while number > 0 && text[at] == b' ' {
            text[at] = b'0' + (number % 10) as u8;
            number /= 10;
            at -= 1;
        }
        let control = REPORT_TO.load(Ordering::Relaxed);
        libc::send(
            control,
            text.as_ptr().cast(),
            text.len(),
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        );
        libc::syscall(libc::SYS_exit_group, REFUSED_CALL_EXIT);
    }
}

#[cfg(test)]
mod tests;
