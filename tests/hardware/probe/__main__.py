from __future__ import annotations

import subprocess
import sys

from . import code, contexts, faults, memory, processes, streams  # noqa: F401
from .driver import SECTIONS, enter

SECONDS = 60


def ask(name: str) -> str:
    """One section's answers, from a process of its own."""
    command = [sys.executable, "-m", "probe", "--here", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode() + f"{name}: did not end\n"
    if done.returncode == 0:
        return done.stdout
    last = done.stderr.strip()[-200:]
    return f"{done.stdout}{name}: ended with {done.returncode}: {last}\n"


def main(chosen: list[str]) -> int:
    if chosen[:1] == ["--here"]:
        enter(chosen[1])
        return 0
    for name in chosen or SECTIONS:
        print(ask(name), end="", flush=True)
    return 0


sys.exit(main(sys.argv[1:]))
