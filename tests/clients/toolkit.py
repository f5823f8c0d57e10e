"""CUDA compilers and runtimes for the test programs, from pinned PyPI wheels.

No GPU and no installed CUDA are needed: the wheels named in `requirements-cuda-*.txt` are unpacked
once under `.cache/cuda/<version>` in the checkout, each into a tree laid out like an installed
toolkit (`bin`, `include`, `lib`, `lib64`).

    python tests/clients/toolkit.py          # unpack what is missing, print where it is
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
CACHE = CHECKOUT / ".cache"

COMPILER = "13.0"
RUNTIMES = ("13.0", "12.9", "13.5")


def progress(text: str) -> None:
    """Shows a step of a long preparation to the person waiting for it."""
    print(f"[clients] {text}", file=sys.stderr, flush=True)


@contextmanager
def only_one(name: str):
    """Lets one process at a time prepare the thing called `name`."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare_once(place: Path, recipe: bytes, make: Callable[[Path], None]) -> Path:
    """Makes the folder `place` with `make` unless it was already made from the same `recipe`."""
    stamp = place / ".made-from"
    digest = hashlib.sha256(recipe).hexdigest()
    with only_one(place.relative_to(CACHE).as_posix().replace("/", "-")):
        if stamp.exists() and stamp.read_text() == digest:
            return place
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        make(place)
        stamp.write_text(digest)
    return place


def unpack(requirements: Path, into: Path) -> None:
    """Downloads and unpacks the wheels that a requirements file pins, without dependencies."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]
    command += ["--disable-pip-version-check", "--root-user-action", "ignore"]
    command += ["--target", str(into), "--requirement", str(requirements)]
    subprocess.run(command, check=True)


def _make_tree(version: str) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        progress(f"CUDA {version}: downloading and unpacking the wheels (once)")
        wheels = place / "wheels"
        unpack(HERE / f"requirements-cuda-{version}.txt", wheels)
        for part in ("bin", "include", "lib", "nvvm"):
            for found in sorted((wheels / "nvidia").glob(f"*/{part}")):
                _link_tree(found, place / part)
        if version.startswith("12."):
            # The compiler's own headers go with the compiler, not with the runtime.
            compiler = toolkit(COMPILER)
            (place / "include" / "crt").symlink_to(compiler / "include" / "crt")
            (place / "include" / "fatbinary_section.h").symlink_to(
                compiler / "include" / "fatbinary_section.h"
            )
        (place / "lib64").symlink_to("lib")
        for library in sorted((place / "lib").glob("lib*.so.*")):
            (place / "lib" / (library.name.split(".so.")[0] + ".so")).symlink_to(library.name)

    return make


def _link_tree(source: Path, target: Path) -> None:
    """Mirrors a folder with hard links: its programs find their neighbours in the mirror."""
    for folder, _, names in os.walk(source):
        mirror = target / Path(folder).relative_to(source)
        mirror.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (mirror / name).exists():
                os.link(Path(folder) / name, mirror / name)


def toolkit(version: str = COMPILER) -> Path:
    """The tree of a CUDA release in `RUNTIMES`; that of `COMPILER` has `bin/nvcc`."""
    if version not in RUNTIMES:
        raise ValueError(f"no CUDA {version} here: choose one of {', '.join(RUNTIMES)}")
    recipe = (HERE / f"requirements-cuda-{version}.txt").read_bytes() + Path(__file__).read_bytes()
    return prepare_once(CACHE / "cuda" / version, recipe, _make_tree(version))


def main() -> int:
    for version in RUNTIMES:
        print(f"CUDA {version}: {toolkit(version)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
