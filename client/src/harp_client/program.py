"""Runs the program under `harp-run` as if it had been started alone.

The program stays in this process's group, so the terminal's own signals (Ctrl-C, Ctrl-\\, Ctrl-Z,
window size) reach it directly; signals sent to `harp-run` alone are passed on; a program that the
terminal stops stops `harp-run` too, so that the shell notices. If `harp-run` is killed, the kernel
kills the program.
"""

import ctypes
import errno
import os
import signal
from collections.abc import Mapping

from harp_client.errors import HarpError

FORWARDED = frozenset(
    {
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGCONT,
        signal.SIGTSTP,
        signal.SIGWINCH,
    }
)
WATCHED = FORWARDED | {signal.SIGCHLD}
STOPPED_BY_TERMINAL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

SI_KERNEL = 0x80  # siginfo code of signals that the terminal's driver makes
PR_SET_PDEATHSIG = 1


def run(command: list[str], environ: Mapping[str, str]) -> int:
    """Runs `command` and returns the exit status for `harp-run`: the program's own, or 128+signal.

    Raises HarpError (126, 127) when it cannot be executed.
    """
    # An inherited SIG_IGN would make the kernel reap the program behind our back.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        return _watch(_start(command, environ, before))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(command: list[str], environ: Mapping[str, str], mask: set[int | signal.Signals]) -> int:
    """Forks and executes; the child reports a failed exec through a pipe that exec closes."""
    libc = ctypes.CDLL(None)
    parent = os.getpid()
    report_read, report_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(125)
            for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored_by_python, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execvpe(command[0], command, environ)
        except OSError as error:
            os.write(report_write, str(error.errno).encode())
        finally:
            os._exit(125)
    os.close(report_write)
    with os.fdopen(report_read, "rb") as report:
        failure = report.read()
    if failure:
        os.waitpid(pid, 0)
        raise _cannot_execute(command[0], int(failure))
    return pid


def _watch(pid: int) -> int:
    while True:
        info = signal.sigwaitinfo(WATCHED)
        if info.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if ended == 0:
                continue
            if os.WIFSTOPPED(status):
                if os.WSTOPSIG(status) in STOPPED_BY_TERMINAL:
                    os.kill(os.getpid(), signal.SIGSTOP)
            elif os.WIFSIGNALED(status):
                return 128 + os.WTERMSIG(status)
            else:
                return os.WEXITSTATUS(status)
        elif info.si_code != SI_KERNEL:
            os.kill(pid, info.si_signo)


def _cannot_execute(name: str, number: int) -> HarpError:
    if number == errno.ENOENT:
        if os.path.sep in name and os.path.exists(name):
            return HarpError(
                f"cannot run {name}: its interpreter does not exist", "see its first line", 127
            )
        return HarpError(f"cannot run {name}: not found", "check the name and PATH", 127)
    if number == errno.ENOEXEC:
        return HarpError(f"cannot run {name}: not a program", "name its interpreter before it", 126)
    return HarpError(f"cannot run {name}: {os.strerror(number)}", f"ls -l {name}", 126)
