"""Expressions over a driver in local mode, and what came of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent

Calls = Callable[..., subprocess.CompletedProcess[str]]


def answers(done: subprocess.CompletedProcess[str]) -> list[object]:
    assert done.returncode == 0, done.stderr
    return [eval(line) for line in done.stdout.splitlines()]
