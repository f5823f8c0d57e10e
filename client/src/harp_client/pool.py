"""The embedded pool of one `harp-run`: an agent in a child process, tied to this process's life."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping

from harp_client.errors import HarpError
from harp_client.native import without_preload
from harp_client.target import Target

READY_SECONDS = 30.0
GOODBYE_SECONDS = 5.0
GOODBYE = b"q"


class EmbeddedPool:
    """Starts on construction; `close` ends it. If this process dies, the pool ends itself."""

    def __init__(self, device: str, verbose: bool, environ: Mapping[str, str]) -> None:
        lifeline_read, self._lifeline = os.pipe()
        ready_read, ready_write = os.pipe()
        # -P: the folder that the program runs in may hold modules of any name.
        command = [sys.executable, "-P", "-m", "harp_server.embedded"]
        command += ["--lifeline-fd", str(lifeline_read), "--ready-fd", str(ready_write)]
        command += ["--device", device, "--log-level", "info" if verbose else "error"]
        try:
            # A session of its own: the terminal's signals are for the program.
            self._agent = subprocess.Popen(
                command,
                env=without_preload(environ),
                pass_fds=[lifeline_read, ready_write],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # One that harp-run was started without is not the agent's either.
                stderr=None if os.get_inheritable(2) else subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(lifeline_read)
            os.close(ready_write)
        try:
            answer = self._wait_ready(ready_read)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(ready_read)
        self.target = Target(
            answer["address"], answer["credentials"], ptx=device == "soft", embedded=True
        )

    def close(self) -> None:
        """Ends the pool and what it left, within a bound."""
        with contextlib.suppress(OSError):  # it may have ended before us
            os.write(self._lifeline, GOODBYE)
        os.close(self._lifeline)
        try:
            self._agent.wait(GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        if self._agent.returncode != 0 and hasattr(self, "target"):
            shutil.rmtree(os.path.dirname(self.target.credentials), ignore_errors=True)

    def _wait_ready(self, ready: int) -> dict[str, str]:
        deadline = time.monotonic() + READY_SECONDS
        text = b""
        while not text.endswith(b"\n"):
            if not select.select([ready], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise HarpError(
                    f"the embedded pool did not start in {READY_SECONDS:.0f} s", "harp doctor", 125
                )
            piece = os.read(ready, 4096)
            if not piece:
                # It has said why on stderr.
                raise HarpError("the embedded pool did not start", "harp doctor", 125)
            text += piece
        answer: dict[str, str] = json.loads(text)
        return answer
