"""Traces of sessions, made on their server: the agent's side of `harp-trace record`.

Each recorded session has a recorder of its own, which empties what the worker writes into shared
memory. The agent says what is recorded, and where to, and never sees a byte of it.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harp_client.errors import HarpError, printable
from harp_client.recorder import policies
from harp_server.content_cache import tenant_label
from harp_server.logs import Log

EVERYBODY = "*"
"""In place of a tenant's name: of those that are not named."""

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of tenants that are names of folders too."""

FINISH_SECONDS = 60.0
"""How long a recorder may go on writing when its session is over."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What is to be recorded, and where traces are kept."""

    folder: Path
    payloads: Mapping[str, str] = field(default_factory=dict)
    """By tenant how much of the payloads is kept: `shape`, or `images=full,downloads=hash`."""

    size: int = 10 << 30
    """Bytes of traces; beyond it the oldest are removed before another begins. None is larger."""

    def of(self, identity: str) -> str | None:
        """How the sessions of a user (a SPIFFE URI) are recorded; None: not."""
        return self.payloads.get(tenant_of(identity), self.payloads.get(EVERYBODY))


def rules(words: tuple[str, ...]) -> dict[str, str]:
    """`TENANT=POLICY` as payloads by tenant. Raises HarpError."""
    found = {}
    for word in words:
        tenant, equals, policy = word.partition("=")
        if not equals or not tenant:
            raise HarpError(f"{word!r} says not what to record", "--record TENANT=shape", 2)
        found[tenant] = normal_policy(policy)
    return found


def normal_policy(text: str) -> str:
    """A payload policy with every class by name. Raises HarpError."""
    return ",".join(f"{name}={kept}" for name, kept in policies(text).items())


def tenant_of(identity: str) -> str:
    """The tenant's name in a user's SPIFFE URI."""
    return identity.partition("/tenant/")[2].partition("/user/")[0]


class Recorders:
    """The recorders of the sessions that there are."""

    def __init__(
        self, program: str, recording: Recording, environ: Mapping[str, str], log: Log
    ) -> None:
        self._program = program
        self._recording = recording
        self._environ = environ
        self._log = log
        self._running: set[asyncio.Task[None]] = set()
        self._written: set[Path] = set()
        """Traces that are being written."""

    @property
    def some_are_recorded(self) -> bool:
        """Whether the start of a session has to be answered."""
        return bool(self._recording.payloads)

    def policy(self, identity: str) -> str | None:
        """How the sessions of a user are recorded; None: not."""
        return self._recording.of(identity)

    def begin(
        self, session: str, identity: str, payload: str, over: asyncio.Future[int]
    ) -> socket.socket | None:
        """A worker's way to a recorder of its own, which finishes when the worker is `over`.

        None, and a line in the log, where it cannot be had.
        """
        tenant = tenant_of(identity)
        label = tenant if PLAIN_NAME.fullmatch(tenant) else tenant_label(identity)
        out = self._recording.folder / label / f"{session}.htrace"
        try:
            out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            listener, ours = connection()
        except OSError as error:
            self._log.warning("session not recorded", session=session, cause=str(error))
            return None
        task = asyncio.ensure_future(self._record(session, out, payload, listener, over))
        self._running.add(task)
        self._written.add(out)

        def is_over(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._written.discard(out)

        task.add_done_callback(is_over)
        return ours

    async def _record(
        self,
        session: str,
        out: Path,
        payload: str,
        listener: socket.socket,
        over: asyncio.Future[int],
    ) -> None:
        with listener:
            folder, size = self._recording.folder, self._recording.size
            await asyncio.to_thread(make_room, folder, size, self._written)
            try:
                recorder = await asyncio.create_subprocess_exec(
                    *(self._program, "record", "--socket", str(listener.fileno())),
                    *("--out", str(out), "--payload", payload, "--limit", str(size)),
                    *("--grace", str(round(1000 * FINISH_SECONDS))),
                    env=dict(self._environ),
                    pass_fds=[listener.fileno()],
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                self._log.warning("session not recorded", session=session, cause=str(error))
                return
        assert recorder.stdin is not None
        await asyncio.wait({over})
        recorder.stdin.close()
        try:
            async with asyncio.timeout(2 * FINISH_SECONDS):
                said, _ = await recorder.communicate()
        except TimeoutError:
            recorder.kill()
            await recorder.wait()
            said = b""
        # The line of one that was killed may be cut off.
        lines = [line for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
        told = [line for line in map(json.loads, lines) if line.get("type") != "ready"]
        self._tell(session, told[0] if told else {})

    def _tell(self, session: str, told: Mapping[str, Any]) -> None:
        match told.get("type"):
            case "trace":
                lost = told["lost"]["blocks"]
                self._log.info(
                    "session recorded",
                    session=session,
                    path=str(told["path"]),
                    calls=told["calls"],
                    bytes=told["bytes"],
                    lost=lost,
                )
            case "failed":
                cause = printable(str(told.get("error")))
                self._log.warning("session not recorded", session=session, cause=cause)
            case _:
                cause = "its worker has ended, or the recorder has failed"
                self._log.warning("session not recorded", session=session, cause=cause)

    async def end(self, seconds: float | None = None) -> None:
        """Waits until what sessions have said is written, for so long at most."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)


def connection() -> tuple[socket.socket, socket.socket]:
    """A socket that a recorder can listen at, and a connection that waits there. Raises OSError."""
    folder = tempfile.mkdtemp(prefix="harp-recorder-")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path = os.path.join(folder, "recorder")
        listener.bind(path)
        listener.listen(1)
        ours.connect(path)
    except OSError:
        listener.close()
        ours.close()
        raise
    finally:
        # Nobody else comes.
        shutil.rmtree(folder, ignore_errors=True)
    return listener, ours


def make_room(folder: Path, most: int, written: Collection[Path]) -> None:
    """Removes the oldest traces until there are `most` bytes in the tenants' folders, apart from
    those that are being written. One without a manifest is what a recorder left that has died."""
    found = []
    for trace in folder.glob("*/*.htrace"):
        if trace not in written:
            # Somebody may remove it meanwhile.
            with contextlib.suppress(OSError):
                size = sum(path.stat().st_size for path in trace.rglob("*"))
                found.append((trace.stat().st_mtime, size, trace))
    excess = sum(size for _, size, _ in found) - most
    for _, size, trace in sorted(found):
        if excess <= 0:
            return
        shutil.rmtree(trace, ignore_errors=True)
        excess -= size
