"""What has been running for a while waits only where the program asks for data or synchronises.

A longer run of a program differs from a shorter one by what its loop does once everything has been
used and memory is given out again."""

from __future__ import annotations

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


@pytest.mark.timeout(600)
def test_cupy(profile: Callable[..., Profile]) -> None:
    """Twenty-one operations a round, of which one fetches a number."""
    program = (clients_python(), HERE / "cupy_steps.py")
    profile(*program, 1)  # fills CuPy's cache of compiled kernels
    short, long = profile(*program, 2), profile(*program, 6)
    assert long.others == short.others
    more = long.asked_for - short.asked_for
    assert more == {"cuMemcpyDtoH_v2": 4, "cuStreamSynchronize": 4}
