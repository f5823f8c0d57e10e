"""A child process that attends one `harp-run`: it prepares something, and ends with this process.

It says in one line of JSON that it is ready. A pipe that only this process holds is its lifeline:
when that says goodbye it tidies up, and when it breaks this process was killed.

Forked: what is loaded here need not be loaded again, and `harp-run` has one thread only.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harp_client.errors import HarpError
from harp_client.native import without_preload

GOODBYE = b"q"

Work = Callable[[int, int], int]
"""What the child does, with its end of the lifeline and the descriptor on which it says that it is
ready; its exit status."""


class NotReady(HarpError):
    """It ended before it was ready. It has said why on stderr."""


def module(name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Work:
    """The work of a module, in an interpreter of its own that has `--lifeline-fd` and
    `--ready-fd`."""

    def work(lifeline: int, ready: int) -> int:
        # -P: the folder that the program runs in may hold modules of any name.
        command = [sys.executable, "-P", "-m", name]
        for option, descriptor in (("--lifeline-fd", lifeline), ("--ready-fd", ready)):
            os.set_inheritable(descriptor, True)
            command += [option, str(descriptor)]
        os.execve(sys.executable, [*command, *arguments], without_preload(environ))

    return work


class Attendant:
    """Starts on construction and waits until it is ready; `close` ends it."""

    def __init__(self, work: Work, what: str, ready_seconds: float | None = None) -> None:
        """`what` names it for people; None waits for ever. Raises HarpError."""
        lifeline_read, self._lifeline = os.pipe()
        ready_read, ready_write = os.pipe()
        try:
            self._pid = _fork(work, lifeline_read, ready_write)
        finally:
            os.close(lifeline_read)
            os.close(ready_write)
        self.status: int | None = None
        """Its exit status, as `subprocess` has it, once it has ended."""

        self.answer: dict[str, Any] = {}
        try:
            self.answer = _wait_ready(ready_read, what, ready_seconds)
        except BaseException:
            self.close(5.0)
            raise
        finally:
            os.close(ready_read)

    def close(self, seconds: float) -> None:
        """Says goodbye and waits for the end, within a bound."""
        with contextlib.suppress(OSError):  # it may have ended before us
            os.write(self._lifeline, GOODBYE)
        os.close(self._lifeline)
        deadline = time.monotonic() + seconds
        while not self._has_ended():
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.001)

    def _has_ended(self) -> bool:
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:  # SIGCHLD is ignored, so nobody is told how it ended
            return True
        if pid:
            self.status = os.waitstatus_to_exitcode(status)
        return bool(pid)


def _fork(work: Work, lifeline: int, ready: int) -> int:
    """Starts the child, which never returns from here."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # harp-run was started without it
            stream.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()  # the terminal's signals are for the program
        _keep_only(lifeline, ready)
        status = work(lifeline, ready)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _keep_only(lifeline: int, ready: int) -> None:
    """Has nothing open but standard error and the two."""
    null = os.open(os.devnull, os.O_RDWR)
    # A standard error that harp-run was started without is not the attendant's either.
    for stream in (0, 1) if os.get_inheritable(2) else (0, 1, 2):
        os.dup2(null, stream)
    above = 3
    for kept in sorted((lifeline, ready)):
        os.closerange(above, kept)
        above = kept + 1
    os.closerange(above, os.sysconf("SC_OPEN_MAX"))
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  it is never closed


def _wait_ready(ready: int, what: str, seconds: float | None) -> dict[str, Any]:
    deadline = None if seconds is None else time.monotonic() + seconds
    text = b""
    while not text.endswith(b"\n"):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([ready], [], [], left)[0]:
            raise HarpError(f"{what} did not start in {seconds:.0f} s", "harp doctor", 125)
        piece = os.read(ready, 4096)
        if not piece:
            raise NotReady(f"{what} did not start", "harp doctor", 125)
        text += piece
    answer: dict[str, Any] = json.loads(text)
    return answer
