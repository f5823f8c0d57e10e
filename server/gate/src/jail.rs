//! What the gate gives up before the first stranger connects: root, new privileges, children, files, and every system
//! call that its loop does not make. A call outside the list kills the process (and the agent sees its socket close).

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Memory that the gate may map, far above what its loop uses.
const DATA_LIMIT: u64 = 64 << 20;

/// Ends the gate with its parent, and shuts everything that `serve` does not need. `uid` is taken if the gate runs as
/// root; `descriptors` is how many files it may hold open.
pub fn enter(uid: u32, descriptors: usize) -> Result<(), String> {
    drop_root(uid).map_err(|e| format!("cannot become user {uid}: {e}"))?;
    // After the change of user, which clears it.
    die_with_parent().map_err(|e| format!("cannot tie the gate to its parent: {e}"))?;
    limit_resources(descriptors).map_err(|e| format!("cannot set resource limits: {e}"))?;
    let program =
        system_call_filter().map_err(|e| format!("cannot build the seccomp filter: {e}"))?;
    // Sets no_new_privs too.
    seccompiler::apply_filter_all_threads(&program)
        .map_err(|e| format!("cannot install the seccomp filter: {e}"))
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

fn die_with_parent() -> io::Result<()> {
    // SAFETY: plain system calls.
    unsafe {
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
    }
}

/// Not the size of files: stderr may be one, and no other can be opened.
fn limit_resources(descriptors: usize) -> io::Result<()> {
    let limits = [
        (libc::RLIMIT_NOFILE, descriptors as u64),
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_DATA, DATA_LIMIT),
    ];
    for (resource, value) in limits {
        let limit = libc::rlimit {
            rlim_cur: value,
            rlim_max: value,
        };
        // SAFETY: the pointer is to a live rlimit.
        check(unsafe { libc::setrlimit(resource, &limit) })?;
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The calls of `serve` and `control`, and what the allocator, the clock and a panic need.
fn system_call_filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_accept4,
        libc::SYS_ppoll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        libc::SYS_recvfrom,
        libc::SYS_sendmsg,
        libc::SYS_getsockname,
        libc::SYS_close,
        libc::SYS_write,
        libc::SYS_clock_gettime,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_futex,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]
    .into_iter()
    .map(|call| (call, vec![]))
    .collect();

    let without_exec = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    rules.insert(libc::SYS_mmap, vec![rule(&[(2, without_exec.clone(), 0)])?]);
    rules.insert(libc::SYS_mprotect, vec![rule(&[(2, without_exec, 0)])?]);
    let receive_mark = [
        (1, SeccompCmpOp::Eq, libc::SOL_SOCKET as u64),
        (2, SeccompCmpOp::Eq, libc::SO_RCVLOWAT as u64),
    ];
    rules.insert(libc::SYS_setsockopt, vec![rule(&receive_mark)?]);
    // The standard library asserts in debug builds that a descriptor it closes is open.
    rules.insert(
        libc::SYS_fcntl,
        vec![rule(&[(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)])?],
    );

    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// All of `conditions`: argument position, comparison, value.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    conditions
        .iter()
        .map(|(argument, op, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, op.clone(), *value)
        })
        .collect::<Result<Vec<_>, _>>()
        .and_then(SeccompRule::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `attempt` under the filter in a child process and returns the child's wait status.
    fn status_of(attempt: fn()) -> libc::c_int {
        let program = system_call_filter().expect("the filter compiles");
        // SAFETY: between fork and _exit the child makes system calls only; the filter was compiled before.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                if seccompiler::apply_filter(&program).is_ok() {
                    attempt();
                }
                libc::syscall(libc::SYS_exit_group, 3);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            status
        }
    }

    fn was_killed(status: libc::c_int) -> bool {
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS
    }

    #[test]
    fn an_allowed_call_returns() {
        // SAFETY: polls nothing.
        let status = status_of(|| unsafe {
            libc::poll(std::ptr::null_mut(), 0, 0);
        });
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 3);
    }

    #[test]
    fn files_programs_sockets_and_processes_are_out_of_reach() {
        // SAFETY: system calls with valid arguments, refused before they have an effect.
        let attempts: [(&str, fn()); 6] = [
            ("open", || unsafe {
                libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY);
            }),
            ("execve", || unsafe {
                libc::execve(c"/bin/true".as_ptr(), std::ptr::null(), std::ptr::null());
            }),
            ("socket", || unsafe {
                libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            }),
            ("fork", || unsafe {
                libc::fork();
            }),
            ("executable memory", || unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_EXEC, flags, -1, 0);
            }),
            ("another socket option", || unsafe {
                let on: libc::c_int = 1;
                let size = std::mem::size_of_val(&on) as libc::socklen_t;
                let value = (&raw const on).cast();
                libc::setsockopt(0, libc::SOL_SOCKET, libc::SO_DEBUG, value, size);
            }),
        ];
        for (name, attempt) in attempts {
            assert!(was_killed(status_of(attempt)), "{name} was allowed");
        }
    }
}
