"""The environments in which unmodified CUDA clients (CuPy, numba-cuda, cuda.core) run.

Each is made once under `.cache/NAME-venv` in the checkout from `requirements-NAME.txt`, apart from
the project's own environment: nothing in it knows of HARP.

    python tests/clients/environment.py          # make what is missing, print the Pythons
    python tests/clients/environment.py torch    # only that one, which is large
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clients.toolkit import CACHE, HERE, prepare_once, progress

CLIENTS = "clients"
"""The environment of the demo and of most tests: CuPy, numba-cuda and cuda.core on CUDA 12.9."""

CUPY_CUDA_13 = "cupy-cuda13"
"""CuPy alone, on CUDA 13.0."""

TORCH = "torch"
"""PyTorch's stock wheel for CUDA 13.0: 2.1 GB to download, 3.6 GB unpacked."""


def _make(requirements: Path) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        progress(f"the environment of {requirements.name}: making it (once)")
        venv.create(place, with_pip=True, symlinks=True)
        command = [place / "bin/python", "-m", "pip", "install", "--no-deps"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check"]
        # What is unpacked is kept; keeping the archives too would double gigabytes.
        command += ["--no-cache-dir", "--requirement", requirements]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
            for line in pip.stdout:
                if line.startswith(("Collecting", "Installing", "Successfully")):
                    progress(line.rstrip()[:100])
        if pip.returncode != 0:
            raise SystemExit(
                f"pip could not make the clients' environment (exit code {pip.returncode})"
            )

    return make


def clients_python(name: str = CLIENTS) -> Path:
    """The Python of an environment, which is made first where it is missing."""
    requirements = HERE / f"requirements-{name}.txt"
    version = ".".join(map(str, sys.version_info[:2])).encode()
    recipe = requirements.read_bytes() + version
    return prepare_once(CACHE / f"{name}-venv", recipe, _make(requirements)) / "bin/python"


if __name__ == "__main__":
    for name in sys.argv[1:] or (CLIENTS, CUPY_CUDA_13):
        print(clients_python(name))
