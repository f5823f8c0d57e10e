"""The environment in which unmodified CUDA clients (CuPy, numba-cuda, cuda.core) run.

It is made once under `.cache/clients-venv` in the checkout from `requirements-clients.txt`, apart
from the project's own environment: nothing in it knows of HARP.

    python tests/clients/environment.py          # make it if it is missing, print its Python
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clients.toolkit import CACHE, HERE, prepare_once, progress

REQUIREMENTS = HERE / "requirements-clients.txt"


def _make(place: Path) -> None:
    progress("CuPy, numba-cuda, cuda.core and CUDA 12.9: making their environment (once)")
    venv.create(place, with_pip=True, symlinks=True)
    command = [place / "bin/python", "-m", "pip", "install", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--requirement", REQUIREMENTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        for line in pip.stdout:
            if line.startswith(("Collecting", "Installing", "Successfully")):
                progress(line.rstrip()[:100])
    if pip.returncode != 0:
        raise SystemExit(
            f"pip could not make the clients' environment (exit code {pip.returncode})"
        )


def clients_python() -> Path:
    """The Python of the clients' environment, which is made first where it is missing."""
    version = ".".join(map(str, sys.version_info[:2])).encode()
    return (
        prepare_once(CACHE / "clients-venv", REQUIREMENTS.read_bytes() + version, _make)
        / "bin/python"
    )


if __name__ == "__main__":
    print(clients_python())
