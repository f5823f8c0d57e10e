"""The kinds of handles. Tags are part of the wire format: append, never renumber."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind: its tag in a wire handle, its C type and what it is."""

    name: str
    tag: int
    c_type: str
    meaning: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("Context", 1, "CUcontext", "a context, primary or created"),
        Kind("Module", 2, "CUmodule", "a module"),
        Kind("Library", 3, "CUlibrary", "a library: a module of every context"),
        Kind("Function", 4, "CUfunction", "a kernel of a module"),
        Kind("Kernel", 5, "CUkernel", "a kernel of a library"),
        Kind("Stream", 6, "CUstream", "a created stream; the default streams are 0, 1 and 2"),
        Kind("Event", 7, "CUevent", "an event"),
        Kind("Pool", 8, "CUmemoryPool", "a pool of stream-ordered memory"),
        Kind("Link", 9, "CUlinkState", "a running link of several images"),
    )
}
