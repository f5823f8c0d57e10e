"""`harp-replay run`: sends what a trace holds to a device again, and compares what comes back."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from harp_client.errors import HarpError, printable
from harp_client.target import Target
from harp_replay.native_trace import NativeTrace
from harp_replay.where import Where, arguments_of, where_options

SHOWN = 10
"""Differences that people are shown; `--json` has more."""


class Replay(NamedTuple):
    """What `harp-trace run` is to do."""

    trace: str
    """Its path."""
    options: list[str]
    """In `harp-trace`'s own words."""


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@where_options(
    "Where: soft, the soft GPU (default); the path of a libcuda.so.1, this machine's device; "
    "pool, the server or scheduler that harp-run would use."
)
@click.option(
    "--check",
    type=click.Choice(["off", "returns", "outputs", "final"]),
    default="outputs",
    show_default=True,
    help="What is compared: nothing; the codes of calls; also all data that came from the device, "
    "and what kernels printed; of the data only what came last from each range.",
)
@click.option(
    "--timing",
    type=click.Choice(["fast", "as-recorded"]),
    default="fast",
    show_default=True,
    help="Whether calls are sent as fast as they can be, or as far apart as they were.",
)
@click.option(
    "--repeat", type=click.IntRange(1, 1000), default=1, help="So many replays, all alike."
)
@click.option(
    "--timeout",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="Give up when the device has said nothing for so long; 0 never.  [default: 120]",
)
@click.option("--from", "first", type=click.IntRange(0), help="Compare from this call on.")
@click.option("--to", "last", type=click.IntRange(0), help="End with this call.")
@click.option(
    "--tolerance",
    metavar="ABS[,REL]",
    help="Numbers that differ by no more are equal: by ABS, or by REL times the recorded one.",
)
@click.option(
    "--element",
    type=click.Choice(["f64", "f32", "f16"]),
    help="What the data consist of, for --tolerance.  [default: f32]",
)
@click.option(
    "--synthesize",
    is_flag=True,
    help="Send zeros where the trace does not hold what was sent.",
)
@click.option(
    "--relocate-uploads",
    is_flag=True,
    help="Where memory lies elsewhere, also replace addresses in what the program sent to devices.",
)
@click.option(
    "--first-window",
    metavar="ADDRESS",
    help="Have device addresses begin there, to see what depends on them (0x280000000000).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def run(
    trace: str,
    where: Where,
    check: str,
    timing: str,
    repeat: int,
    timeout: int | None,
    first: int | None,
    last: int | None,
    tolerance: str | None,
    element: str | None,
    synthesize: bool,
    relocate_uploads: bool,
    first_window: str | None,
    as_json: bool,
) -> int:
    """Run the calls of TRACE again, without its program, and compare what comes back.

    The trace's kernels run in a jailed worker, as any program's do. Exit status: 0 nothing differs,
    1 something differs or nothing was compared, 2 the trace cannot be replayed there.

    \b
    Examples:
      harp-replay run out.htrace
      harp-replay run out.htrace --device /usr/lib/x86_64-linux-gnu/libcuda.so.1
      harp-replay run out.htrace --device pool --tolerance 1e-6,1e-5
      harp-replay run out.htrace --repeat 2 --json
    """
    if element is not None and tolerance is None:
        raise click.UsageError("--element is for --tolerance")
    options = ["--check", check, "--timing", timing, "--repeat", str(repeat)]
    for name, value in (
        ("--timeout", timeout),
        ("--from", first),
        ("--to", last),
        ("--tolerance", tolerance),
    ):
        options += [name, str(value)] if value is not None else []
    options += ["--element", element] if element is not None else []
    options += ["--synthesize"] if synthesize else []
    options += ["--relocate-uploads"] if relocate_uploads else []
    if first_window is not None:
        try:
            options += ["--first-window", str(int(first_window, 0))]
        except ValueError:
            raise click.UsageError(f"--first-window cannot be {first_window}") from None
    replay = Replay(os.path.abspath(trace), options)
    try:
        with where.target() as target, progress(sys.stderr.isatty()) as show:
            result = replayed(replay, target, show)
    except KeyboardInterrupt:
        return 130
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        tell(result)
    return 0 if result["passed"] else 1


def replayed(
    replay: Replay, target: Target, show: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Replays; the line with the result, less its type. `show` hears the lines of the progress.

    Raises HarpError where the trace is refused (2) or the session is lost (6).
    """
    arguments = ["run", replay.trace, *replay.options, *arguments_of(target)]
    result = None
    with NativeTrace(arguments) as native_trace:
        for line in native_trace.lines():
            if line.pop("type") == "replay":
                result = line
            else:
                show(line)
        native_trace.end(6, differs=result is not None and not result["passed"])
    if result is None:
        raise HarpError("harp-trace ended without a result", "report this", 6)
    return result


@contextmanager
def progress(terminal: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows how far a replay is, if on a `terminal`: yields what takes its lines of progress."""
    if not terminal:
        yield lambda line: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("calls")
        yield lambda line: bar.update(
            task,
            completed=line["calls"],
            total=line["of"],
            description=f"replay {line['replay']}" if line["replays"] > 1 else "calls",
        )


def losses(lost: dict[str, Any]) -> Iterator[str]:
    """What the recording has lost, and what that means."""
    if lost["blocks"]:
        types = ", ".join(lost["types"])
        yield f"the recording has lost {lost['blocks']} blocks ({types}), but no call"
    if lost["uploads"]:
        yield (
            f"it has lost the bytes of {lost['uploads']} uploads: zeros were sent instead, and "
            "what kernels made of them was not compared"
        )


def tell(result: dict[str, Any]) -> None:
    """Prints for people what `replayed` has returned."""
    lines = [
        f"{result['sent']} of {result['calls']} calls replayed in {result['seconds']:.3f} s "
        f"(recorded: {result['recorded_seconds']:.3f} s)",
        f"compared {result['compared']}, different {result['different']}",
    ]
    if result["skipped"]:
        why = (f"{reason} ({count})" for reason, count in result["skipped_because"].items())
        lines.append(f"not compared {result['skipped']}: " + ", ".join(why))
    lines += losses(result["lost"])
    relocated = result["relocated"]
    if relocated["addresses"]:
        lines.append(
            f"relocated {relocated['addresses']} addresses: rewrote {relocated['arguments']} "
            f"arguments, {relocated['words']} words of kernel parameters, "
            f"{relocated['in_snapshots']} of snapshots, {relocated['in_uploads']} of uploads"
        )
    if relocated["left_in_data"]:
        lines.append(
            f"{relocated['left_in_data']} words of uploads look like such an address and were left "
            "(--relocate-uploads)"
        )
    if result["repeat"] > 1:
        alike = "alike" if result["identical"] else "NOT alike"
        lines.append(f"{result['repeat']} replays, {alike}")
    lines += [f"  {difference['text']}" for difference in result["differences"][:SHOWN]]
    if result["different"] > SHOWN:
        lines.append(f"  … and {result['different'] - SHOWN} more (--json)")
    if not result["passed"] and result["verdict"]:
        lines.append(result["verdict"])
    for line in lines:
        click.echo(printable(line))
