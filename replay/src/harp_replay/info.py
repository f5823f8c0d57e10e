"""`harp-replay info`: what a trace holds, on one page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from harp_client.errors import printable
from harp_client.quantities import readable
from harp_replay.events import device_names, events, round_trip_ns
from harp_replay.results import result_name
from harp_replay.tally import ASKED, Tally

NAMES = 12
"""So many names of a kind are shown to people; `--json` has all."""

LONG = 80
"""So many characters of a name."""


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def info(trace: str, as_json: bool) -> None:
    """Say what TRACE holds: calls, kernels, bytes, devices, and whether it is whole.

    \b
    Examples:
      harp-replay info out.htrace
      harp-replay info out.htrace --json | jq .unsupported
    """
    found = summary(Tally().count(events(trace)))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    page = Table(box=None, pad_edge=False, show_header=False)
    page.add_column(style="bold", no_wrap=True)
    page.add_column(overflow="fold")
    for name, text in page_of(found):
        page.add_row(name, printable(text))
    Console(markup=False, highlight=False, emoji=False).print(page)


def summary(tally: Tally) -> dict[str, Any]:
    """The trace in numbers, as `--json` prints it."""
    process = tally.told.get("process", {})
    whole = tally.whole
    manifest = whole.manifest if whole is not None else {}
    unique = sum(tally.names.values())
    return {
        "program": process.get("program", manifest.get("program")),
        "pid": process.get("pid"),
        "harp": process.get("harp"),
        "started": process.get("started", manifest.get("started")),
        "seconds": tally.last / 1e9,
        "payload_policy": process.get("payload"),
        "complete": whole is not None and whole.complete,
        "cut": whole is None or whole.cut,
        "ended": tally.told.get("end", {}).get("reason"),
        "unended": tally.unended(),
        "lost": {
            "blocks": tally.lost_blocks,
            "bytes": tally.lost_bytes,
            "because": sorted(tally.lost_because),
        },
        "sessions": [
            {
                "server": session.get("server"),
                "round_trip_ns": round_trip_ns(session),
                "devices": list(device_names(session)),
            }
            for session in tally.sessions
        ],
        "threads": len(tally.threads),
        "api_calls": tally.begun.total(),
        "api_calls_by_name": dict(tally.begun.most_common()),
        "failed": [
            {"name": name, "result": code, "error": result_name(code), "count": count}
            for (name, code), count in tally.failed.most_common()
        ],
        "unsupported": tally.unsupported(),
        "calls": tally.calls.total(),
        "answered_calls": tally.answered,
        "waits": sum(map(len, tally.waits.values())),
        "waits_not_asked_for": sum(
            len(values) for (because, _), values in tally.waits.items() if because not in ASKED
        ),
        "waited_seconds": sum(map(sum, tally.waits.values())) / 1e9,
        "launches": sum(kernel.launches for kernel in tally.kernels.values()),
        "kernels": {name: kernel.launches for name, kernel in by_launches(tally)},
        "device_times": tally.device_times,
        "sent_bytes": tally.sent,
        "received_bytes": tally.received,
        "moved_bytes": {name: sum(moves.sizes) for name, moves in tally.moves.items()},
        "allocations": tally.allocations,
        "peak_device_bytes": tally.peak_bytes,
        "payloads": {
            "by_policy": dict(tally.payloads),
            "bytes": tally.payload_bytes,
            "named_bytes": tally.named_bytes,
            "different_bytes": unique,
            "dedupe_ratio": tally.named_bytes / unique if unique else None,
        },
        "blobs": {"count": count_of(manifest, "blobs"), "bytes": count_of(manifest, "blob_bytes")},
    }


def count_of(manifest: Mapping[str, Any], name: str) -> int | None:
    """One of a manifest's `counts`, if it is a number that a trace can come to."""
    counts = manifest.get("counts")
    found = counts.get(name) if isinstance(counts, Mapping) else None
    return found if type(found) is int and 0 <= found < 1 << 64 else None


def by_launches(tally: Tally) -> list[tuple[str, Any]]:
    """Kernels, those that were started most often first."""
    return sorted(tally.kernels.items(), key=lambda item: (-item[1].launches, item[0]))


def some(counted: Mapping[str, int]) -> str:
    """Names with how often, the first few of them."""
    shown = [f"{shortened(name)} × {count:,}" for name, count in list(counted.items())[:NAMES]]
    if len(counted) > NAMES:
        shown.append(f"… and {len(counted) - NAMES} more")
    return ", ".join(shown)


def shortened(name: str, most: int = LONG) -> str:
    """A name for people, without its end if it is long."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def page_of(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of the page: a name and a text."""
    yield "program", f"{found['program'] or '?'}, process {found['pid'] or '?'}"
    yield "started", f"{found['started'] or '?'}, {found['seconds']:.3f} s"
    yield "trace", state(found)
    lost = found["lost"]
    if lost["blocks"]:
        why = ", ".join(lost["because"])
        yield "lost", f"{lost['blocks']:,} blocks, {readable(lost['bytes'])}: {why}"
    for session in found["sessions"]:
        trip = session["round_trip_ns"]
        away = f", {trip / 1e6:.3f} ms away" if trip is not None else ""
        names = ", ".join(session["devices"]) or "no device"
        yield "server", f"{session['server'] or '?'}{away}: {names}"
    threads = found["threads"] or 1
    yield "API calls", f"{found['api_calls']:,} in {threads} thread{'s' * (threads > 1)}"
    if found["unsupported"]:
        yield "not supported", some(found["unsupported"])
    failed = {
        f"{each['name']} → {each['error']}": each["count"]
        for each in found["failed"]
        if each["name"] not in found["unsupported"]
    }
    if failed:
        yield "failed", some(failed)
    yield (
        "calls sent",
        f"{found['calls']:,}, {found['answered_calls']:,} to be answered; {found['waits']:,} "
        f"waits ({found['waits_not_asked_for']:,} not asked for), {found['waited_seconds']:.3f} s",
    )
    yield (
        "bytes sent",
        f"{readable(found['sent_bytes'])}; received {readable(found['received_bytes'])}",
    )
    for operation, count in found["moved_bytes"].items():
        yield operation.strip("[]").removeprefix("CUDA "), readable(count)
    yield "kernels", f"{found['launches']:,} launches: {some(found['kernels']) or 'none'}"
    yield (
        "device memory",
        f"{readable(found['peak_device_bytes'])} at a time, allocations: {found['allocations']:,}",
    )
    yield "payloads", payloads(found)


def state(found: Mapping[str, Any]) -> str:
    """Whether the trace is whole, in words."""
    if found["cut"]:
        return "cut off: what was recorded until then is here"
    if not found["complete"]:
        return "not ended in order: what was recorded until then is here"
    if found["ended"] == "gone":
        inside = ", ".join(found["unended"])
        return f"whole; the program was gone without a goodbye{inside and f', inside {inside}'}"
    return "whole"


def payloads(found: Mapping[str, Any]) -> str:
    """What there is of the data, in words."""
    told = found["payloads"]
    counts = ", ".join(f"{count:,} {policy}" for policy, count in told["by_policy"].items())
    text = f"{readable(told['bytes'])} in {counts}" if counts else "none"
    ratio = told["dedupe_ratio"]
    if ratio is not None:
        text += f"; {readable(told['different_bytes'])} of it differ, each {ratio:.2f} × on average"
    blobs = found["blobs"]
    if blobs["count"]:
        text += f"; {blobs['count']:,} contents kept, {readable(blobs['bytes'] or 0)}"
    return text
