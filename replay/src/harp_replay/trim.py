"""`harp-replay trim`: cuts a trace down to a kernel or a few calls that can still be replayed."""

import os
import sys
from typing import Any

import click

from harp_client.errors import HarpError
from harp_replay.native_trace import NativeTrace
from harp_replay.run import progress
from harp_replay.where import Where, arguments_of, where_options


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@click.option(
    "-k",
    "--kernel",
    metavar="NAME",
    help="Keep a launch of this kernel: its name in the image, or in C++.",
)
@click.option(
    "--launch",
    metavar="N",
    type=click.IntRange(0),
    help="Which of its launches, counted from 0.  [default: the last one]",
)
@click.option("--calls", metavar="A..B", help="Keep the calls from A to B.")
@click.option(
    "--timeout",
    type=click.IntRange(0),
    metavar="SECONDS",
    help="Give up when the device has said nothing for so long; 0 never.  [default: 120]",
)
@click.option("-o", "--out", required=True, type=click.Path(), help="The new trace.")
@where_options("Where the trace is replayed up to there, if need be; as in `harp-replay run`.")
def trim(
    trace: str,
    kernel: str | None,
    launch: int | None,
    calls: str | None,
    timeout: int | None,
    out: str,
    where: Where,
) -> int:
    """Make a smaller trace of TRACE: one launch of a kernel, or some calls.

    It holds all that these need, the memory that they find and what they leave, so that
    `harp-replay run` runs and checks them. Where kernels before them have made what they find, the
    trace is replayed up to there, on a soft GPU unless something else is named.

    \b
    Examples:
      harp-replay trim out.htrace --kernel saxpy -o saxpy.htrace
      harp-replay trim out.htrace --kernel saxpy --launch 0 -o first.htrace
      harp-replay trim out.htrace --calls 100..120 -o few.htrace
    """
    if (kernel is None) == (calls is None):
        raise click.UsageError("either --kernel or --calls is wanted")
    if launch is not None and kernel is None:
        raise click.UsageError("--launch is for --kernel")
    arguments = ["trim", os.path.abspath(trace), "--out", os.path.abspath(out)]
    for name, value in (
        ("--kernel", kernel),
        ("--launch", launch),
        ("--calls", calls),
        ("--timeout", timeout),
    ):
        arguments += [name, str(value)] if value is not None else []
    try:
        done = _trimmed(arguments)
        if done is None:
            with where.target() as target:
                done = _trimmed([*arguments, *arguments_of(target)])
    except KeyboardInterrupt:
        return 130
    if done is None:
        raise HarpError("harp-trace ended without a result", "report this", 6)
    share = 100 * done["bytes"] / max(1, done["bytes_before"])
    click.echo(
        f"{out}: {done['calls']} calls of {done['calls_before']}, {done['bytes']} bytes "
        f"({share:.1f} %), " + ("replayed up to there" if done["replayed"] else "without a device")
    )
    return 0


def _trimmed(arguments: list[str]) -> dict[str, Any] | None:
    """What has come of it; None where a device is needed. Raises HarpError."""
    done = None
    with NativeTrace(arguments) as native_trace, progress(sys.stderr.isatty()) as show:
        for line in native_trace.lines():
            match line["type"]:
                case "trimmed":
                    done = line
                case "progress":
                    show(line)
        native_trace.end(status_of_failure=6)
    return done
