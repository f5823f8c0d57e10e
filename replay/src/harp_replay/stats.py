"""`harp-replay stats`: tables as `nsys stats` has them, of a trace."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import click

from harp_replay.events import events
from harp_replay.files import written
from harp_replay.info import by_launches
from harp_replay.tables import (
    SPREAD,
    Table,
    Value,
    as_csv,
    as_json,
    as_text,
    spread,
    spread_columns,
)
from harp_replay.tally import ASKED, Tally

NO_TIMES = "The trace has no times of the device: "


def of_times(times: Mapping[str, array[int]]) -> Iterator[tuple[Value, ...]]:
    """Share, total, count, spread and name, the greatest total first."""
    totals = {name: sum(values) for name, values in times.items() if values}
    whole = sum(totals.values()) or 1
    for name, total in sorted(totals.items(), key=lambda item: (-item[1], item[0])):
        yield 100 * total / whole, total, len(times[name]), *spread(times[name]), name


def timed(counted: str, named: str) -> tuple[str, ...]:
    """The columns of `of_times`."""
    return "Time (%)", "Total Time (ns)", counted, *spread_columns("ns"), named


def cuda_api_sum(tally: Tally) -> Table:
    """Driver API calls by name."""
    return Table(
        "cuda_api_sum", "CUDA API Summary", timed("Num Calls", "Name"), list(of_times(tally.api))
    )


def cuda_gpu_kern_sum(tally: Tally) -> Table:
    """Kernels by name; without times of the device how often and in which shapes they ran."""
    name, title = "cuda_gpu_kern_sum", "CUDA GPU Kernel Summary"
    times = {name: kernel.times for name, kernel in tally.kernels.items() if kernel.times}
    if times or not tally.kernels:
        launches = sum(kernel.launches for kernel in tally.kernels.values())
        known = sum(map(len, times.values()))
        note = f"The device's times of {known:,} of {launches:,} launches are known."
        note = "" if known == launches else note
        return Table(name, title, timed("Instances", "Name"), list(of_times(times)), note)
    rows: list[tuple[Value, ...]] = []
    for kernel_name, kernel in by_launches(tally):
        shapes = [f"{_dim(grid)} × {_dim(block)}" for grid, block in kernel.grids]
        rows.append((kernel.launches, "; ".join(shapes), kernel_name))
    note = NO_TIMES + "these are the launches, with their grids and blocks."
    return Table(name, title, ("Instances", "GridXYZ × BlockXYZ", "Name"), rows, note)


def _dim(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def cuda_kern_exec_sum(tally: Tally) -> Table:
    """Launches by thread, device, API call and kernel: how long their phases took."""
    kinds = tally.launches.phases()
    told = tally.told.get("process", {}).get("pid")
    pid = told if type(told) is int else None
    rows: list[tuple[Value, ...]] = []
    for kind, phases in sorted(kinds.items(), key=lambda item: (-sum(item[1].total), item[0])):
        place = (pid, tally.threads.get(kind.thread), kind.device)
        times = [spread(each) if each else (None,) * len(SPREAD) for each in phases]
        counts = (len(phases.total), len(phases.queue))
        rows.append((*place, *counts, *chain(*times), kind.api, kind.kernel))
    columns = ["PID", "TID", "DevId", "Count", "QCount"]
    for phase in "TAQK":
        columns += spread_columns("ns", phase)
    is_untimed = tally.kernels and not any(kernel.times for kernel in tally.kernels.values())
    note = NO_TIMES + "see cuda_gpu_kern_sum." if is_untimed else ""
    title = "CUDA Kernel Launch & Exec Time Summary"
    return Table("cuda_kern_exec_sum", title, (*columns, "API Name", "Kernel Name"), rows, note)


def cuda_gpu_mem_time_sum(tally: Tally) -> Table:
    """Copies and fills by what the device took for them."""
    times = {name: moves.times for name, moves in tally.moves.items() if moves.times}
    note = NO_TIMES + "see cuda_gpu_mem_size_sum." if tally.moves and not times else ""
    return Table(
        "cuda_gpu_mem_time_sum",
        "CUDA GPU MemOps Summary (by Time)",
        timed("Count", "Operation"),
        list(of_times(times)),
        note,
    )


def cuda_gpu_mem_size_sum(tally: Tally) -> Table:
    """Copies and fills by their bytes."""
    totals = sorted(
        ((name, sum(moves.sizes)) for name, moves in tally.moves.items()),
        key=lambda item: (-item[1], item[0]),
    )
    rows: list[tuple[Value, ...]] = []
    for name, total in totals:
        sizes = tally.moves[name].sizes
        rows.append((total / 1e6, len(sizes), *spread(sizes, 1e6), name))
    columns = ("Total (MB)", "Count", *spread_columns("MB"), "Operation")
    return Table("cuda_gpu_mem_size_sum", "CUDA GPU MemOps Summary (by Size)", columns, rows)


def cuda_gpu_sum(tally: Tally) -> Table:
    """Kernels, copies and fills by what the device took for them."""
    works = {
        f"{category}\0{name}": work.times
        for category, of in (("CUDA_KERNEL", tally.kernels), ("MEMORY_OPER", tally.moves))
        for name, work in of.items()
    }
    rows = [(*numbers, *str(key).split("\0", 1)) for *numbers, key in of_times(works)]
    note = NO_TIMES + "see cuda_gpu_kern_sum and cuda_gpu_mem_size_sum."
    return Table(
        "cuda_gpu_sum",
        "CUDA GPU Summary (Kernels/MemOps)",
        (*timed("Instances", "Category"), "Operation"),
        rows,
        note if works and not rows else "",
    )


def waits_sum(tally: Tally) -> Table:
    """Why calls waited: what was asked for is of the program's own making."""
    by_name = {f"{because}\0{name}": values for (because, name), values in tally.waits.items()}
    rows: list[tuple[Value, ...]] = []
    for *numbers, key in of_times(by_name):
        because, _, name = str(key).partition("\0")
        asked = "asked" if because in ASKED else ""
        rows.append((*numbers, asked, tally.reason(because), name))
    columns = (*timed("Num Waits", "Asked"), "Because", "Name")
    return Table("waits_sum", "Why It Waited", columns, rows)


REPORTS: dict[str, Callable[[Tally], Table]] = {
    report.__name__: report
    for report in (
        cuda_api_sum,
        cuda_gpu_kern_sum,
        cuda_gpu_mem_time_sum,
        cuda_gpu_mem_size_sum,
        cuda_gpu_sum,
        cuda_kern_exec_sum,
        waits_sum,
    )
}


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@click.option(
    "-r",
    "--report",
    "reports",
    multiple=True,
    type=click.Choice(list(REPORTS)),
    help="This table; give it again for several.  [default: all]",
)
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
)
@click.option("-o", "--output", metavar="FILE", help="Write it into this file.")
def stats(trace: str, reports: tuple[str, ...], form: str, output: str | None) -> None:
    """Print tables of TRACE, named and shaped as those of nsys stats.

    Beside nsys' own there is waits_sum: why calls waited for the server, and how long.

    \b
    Examples:
      harp-replay stats out.htrace
      harp-replay stats out.htrace --report cuda_api_sum --report waits_sum
      harp-replay stats out.htrace --report cuda_gpu_kern_sum --format csv -o kernels.csv
    """
    tally = Tally().count(events(trace))
    tables = [REPORTS[name](tally) for name in reports or REPORTS]
    if form == "json":
        text = as_json(tables)
    else:
        text = "\n".join(map(as_csv if form == "csv" else as_text, tables))
    if output is None:
        click.echo(text, nl=False)
        return
    with written(output) as file:
        file.write(text)
