"""docs/coverage.md: every function of the driver API, and what this project does with it."""

from __future__ import annotations

from collections.abc import Iterator

from harp_spec import facts, sources
from harp_spec.model import Call, Sync
from harp_spec.outputs import exports, forward
from harp_spec.render import Output, notice, text
from harp_spec.spec.aliases import SAME_ABI
from harp_spec.spec.all import AREAS, REGISTRY

PATH = "docs/coverage.md"


def outputs() -> Iterator[Output]:
    soft = exports.paths_in_api("softgpu/driver")
    hand_written = exports.paths_in_api("interposer")
    forwarded = forward.names()
    everything = exports.all_functions()
    functions = sorted(name for name in everything if not exports.PER_THREAD_TWIN.fullmatch(name))
    server = Server(sources.worker_calls())

    reviewed = [
        (
            area.name,
            [
                {
                    "name": call.name,
                    "when": answered(call),
                    "soft": "yes" if call.name in soft else "no" if not call.internal else "",
                    "interposer": interposer_side(call, hand_written, forwarded),
                    "server": server.side(call),
                }
                for call in REGISTRY.calls.values()
                if call.area == area.name
            ],
        )
        for area in AREAS
    ]
    known = set(REGISTRY.calls) | set(SAME_ABI)
    soft_only = [name for name in functions if name not in known and name in soft]
    absent = [name for name in functions if name not in known and name not in soft]
    rows = [row for _, section in reviewed for row in section]
    yield Output(
        PATH,
        text(
            "coverage.md.j2",
            notice=notice("proto/src/harp_spec/spec and the sources of all parts"),
            release=facts.newest().version,
            releases=facts.releases(),
            exported=len(everything) + len(exports.interop_names()),
            twins=len(everything) - len(functions),
            functions=len(functions),
            reviewed=reviewed,
            calls=sum(not call.internal for call in REGISTRY.calls.values()),
            internal=sum(call.internal for call in REGISTRY.calls.values()),
            waiting=sum(row["when"].startswith("reply") for row in rows),
            one_way=sum(row["when"] == "one way" for row in rows),
            local=sum(row["when"] == "local" for row in rows),
            soft=sum(row["soft"] == "yes" for row in rows),
            interposer=sum(row["interposer"] not in ("no", "") for row in rows),
            aliases=SAME_ABI,
            soft_only=soft_only,
            absent=absent,
            interop=sorted(exports.interop_names()),
        ),
    )


def answered(call: Call) -> str:
    """When a program hears of the call's outcome."""
    match call.sync:
        case Sync.LOCAL:
            return "local"
        case Sync.ONE_WAY:
            return "one way"
    return f"reply: {call.because.value}" if call.because else "reply"


def interposer_side(call: Call, hand_written: dict[str, str], forwarded: set[str]) -> str:
    if call.internal:
        return ""
    if call.name in hand_written:
        return "hand-written" if call.sync is not Sync.LOCAL else "answers itself"
    return "generated" if call.name in forwarded else "no"


class Server:
    """Who executes a call on the server."""

    def __init__(self, hand_written: set[str]) -> None:
        self.hand_written = hand_written

    def side(self, call: Call) -> str:
        if call.on_default_stream:
            return f"as {call.on_default_stream}"
        if not call.travels:
            return "as " + ", ".join(call.via) if call.via else ""
        if call.server is None:
            return "generated"
        return "hand-written" if call.name in self.hand_written else "no"
