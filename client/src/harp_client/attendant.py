"""A child process that attends one `harp-run`: it prepares something, and ends with this process.

It says in one line of JSON that it is ready. A pipe that only this process holds is its lifeline:
when that says goodbye it tidies up, and when it breaks this process was killed.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harp_client.errors import HarpError
from harp_client.native import without_preload

GOODBYE = b"q"


class NotReady(HarpError):
    """It ended before it was ready. It has said why on stderr."""


class Attendant:
    """Starts on construction and waits until it is ready; `close` ends it."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        what: str,
        ready_seconds: float | None = None,
    ) -> None:
        """`what` names it for people; None waits for ever. Raises HarpError."""
        lifeline_read, self._lifeline = os.pipe()
        ready_read, ready_write = os.pipe()
        # -P: the folder that the program runs in may hold modules of any name.
        command = [sys.executable, "-P", "-m", module]
        command += ["--lifeline-fd", str(lifeline_read), "--ready-fd", str(ready_write)]
        command += arguments
        try:
            # A session of its own: the terminal's signals are for the program.
            self.process = subprocess.Popen(
                command,
                env=without_preload(environ),
                pass_fds=[lifeline_read, ready_write],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # One that harp-run was started without is not the attendant's either.
                stderr=None if os.get_inheritable(2) else subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(lifeline_read)
            os.close(ready_write)
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
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


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
