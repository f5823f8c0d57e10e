"""A missing prerequisite is named with how to get it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "prerequisites.sh"

FAKES = {
    "cargo": "#!/bin/sh\n",
    "cc": "#!/bin/sh\n",
    "c++": "#!/bin/sh\n",
    "python3": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
}


def check(folder: Path, *tools: str) -> subprocess.CompletedProcess[str]:
    """Runs the check on a machine that has only these tools."""
    for name in tools:
        (folder / name).write_text(FAKES[name])
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)], env={"PATH": str(folder)}, capture_output=True, text=True
    )


def test_all_there(tmp_path: Path) -> None:
    done = check(tmp_path, *FAKES)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("tool", "name", "how"),
    [
        ("cargo", "cargo", "rustup.rs"),
        ("cc", "a C compiler", "apt-get install gcc"),
        ("c++", "a C++ compiler", "apt-get install g++"),
        ("python3", "Python 3.11", "apt-get install python3"),
    ],
)
def test_one_missing(tmp_path: Path, tool: str, name: str, how: str) -> None:
    done = check(tmp_path, *(other for other in FAKES if other != tool))
    assert done.returncode == 1
    missing, get_it = done.stderr.splitlines()
    assert missing.startswith("missing: ")
    assert name in missing
    assert how in get_it


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = f'#!/bin/sh\ncase "$2" in *version_info*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    (tmp_path / "old").write_text(old)
    (tmp_path / "old").chmod(0o755)
    check(tmp_path, *FAKES)
    command = ["/bin/sh", str(SCRIPT), str(tmp_path / "old")]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr
    assert "make PYTHON=" in done.stderr
