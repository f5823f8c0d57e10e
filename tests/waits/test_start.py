"""How often a program goes to the server and back before its first kernel has run."""

from __future__ import annotations

from collections.abc import Callable

from conformance.outcome import Outcome
from pool.standins import Server
from programs import build
from waits.line import line
from waits.profile import Profile

HANDSHAKE = 1
"""TLS 1.3 with certificates on both sides: the client's half travels with its first words."""


def test_a_first_kernel_takes_three_round_trips(
    run: Callable[..., Outcome], profile: Callable[..., Profile], server: Server
) -> None:
    """The session's beginning, the image, and the wait; of connecting, TCP's own is not seen here.

    The round trip is long so that what a client sends without waiting for anything goes out before
    anything comes back."""
    program = build.build("first_kernel", "static-13.0")
    with line(server.address, 50) as network:
        run(program, "once", address=network.address)
        assert network.turns() == HANDSHAKE + 3
    seen = profile(program)
    assert seen.others == {
        ("hello", "the session begins"): 1,
        ("cuLibraryLoadData", "code is loaded, or used for the first time"): 1,
        ("cuCtxSynchronize", "memory is freed, when the device has done its work"): 1,
    }
    assert seen.asked_for == {"cuCtxSynchronize": 1, "cuMemcpyDtoH_v2": 1}
