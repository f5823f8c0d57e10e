"""The recorder of one `harp-run --trace`: a process that writes what the programs' rings hold.

It ends with this process, however that ends, and after the programs that it records: what they have
said by then is written.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from harp_client import settings
from harp_client.errors import HarpError, printable
from harp_client.native import NativeParts, without_preload
from harp_client.quantities import readable

POLICIES = ("full", "hash", "shape")
CLASSES = ("images", "uploads", "downloads")
DEFAULT = {"images": "hash", "uploads": "shape", "downloads": "shape"}

AT_LIMIT = "size limit"
"""What the recorder calls the reason."""

SMALLEST = 1 << 20
"""Bytes: a smaller trace may have no room for the beginning of any."""


def policies(text: str | None) -> dict[str, str]:
    """How much a trace keeps of each class, as a person has written it. Raises HarpError (2)."""
    if not text:
        return DEFAULT
    if text in POLICIES:
        return dict.fromkeys(CLASSES, text)
    chosen = dict(DEFAULT)
    for part in text.split(","):
        name, _, policy = part.partition("=")
        if name not in CLASSES or policy not in POLICIES:
            raise HarpError(
                f"{text!r} is no payload policy",
                "full, hash or shape, for all or by class: images=full,uploads=full,downloads=hash",
                2,
            )
        chosen[name] = policy
    return chosen


def check(out: str) -> None:
    """Raises HarpError where no trace can be begun at `out`."""
    if os.path.lexists(out):
        raise HarpError(f"{out} exists", "name another file, or remove it", 125)
    folder = os.path.dirname(out) or "."
    if not os.access(folder, os.W_OK | os.X_OK):
        raise HarpError(f"nothing can be written into {folder}", "name another folder", 125)


class Recorder:
    """Starts on construction; `close` waits until all is written and says what there is."""

    def __init__(
        self,
        out: str,
        payload: Mapping[str, str],
        most: int | None,
        parts: NativeParts,
        environ: Mapping[str, str],
    ) -> None:
        """`most`: bytes that each trace may have. Raises HarpError where it cannot start."""
        self._most = most
        self._keeps = [name for name in CLASSES if payload[name] == "full"]
        self._folder = tempfile.mkdtemp(prefix="harp-trace-")
        socket = os.path.join(self._folder, "recorder")
        policy = ",".join(f"{name}={payload[name]}" for name in CLASSES)
        # The folder goes with the recorder, also where this process is killed.
        command = [parts.trace, "record", "--socket", socket, "--own-folder"]
        command += ["--out", out, "--payload", policy]
        if most is not None:
            command += ["--limit", str(most)]
        self.environment = {
            settings.HARP_TRACE_SOCKET.name: socket,
            settings.HARP_TRACE_PAYLOAD.name: policy,
        }
        try:
            # A session of its own: the terminal's signals are for the program.
            self._process = subprocess.Popen(
                command,
                env=without_preload(environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.get_inheritable(2) else subprocess.DEVNULL,
                start_new_session=True,
                text=True,
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise HarpError(
                f"cannot run {parts.trace}: {error.strerror}", "install harp-pool again", 125
            ) from None
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            shutil.rmtree(self._folder, ignore_errors=True)
            raise HarpError("the recorder did not start", "see the line above", 125)

    def close(self) -> list[str]:
        """Waits until what the programs have said is written; a line for each trace. Raises
        ValueError or OSError where the recorder was killed before it had said that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            told = [json.loads(line) for line in self._process.stdout]
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        lines = [self._line(each) for each in told if each.get("type") in ("trace", "failed")]
        if not lines:
            lines.append("no trace: no process used a device, or none could be recorded")
        return [printable(line) for line in lines]

    def _line(self, told: dict[str, Any]) -> str:
        if told["type"] == "failed":
            return f"no trace of {told['program']} ({told['pid']}): {told['error']}"
        line = f"trace {told['path']}: {told['calls']:,} calls, {readable(told['bytes'])}"
        if told["blobs"]:
            line += f", {told['blobs']:,} contents of {readable(told['blob_bytes'])}"
        lost = told["lost"]
        if lost["blocks"] or lost["reasons"]:
            reasons = ", ".join(lost["reasons"]) or "reason unknown"
            line += f"; lost: {lost['blocks']:,} blocks of {readable(lost['bytes'])} ({reasons})"
            if AT_LIMIT in lost["reasons"] and self._most is not None:
                line += f": more than --trace-max {readable(self._most)}"
        if told["ended"] == "running":
            line += "; the program goes on, and so does its trace"
        elif told["ended"] != "exit":
            line += "; the program ended without a goodbye"
        if self._keeps:
            line += (
                f"; it holds the program's data ({', '.join(self._keeps)}): mind whom you give it"
            )
        return line
