"""Where the native parts lie: one layout for the installed package and for a checkout.

`setup.py` copies the parts into the package by the same table; a checkout links them out of cargo's
target folder. Standard library only: `harp-run` starts through here.
"""

import contextlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from harp_client import settings
from harp_client.errors import HarpError

# File in the layout -> file that cargo builds. Both libraries carry the SONAME libcuda.so.1; some
# clients search by file name and need that name on disk too, so each has a folder of its own.
LAYOUT = {
    "interposer/libcuda.so.1": "libharp_interposer.so",
    "softgpu/libcuda.so.1": "libharp_softgpu.so",
    "bin/harp-worker": "harp-worker",
    "bin/harp-gate": "harp-gate",
    "bin/harp-cache": "harp-cache",
    "bin/harp-trace": "harp-trace",
}


class NativeParts(NamedTuple):
    """Absolute paths of the parts."""

    root: str

    @property
    def interposer(self) -> str:
        """The libcuda.so.1 that forwards calls to a pool."""
        return os.path.join(self.root, "interposer", "libcuda.so.1")

    @property
    def softgpu(self) -> str:
        """The libcuda.so.1 that executes PTX on the CPU."""
        return os.path.join(self.root, "softgpu", "libcuda.so.1")

    @property
    def worker(self) -> str:
        """The program that serves one session."""
        return os.path.join(self.root, "bin", "harp-worker")

    @property
    def gate(self) -> str:
        """The program that accepts connections for the server."""
        return os.path.join(self.root, "bin", "harp-gate")

    @property
    def cache(self) -> str:
        """The program that keeps what was uploaded."""
        return os.path.join(self.root, "bin", "harp-cache")

    @property
    def trace(self) -> str:
        """The program that records, reads and checks traces."""
        return os.path.join(self.root, "bin", "harp-trace")

    def missing(self) -> list[str]:
        """Parts of the layout that are not there, by their name in the layout."""
        return [part for part in LAYOUT if not os.path.exists(os.path.join(self.root, part))]


def find(environ: Mapping[str, str] = os.environ) -> NativeParts:
    """The native parts: HARP_NATIVE_DIR, else the package's own, else the checkout's build.

    Raises HarpError when there are none.
    """
    chosen = settings.HARP_NATIVE_DIR.get(environ)
    if chosen:
        return NativeParts(os.path.abspath(chosen))
    package = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(package, "native")
    if os.path.isdir(inside):
        return NativeParts(inside)
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(package)))
    if not os.path.exists(os.path.join(checkout, "Cargo.toml")):
        raise HarpError(
            f"the native parts are missing from {package}",
            "install harp-pool again, or set HARP_NATIVE_DIR",
            125,
        )
    target = environ.get("CARGO_TARGET_DIR") or os.path.join(checkout, "target")
    built = os.path.join(target, "release")
    if not os.path.exists(os.path.join(built, "harp-worker")):
        raise HarpError("the native parts are not built yet", f"make -C {checkout} build", 125)
    return link_built(built)


def link_built(built: str) -> NativeParts:
    """Lays links to cargo's files in folder `built` out as the layout, beside them."""
    parts = NativeParts(os.path.join(built, "harp-native"))
    for part, product in LAYOUT.items():
        link = os.path.join(parts.root, part)
        if not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), exist_ok=True)
            with contextlib.suppress(FileExistsError):  # made by another command meanwhile
                os.symlink(os.path.join("..", "..", product), link)
    return parts


def preload(library: str, environ: dict[str, str]) -> None:
    """Puts `library` (a libcuda.so.1) before everything else that a program would load.

    Both variables are needed: LD_PRELOAD answers the link-time and dlopen references, the folder on
    LD_LIBRARY_PATH those clients that look for the file. Raises HarpError (125) for a path that the
    loader cannot be told.
    """
    if any(c in library for c in " :;"):
        raise HarpError(
            f"the dynamic loader cannot preload {library!r}: its path has a space or a colon",
            "install into another folder, or point HARP_NATIVE_DIR at a link without them",
            125,
        )
    for variable, value in (
        ("LD_PRELOAD", library),
        ("LD_LIBRARY_PATH", os.path.dirname(library)),
    ):
        before = environ.get(variable)
        environ[variable] = f"{value}:{before}" if before else value


def without_preload(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for the pool's own processes: free of what an enclosing `harp-run` put in."""
    clean = dict(environ)
    for variable in ("LD_PRELOAD", "LD_LIBRARY_PATH"):
        kept = [
            entry
            for entry in clean.pop(variable, "").split(":")
            if entry
            and not is_ours(entry if variable == "LD_LIBRARY_PATH" else os.path.dirname(entry))
        ]
        if kept:
            clean[variable] = ":".join(kept)
    return clean


def is_ours(folder: str) -> bool:
    """Whether `folder` is a library folder of a native layout, of this or another installation."""
    name = os.path.basename(folder.rstrip("/"))
    return name in ("interposer", "softgpu") and os.path.exists(
        os.path.join(os.path.dirname(folder.rstrip("/")), "bin", "harp-worker")
    )
