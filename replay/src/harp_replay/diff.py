"""`harp-replay diff`: where two traces of a program differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import click

from harp_client.errors import printable
from harp_replay.canon import POLLS
from harp_replay.comparing import Difference, Run, compare, describe, payload_policy


def uneven(a: Counter[str], b: Counter[str]) -> dict[str, list[int]]:
    """What occurs more often in one than in the other, with both numbers."""
    return {
        name: [a[name], b[name]]
        for name in sorted({*a, *b})
        if a[name] != b[name] and name not in POLLS
    }


@click.command()
@click.argument("a", type=click.Path(exists=True))
@click.argument("b", type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def diff(a: str, b: str, as_json: bool) -> int:
    """Say where two traces of a program, A and B, differ.

    Threads are compared with each other call by call. What is another in each run does not count:
    times, ids, raw addresses, how often a program polled. The content of data counts where both
    traces have its hash (harp-run --trace-payload hash). Exit status: 0 no difference, 1 some.

    \b
    Examples:
      harp-replay diff monday.htrace tuesday.htrace
      harp-replay diff a.htrace b.htrace --json | jq .first
    """
    by_hash = payload_policy(a) == payload_policy(b)
    one, other = Run(a, by_hash), Run(b, by_hash)
    counts, found = compare(one, other)
    describe(one, other, found)
    result = {
        "different": counts.total(),
        "by_kind": dict(counts),
        "first": _as_data(found[0]) if found else None,
        "differences": [_as_data(each) for each in found],
        "payloads": _payloads(found),
        "api_calls": uneven(one.api, other.api),
        "failed": uneven(one.failed, other.failed),
        "kernels": uneven(one.kernels, other.kernels),
        "by_hash": by_hash,
    }
    differs = any(result[key] for key in ("different", "api_calls", "failed", "kernels"))
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return 1 if differs else 0
    if not by_hash:
        click.echo(
            "data: only sizes compared, for the traces keep hashes of other classes", err=True
        )
    for line in told(result) if differs else ["no difference"]:
        click.echo(printable(line))
    return 1 if differs else 0


def _payloads(found: list[Difference]) -> list[dict[str, Any]]:
    """The differences that are of data only in their content."""
    return [
        {"a": each.a, "b": each.b, "of": each.kind, "name": each.told["name"]}
        for each in found
        if any(field["field"] == "payload" for field in each.told["fields"])
    ]


def _as_data(each: Difference) -> dict[str, Any]:
    numbers = {
        key: number if number >= 0 else None for key, number in (("a", each.a), ("b", each.b))
    }
    return {"kind": each.kind, **numbers, **each.told}


def told(result: Mapping[str, Any]) -> Iterator[str]:
    """The result, line by line."""
    if result["different"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in result["by_kind"].items())
        yield f"{result['different']:,} differences: {kinds}"
    for place, each in enumerate(result["differences"]):
        where = {"only in A": f"call {each['a']}", "only in B": f"call {each['b']}"}
        pair = f"call {each['a']} / {each['b']}"
        first = "first: " if place == 0 else "       "
        what = "the answer to " if each["kind"] == "answer" else ""
        side = f" is {each['kind']}" if each["kind"] in where else ""
        yield f"  {first}{where.get(each['kind'], pair)}: {what}{each['name']}{side}"
        for field in each["fields"]:
            a, b = (_short(field[key]) for key in ("a", "b"))
            yield f"           {field['field']}: {a} | {b}"
    if result["different"] > len(result["differences"]):
        yield f"  … and {result['different'] - len(result['differences']):,} more"
    for title, key in (
        ("driver API calls", "api_calls"),
        ("results", "failed"),
        ("kernels", "kernels"),
    ):
        if result[key]:
            yield f"{title} that occur more often in one:"
        for name, (one, other) in result[key].items():
            yield f"  {one:,} | {other:,}  {name}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and set(value) == {"bytes", "hash"}:
        name = value["hash"]
        return f"{value['bytes']} bytes{f' {name[:16]}…' if isinstance(name, str) else ''}"
    if value is None:
        return "-"
    words = value if isinstance(value, str) else json.dumps(value)
    return words if len(words) <= 100 else f"{words[:99]}…"
