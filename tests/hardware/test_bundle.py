"""The bundle for machines with a GPU holds all that it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.bundle import bundle


@pytest.mark.slow
def test_a_bundle_runs_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle(folder)
    results = tmp_path / "results.json"
    command = [sys.executable, str(folder / "run.py"), "--soft", "--out", str(results)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HARP_", "PYTHON"))}
    done = subprocess.run(
        [*command, "vector_add"], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(results.read_text())
    assert report["cases"], done.stdout
    assert report["right"] == len(report["cases"]), done.stdout
    assert {case["pool"]["stdout"] for case in report["cases"].values()} != {""}
