"""A program says why its calls waited, and so does the server when the session has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pool.standins import Server, wait_until
from programs import build
from waits.profile import Profile


def program(name: str) -> object:
    return build.build(name, build.programs()[name].variants[0])


def test_both_ends_count_the_same_waits(profile: Callable[..., Profile], server: Server) -> None:
    seen = profile(program("vector_add"))
    assert seen.asked_for == {"cuMemcpyDtoH_v2": 2, "cuCtxSynchronize": 1}
    assert seen.others["hello", "the session begins"] == 1
    assert seen.others["cuLibraryLoadData", "code is loaded, or used for the first time"] == 1
    wait_until(lambda: bool(server.lines("session end")), "the end is logged")
    (end,) = server.lines("session end")
    # The server does not see that its client waits for the session to begin, and counts the answer
    # to what is in an image by itself, though the client waits for both at once.
    counted = Counter(seen.asked_for)
    for (call, _), count in seen.others.items():
        counted[call] += count
    del counted["hello"]
    counted["harp_describe"] = counted["cuLibraryLoadData"]
    assert end["waited_for"] == counted
    assert end["waits"] == seen.all


def test_every_wait_of_a_synchronous_run_has_a_reason(
    profile: Callable[..., Profile], environ: dict[str, str]
) -> None:
    # The server has seen these copies before, and would not be sent them again.
    asked = {"HARP_SYNC": "1", "HARP_DEDUP": "0"}
    environ |= asked
    try:
        seen = profile(program("vector_add"))
    finally:
        for name in asked:
            del environ[name]
    everything = "HARP_SYNC=1 makes every call wait"
    # The server may have the bytes of a copy by then, and then they are named and not sent.
    assert seen.others["cuDevicePrimaryCtxRetain", everything] == 1
    assert seen.others["cuLaunchKernel", everything] == 1
    assert seen.others["cuLaunchKernel", "code is loaded, or used for the first time"] == 1
