"""Whether a server's devices are soft GPUs: what client libraries must know before they start.

CuPy decides at its import whether it compiles to PTX, so `harp-run` has to know before the program
runs. It asks as any program would, in a session of its own that it ends at once, and remembers the
answer: a session takes one of the server's workers (on a real GPU: a context), and tens of
milliseconds. A server seldom changes its kind; the answer is good for `FRESH_SECONDS`. Asking takes
at most `ASK_SECONDS`, or what connecting may take if that is less. A server that does not answer is
no reason to keep the program waiting or from running: it has its own words for that.
"""

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Mapping

from harp_client import settings, state
from harp_client.errors import HarpError
from harp_client.target import Target

SOFT_NAME = "HARP Soft GPU"
"""What the soft GPU calls its devices."""

FRESH_SECONDS = 3600.0
ASK_SECONDS = 2.0

SOFT, OTHER = "soft", "other"


def is_soft(target: Target, interposer: str, environ: Mapping[str, str]) -> bool | None:
    """Whether the server's devices are soft; None where that cannot be known now."""
    place = _place(target, environ)
    kind = _remembered(place, target)
    if kind is None:
        kind = _ask(target, interposer, _limit(environ))
        if kind is not None and place is not None:
            _remember(place, target, kind)
    return None if kind is None else kind == SOFT


def _place(target: Target, environ: Mapping[str, str]) -> str | None:
    """The file with the answer of this server, for these credentials."""
    words = "".join(c if c.isalnum() or c in ".-" else "_" for c in target.server)
    with contextlib.suppress(HarpError, OSError):
        return os.path.join(state.folder(environ), f"server-{words}")
    return None


def _identity(target: Target) -> str:
    """What the answer holds for: another authority or user may be shown another server."""
    changed = os.stat(os.path.join(target.credentials, "ca.pem")).st_mtime_ns
    return f"{target.server} {target.server_name} {target.credentials} {changed}"


def _remembered(place: str | None, target: Target) -> str | None:
    if place is None:
        return None
    with contextlib.suppress(OSError), open(place, encoding="utf-8") as file:
        age = time.time() - os.fstat(file.fileno()).st_mtime
        identity, _, kind = file.read().rstrip("\n").rpartition("\n")
        if 0 <= age < FRESH_SECONDS and identity == _identity(target) and kind in (SOFT, OTHER):
            return kind
    return None


def _remember(place: str, target: Target, kind: str) -> None:
    with contextlib.suppress(OSError):
        fresh = f"{place}.{os.getpid()}"
        with open(fresh, "w", encoding="utf-8") as file:
            file.write(f"{_identity(target)}\n{kind}\n")
        os.replace(fresh, place)


def _limit(environ: Mapping[str, str]) -> float:
    """Seconds that asking may take. What is no number is not ours to complain about."""
    with contextlib.suppress(ValueError):
        seconds = float(settings.HARP_CONNECT_TIMEOUT.get(environ) or ASK_SECONDS)
        if 0 < seconds < ASK_SECONDS:
            return seconds
    return ASK_SECONDS


def _ask(target: Target, interposer: str, seconds: float) -> str | None:
    """Asks in a child, so that nothing of the session is left in this process."""
    answer, answered = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answer)
        _answer(answered, target, interposer, seconds)
    os.close(answered)
    told = b""
    if select.select([answer], [], [], seconds)[0]:
        told = os.read(answer, 64)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(answer)
    os.waitpid(child, 0)
    kind = told.decode()
    return kind if kind in (SOFT, OTHER) else None


def _answer(answered: int, target: Target, interposer: str, seconds: float) -> None:
    """The child: a program that asks for its devices' names, and says what they mean.

    It ends by C's exit, which says goodbye to the server; what fails here is told by the program.
    """
    import ctypes

    from harp_client import probe

    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, sys.stderr.fileno())
    for name in (settings.HARP_STATS.name, "CUDA_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    os.environ.update(target.environment())
    os.environ[settings.HARP_CONNECT_TIMEOUT.name] = str(seconds)
    with contextlib.suppress(Exception):
        found = probe.devices(ctypes.CDLL(interposer))["devices"]
        assert isinstance(found, list)
        soft = any(device["name"] == SOFT_NAME for device in found)
        os.write(answered, (SOFT if soft else OTHER).encode())
    ctypes.CDLL(None).exit(0)
