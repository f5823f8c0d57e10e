//! What the cache gives up before it hears of a session: root, all files but those of its folder, the network, programs,
//! and every system call that it does not make. A call outside the list kills the process.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use landlock::{
    Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, ABI,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::folder::check;

/// The newest Landlock version whose rights are handled; an older kernel enforces what it knows.
const NEWEST: ABI = ABI::V6;

/// Ends the cache with its parent and leaves it `folder` alone. `uid` is taken if it runs as root; the folder is that
/// user's then. Call it before threads are started.
pub fn confine(folder: &OwnedFd, uid: u32) -> Result<(), String> {
    drop_root(folder, uid).map_err(|e| format!("cannot become user {uid}: {e}"))?;
    // After the change of user, which clears it.
    // SAFETY: plain system calls.
    let tied = unsafe {
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0))
            .and_then(|()| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)))
    };
    tied.map_err(|e| format!("cannot tie the cache to its parent: {e}"))?;
    limit(libc::RLIMIT_CORE, 0).map_err(|e| format!("cannot set resource limits: {e}"))?;
    let all = AccessFs::from_all(NEWEST);
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(folder, all & !AccessFs::Execute)))
        .and_then(|rules| rules.restrict_self())
        .map(drop)
        .map_err(|error| format!("cannot install the Landlock rules: {error}"))
}

/// Seccomp on every thread. `no_new_privs` comes with it.
pub fn seal() -> Result<(), String> {
    let program = filter().map_err(|e| format!("cannot build the seccomp filter: {e}"))?;
    seccompiler::apply_filter_all_threads(&program)
        .map_err(|e| format!("cannot install the seccomp filter: {e}"))
}

/// The folder's parents stay root's: other processes of `uid` do not get there.
fn drop_root(folder: &OwnedFd, uid: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: plain system calls; an empty group list needs no memory.
    unsafe {
        if libc::geteuid() != 0 {
            return Ok(());
        }
        check(libc::fchown(folder.as_raw_fd(), uid, uid))?;
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(uid, uid, uid))?;
        check(libc::setresuid(uid, uid, uid))
    }
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: the pointer is to a live rlimit.
    check(unsafe { libc::setrlimit(resource, &limit) })
}

/// Files of the folder, memory, messages and threads that are there.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|call| (*call, vec![])).collect();
    let without_exec = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64),
        0,
    )?;
    let rule = SeccompRule::new(vec![without_exec])?;
    // Not whom a descriptor signals.
    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_ADD_SEALS,
    ]
    .map(|command| {
        let (size, op) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        let command = SeccompCondition::new(1, size, op, command as u64)?;
        SeccompRule::new(vec![command])
    });
    rules.insert(
        libc::SYS_fcntl,
        commands.into_iter().collect::<Result<_, _>>()?,
    );
    rules.insert(libc::SYS_mmap, vec![rule.clone()]);
    rules.insert(libc::SYS_mprotect, vec![rule]);
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_sockets_are_out_of_reach() {
        let program = filter().unwrap();
        // SAFETY: calls with valid arguments, refused before they have an effect.
        let attempts: [(&str, fn()); 3] = [
            ("execve", || unsafe {
                libc::execve(c"/bin/true".as_ptr(), std::ptr::null(), std::ptr::null());
            }),
            ("socket", || unsafe {
                libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            }),
            ("a descriptor's signals", || unsafe {
                libc::fcntl(0, libc::F_SETOWN, libc::getpid());
            }),
        ];
        for (name, attempt) in attempts {
            // SAFETY: between fork and exit the child makes system calls only.
            let status = unsafe {
                let child = libc::fork();
                if child == 0 {
                    if seccompiler::apply_filter(&program).is_ok() {
                        attempt();
                    }
                    libc::syscall(libc::SYS_exit_group, 3);
                }
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &mut status, 0), child);
                status
            };
            assert!(libc::WIFSIGNALED(status), "{name} was allowed");
        }
    }
}
