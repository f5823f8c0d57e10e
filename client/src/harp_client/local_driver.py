"""Which driver a program calls in its own process under `harp-run --local`.

The machine's own is looked for where the dynamic loader would look, and where container runtimes
and distributions put it. Standard library only: `harp-run` comes through here.
"""

import os
import re
from collections.abc import Iterator, Mapping

from harp_client import native, settings
from harp_client.errors import HarpError

LIBRARY = "libcuda.so.1"
LOADER_CACHE = "/etc/ld.so.cache"
CACHED_PATH = re.compile(rb"(/[^\0]*/libcuda\.so\.1)\0")

FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/run/opengl-driver/lib",
)
"""Where drivers lie: Debian, Red Hat, Arch, WSL, GKE, NixOS."""

ELF_X86_64 = (b"\x7fELF\x02\x01", b"\x3e\x00")
"""How a 64-bit little-endian ELF file begins, and its machine at offset 18."""


def choose(named: str | None, parts: native.NativeParts, environ: Mapping[str, str]) -> str:
    """Absolute path of the driver that a person has named, or else of the machine's own.

    `soft` names the soft GPU. Raises HarpError (125) where there is none, or no library.
    """
    named = named or settings.HARP_LIBCUDA.get(environ)
    if named == "soft":
        return parts.softgpu
    if named is None:
        found = next(machines_own(environ), None)
        if found is None:
            raise HarpError(
                f"this machine has no driver of its own ({LIBRARY})",
                "name one with --libcuda PATH, or take the soft GPU with --libcuda soft",
                125,
            )
        return found
    path = os.path.abspath(os.path.expanduser(named))
    if problem := _problem(path):
        raise HarpError(f"{path} is no driver: {problem}", "name a libcuda.so.1, or soft", 125)
    return path


def machines_own(environ: Mapping[str, str], cache: str = LOADER_CACHE) -> Iterator[str]:
    """The machine's own drivers, the one first that the dynamic loader would take."""
    folders = [folder for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    yield from filter(_is_machines_own, (os.path.join(folder, LIBRARY) for folder in folders))
    try:
        with open(cache, "rb") as file:
            cached = CACHED_PATH.findall(file.read())
    except OSError:
        cached = []
    yield from filter(_is_machines_own, map(os.fsdecode, cached))
    yield from filter(_is_machines_own, (os.path.join(folder, LIBRARY) for folder in FOLDERS))


def _is_machines_own(path: str) -> bool:
    folders = {os.path.dirname(path), os.path.dirname(os.path.realpath(path))}
    ours = any(map(native.is_ours, folders))
    # What a toolkit has for linking answers every call with an error.
    stub = any(os.path.basename(folder) == "stubs" for folder in folders)
    return not ours and not stub and _problem(path) is None


def _problem(path: str) -> str | None:
    """What keeps a file from being a library that a program can load, if anything does."""
    try:
        with open(path, "rb") as file:
            head = file.read(20)
    except OSError as error:
        return error.strerror
    magic, machine = ELF_X86_64
    if not head.startswith(magic) or head[18:20] != machine:
        return "it is not a library for x86-64"
    return None
