"""What has been running for a while waits only where the program asks for data or synchronises.

A longer run of a program differs from a shorter one by what its loop does once everything has been
used and memory is given out again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from clients.environment import clients_python
from clients.toolkit import HERE
from programs import build
from waits.profile import Profile


def test_a_training_loop(profile: Callable[..., Profile]) -> None:
    """Allocator caches, page-locked batches, events that are asked, a loss every fourth step, which
    lands in page-locked memory."""
    program = build.build("training_loop", "static-13.0")
    short, long = profile(program, 8, 4), profile(program, 24, 4)
    assert long.others == short.others
    more = long.asked_for - short.asked_for
    assert more == {"cuStreamSynchronize": 4}


def test_small_allocations(profile: Callable[..., Profile]) -> None:
    """They are cut from blocks, of which one more is asked for as often as the memory doubles. Of
    many that are freed one after the other, the first waits for the device."""
    program = build.build("small_allocations", "static-13.0")
    few, many = profile(program, 4000), profile(program, 16000)
    assert many.asked_for == few.asked_for
    waits = [Counter({call: n for (call, _), n in each.others.items()}) for each in (few, many)]
    assert waits[1] - waits[0] <= Counter({"cuMemAlloc_v2": 2, "cuMemFree_v2": 1})


@pytest.mark.timeout(600)
def test_cupy(profile: Callable[..., Profile]) -> None:
    """Twenty-one operations a round, of which one fetches a number."""
    program = (clients_python(), HERE / "cupy_steps.py")
    profile(*program, 1)  # fills CuPy's cache of compiled kernels
    short, long = profile(*program, 2), profile(*program, 6)
    assert long.others == short.others
    more = long.asked_for - short.asked_for
    assert more == {"cuMemcpyDtoH_v2": 4, "cuStreamSynchronize": 4}
