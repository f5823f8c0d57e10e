"""What the hand-written Rust sources implement and use: there is no second list to keep."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harp_spec import facts

API_FUNCTION = re.compile(r"^pub unsafe fn (cu\w+)\s*[(<]", re.MULTILINE)
WORKER_CALL = re.compile(r"^pub fn ((?:cu|harp_)\w+)\s*[(<]", re.MULTILINE)
FORWARD_USE = re.compile(r"\bforward::(cu\w+)")
LOCAL_DRIVER_USE = re.compile(r"\blocal_driver::(cu\w+)")
DRIVER_USE = re.compile(r"\.\s*(cu[A-Z]\w+)")


def texts(folder: str) -> Iterator[str]:
    """The Rust files below a folder, generated ones left out."""
    for path in sorted((facts.ROOT / folder).glob("**/*.rs")):
        if "generated" not in path.parts:
            yield path.read_text()


def found(pattern: re.Pattern[str], folder: str) -> set[str]:
    return {name for source in texts(folder) for name in pattern.findall(source)}


def api_functions(crate: str) -> set[str]:
    """The driver functions that a library implements in its ``src/api``."""
    return found(API_FUNCTION, f"{crate}/src/api")


def forwards_used() -> set[str]:
    """The forwards that hand-written code of the interposer calls."""
    return found(FORWARD_USE, "interposer/src")


def local_driver_functions_used() -> set[str]:
    """The functions of a driver in its process that the interposer calls by itself."""
    return found(LOCAL_DRIVER_USE, "interposer/src/local")


def quota_functions() -> set[str]:
    """The driver functions that keep the quota of local mode."""
    return found(API_FUNCTION, "interposer/src/local/quota")


def worker_calls() -> set[str]:
    """The calls whose execution on the server is hand-written so far."""
    return found(WORKER_CALL, "server/worker/src/calls")


def driver_functions_used() -> set[str]:
    """The driver functions that hand-written code of the server calls."""
    return found(DRIVER_USE, "server/worker/src") & set(facts.newest().functions)
