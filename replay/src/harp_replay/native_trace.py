"""The native program that reads and replays traces: starting it, hearing what it says."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from harp_client import native
from harp_client.errors import HarpError

PROGRAM = "harp-trace: "
"""How its messages begin."""

LINE_BYTES = 1 << 20
"""A message is not longer."""


class NativeTrace:
    """One run of `harp-trace ARGUMENTS`; used in a `with` block, at whose end it is over.

    Its standard output is lines of JSON, an object each (`lines`). On standard error it says the
    cause of a failure, in one line.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """Raises HarpError where it cannot be started."""
        program = native.find().trace
        try:
            self.process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise HarpError(
                f"cannot start {program}: {error.strerror}", "install harp-pool again", 2
            ) from error

    def __enter__(self) -> "NativeTrace":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def lines(self) -> Iterator[dict[str, Any]]:
        """The objects that it prints, as they come; `end` says why they end.

        A line that is cut off is none: it was killed there.
        """
        assert self.process.stdout is not None
        decode = json.JSONDecoder().decode  # json.loads() looks for the encoding of each line
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                yield decode(line.decode())

    def end(self, status_of_failure: int = 1, *, differs: bool = False) -> None:
        """Waits for its end. `differs`: it has printed a result that is not as it should be, for
        which it ends with status 1 and says no more.

        Raises HarpError with what it says where it failed: with exit status 2 where it refused the
        trace or its arguments, else `status_of_failure`.
        """
        assert self.process.stderr is not None
        said = self.process.stderr.read(LINE_BYTES).decode(errors="replace").strip()
        status = self.process.wait()
        if status != 0 and said:
            cause, _, next_step = said.removeprefix(PROGRAM).rpartition("; ")
            if not cause:
                cause, next_step = next_step, ""
            raise HarpError(cause, next_step, 2 if status == 2 else status_of_failure)
        if status < 0:
            raise HarpError(
                f"harp-trace was ended by signal {-status}", "see what the system says", 6
            )
        if status != 0 and not (differs and status == 1):
            raise HarpError(
                f"harp-trace ended with status {status} and said nothing",
                "install harp-pool again; if it does so again, report this",
                6,
            )
