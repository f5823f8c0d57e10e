"""replay/src/harp_replay/results.py: the names of results, for people who look at traces."""

from __future__ import annotations

from collections.abc import Iterator

from harp_spec import facts
from harp_spec.render import Output, notice, text

PATH = "replay/src/harp_replay/results.py"


def outputs() -> Iterator[Output]:
    release = facts.newest()
    names = {code: name for name, code in release.enums["CUresult"].items()}
    head = f"# {notice(f'proto/abi/cuda-{release.version}.json')}\n"
    yield Output(PATH, head + text("results.py.j2", names=sorted(names.items())))
