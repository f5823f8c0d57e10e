"""`HOST:PORT`: what is taken for one."""

from __future__ import annotations

import pytest

from harp_client import endpoint
from harp_client.errors import HarpError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("gpu1:7443", "gpu1", 7443), ("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:65535", "::1", 65535)],
)
def test_is_taken_apart_and_joined(text: str, host: str, port: int) -> None:
    assert endpoint.parse(text, "gpu1:1") == (host, port)
    assert endpoint.joined(host, port) == text


@pytest.mark.parametrize("text", ["", "gpu1", ":1", "gpu1:", "gpu1:-1", "gpu1:²", "gpu1:65536"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(HarpError) as refused:
        endpoint.parse(text, "gpu1:1", 125)
    expected = (f"{text!r} is not HOST:PORT", "write it like gpu1:1", 125)
    assert (refused.value.cause, refused.value.next_step, refused.value.exit_code) == expected
