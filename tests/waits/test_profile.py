"""A program says why its calls waited, and so does the server when the session has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from conformance.outcome import Outcome
from pool.standins import Server, wait_until
from programs import build
from waits.profile import Profile, profile_of, tables_of


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


BYTES = 100_003 * 4
"""Of each array of vector_add."""


def test_calls_waits_and_copies_are_told_without_a_trace(run: Callable[..., Outcome]) -> None:
    told = run(program("vector_add"), words="--profile").stderr
    tables = tables_of(told)
    calls = tables["CUDA API Summary (cuda_api_sum)"]
    # Time (%), total, calls, average, median, least, most, deviation.
    assert {name: row[2] for name, row in calls.items()}.items() >= {
        ("cuMemcpyHtoD_v2", 2),
        ("cuMemcpyDtoH_v2", 2),
        ("cuLaunchKernel", 2),
        ("cuLibraryLoadData", 1),
        ("cuInit", 1),
    }
    for name, (_, total, count, average, median, least, most, _) in calls.items():
        assert abs(total - count * average) <= count + total / 1e3, name
        assert least - 1 <= average <= most + 1, name
        assert least - 1 <= median <= most + 1, name
    assert abs(sum(row[0] for row in calls.values()) - 100) < 2
    assert {name: row[:2] for name, row in tables["CUDA API Memory Copies (by Size)"].items()} == {
        "[CUDA memcpy Host-to-Device]": [round(2 * BYTES / 1e6, 3), 2],
        "[CUDA memcpy Device-to-Host]": [round(2 * BYTES / 1e6, 3), 2],
    }
    assert profile_of(told).asked_for == {"cuMemcpyDtoH_v2": 2, "cuCtxSynchronize": 1}
