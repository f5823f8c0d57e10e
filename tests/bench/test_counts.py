"""No piece of work executes more instructions than was committed (`bench/counts.json`), as far as
this machine can be compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
SKIPPED = 77


def counts(*options: object) -> subprocess.CompletedProcess[str]:
    """Runs the counts; skips where nothing can be counted or compared, with its reason."""
    command = [sys.executable, BENCH / "counts.py", *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.splitlines()[-1])
    return done


def test_no_piece_of_work_has_become_dearer() -> None:
    done = counts()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_piece_of_work_that_has_become_dearer_is_found(tmp_path: Path) -> None:
    committed = json.loads((BENCH / "counts.json").read_text())
    committed["counts"]["frame_64"] *= 0.9
    (tmp_path / "counts.json").write_text(json.dumps(committed))
    done = counts("--only", "frame_64", "--against", tmp_path / "counts.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "frame_64" in done.stdout.splitlines()[-1]
