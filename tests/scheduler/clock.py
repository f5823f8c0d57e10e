"""A wall clock that one part of a pool has to itself, and that a test lets jump."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shifted_clock.c")


class WallClock:
    """The clock of the processes that are started with `environ`."""

    def __init__(self, folder: Path, name: str, ahead: float = 0) -> None:
        """Files go to `folder`; `name` tells clocks in it apart."""
        library, self._file = folder / "shifted_clock.so", folder / f"{name}.clock"
        if not library.exists():
            command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
            subprocess.run(command, check=True)
        self._file.write_bytes(bytes(8))
        self.environ = {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(self._file)}
        self.jump(ahead)

    def jump(self, ahead: float) -> None:
        """From now on it is so many seconds ahead of the machine's."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", int(ahead)))
