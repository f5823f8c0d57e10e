"""Traces of format version 1, committed once: every later version reads them.

`vector_add.htrace` is the part `vector_add` of recorded_program.py, recorded in full, and
`vector_add.tar.htrace` the same packed. They are never written anew.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from replay.recorded_program import COUNT, VECTOR_ADD_CALLS
from replay.stage import lines_of

GOLDEN = Path(__file__).parent / "golden" / "v1"


@pytest.mark.parametrize("name", ["vector_add.htrace", "vector_add.tar.htrace"])
def test_a_trace_of_version_1_says_what_it_always_said(name: str) -> None:
    (verified,) = lines_of("verify", GOLDEN / name)
    assert (verified["problems"], verified["complete"]) == ([], True)
    events = lines_of("events", GOLDEN / name)
    calls = [event["name"] for event in events if event["type"] == "call"]
    # Each of the three frees waited then.
    *before, last = VECTOR_ADD_CALLS
    assert calls == [*before, *["cuCtxSynchronize"] * 2, last]
    (launch,) = (event for event in events if event.get("kernel"))
    assert launch["kernel"] == "add"
    assert launch["args"]["grid"] == [4, 1, 1]
    # Contents have the same names in both.
    named = [event["payload"] for event in events if event.get("payload", {}).get("hash")]
    contents = [
        (GOLDEN / "vector_add.htrace" / "blobs" / each["hash"][:2] / each["hash"]).read_bytes()
        for each in named
    ]
    a, b, _, c = contents
    a, b, c = (struct.unpack(f"{COUNT}f", each) for each in (a, b, c))
    assert list(c) == [x + y for x, y in zip(a, b, strict=True)]
