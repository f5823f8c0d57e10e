"""`harp-replay workload`: what a pool's workload would have come to under other policies."""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

import click

from harp_client.errors import printable

FASTER_MOST = 1_000_000
"""Beyond it, and below its inverse, times differ by less than numbers can tell."""


@click.command()
@click.argument("source", metavar="TRACE|CSV", type=click.Path(exists=True, dir_okay=True))
@click.option(
    "-p",
    "--policy",
    "names",
    multiple=True,
    metavar="NAME",
    help="harp, tightest, first-fit, spread, in-order or backfill; give it again for several.  "
    "[default: all]",
)
@click.option(
    "--machines",
    metavar="CSV",
    help="The machines of a list (sn, gpu, model).  [default: openb's, beside the list]",
)
@click.option("--jobs", "most", type=click.IntRange(1), help="Only so many of the first jobs.")
@click.option(
    "--faster",
    "times",
    type=float,
    default=1.0,
    help="Let jobs arrive so many times as fast.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def workload(
    source: str,
    names: tuple[str, ...],
    machines: str | None,
    most: int | None,
    times: float,
    as_json: bool,
) -> None:
    """Drive the scheduler's core with what arrived at a pool, under several policies.

    The source is what harp scheduler --workload has recorded, or a list like those of openb. Shown
    side by side: how much of the pool was allocated, how long was waited, and how much of what was
    idle was of no use to what usually arrives.

    \b
    Examples:
      harp scheduler --workload monday.jsonl
      harp-replay workload monday.jsonl
      harp-replay workload openb_pod_list_default.csv --policy harp --policy spread --faster 4
    """
    from harp_client.errors import HarpError
    from harp_replay import drive, jobs
    from harp_replay.policies import POLICIES

    if not 1 / FASTER_MOST <= times <= FASTER_MOST:  # nor is it not a number
        cause = f"jobs cannot arrive {times:g} times as fast"
        raise HarpError(cause, f"--faster takes 1/{FASTER_MOST} to {FASTER_MOST}", 2)
    unknown = sorted(set(names) - set(POLICIES))
    if unknown:
        raise HarpError(f"there is no policy {unknown[0]}", f"use {', '.join(POLICIES)}", 2)
    found = jobs.faster(jobs.read(source, machines, most), times)
    results = []
    for name in names or POLICIES:
        if sys.stderr.isatty():
            click.echo(f"{name} …", err=True)
        results.append(drive.Driver(name, POLICIES[name], found).run())
    if found.is_recorded:
        results.insert(0, drive.recorded(found))
    rows = [row(result) for result in results]
    if as_json:
        click.echo(json.dumps({"jobs": len(found.jobs), "policies": rows}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy", no_wrap=True)
    heads = ("allocated", "peak", "granted", "never", "mean wait", "median", "p95", "longest")
    for head in (*heads, "fragmented"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in rows:
        table.add_row(printable(str(each["policy"])), *_cells(each))
    width = None if sys.stdout.isatty() else 200
    Console(width=width, markup=False, highlight=False).print(table)


def row(result: Any) -> dict[str, Any]:
    """A result, as `--json` prints it."""
    waits = sorted(result.waits)
    return {
        "policy": result.policy,
        "allocated": result.allocated,
        "peak": result.peak,
        "granted": result.granted,
        "never_granted": result.refused,
        "wait_mean_seconds": statistics.fmean(waits) if waits else None,
        "wait_median_seconds": statistics.median(waits) if waits else None,
        "wait_p95_seconds": waits[min(len(waits) - 1, len(waits) * 95 // 100)] if waits else None,
        "wait_longest_seconds": waits[-1] if waits else None,
        "fragmented": result.fragmented,
    }


def _cells(each: dict[str, Any]) -> list[str]:
    waits = (each[f"wait_{name}_seconds"] for name in ("mean", "median", "p95", "longest"))
    return [
        f"{100 * each['allocated']:.1f} %",
        f"{100 * each['peak']:.1f} %",
        f"{each['granted']:,}",
        f"{each['never_granted']:,}",
        *("-" if wait is None else _time(wait) for wait in waits),
        f"{100 * each['fragmented']:.1f} %",
    ]


def _time(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
