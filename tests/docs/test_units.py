"""The systemd units under deploy/ start commands that there are, with options that they have."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from harp_client.cli import COMMANDS

UNITS = sorted((Path(__file__).resolve().parents[2] / "deploy").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_with_its_options(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    program, name, *words = shlex.split(line)
    assert program == "/usr/local/bin/harp"
    module, _, attribute = COMMANDS[name].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here; apt-get install systemd enables this")
    program = shutil.which("true")
    stood_in = tmp_path / unit.name
    stood_in.write_text(unit.read_text().replace("/usr/local/bin/harp", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", stood_in], capture_output=True, text=True)
    assert unit.name not in done.stderr, done.stderr
