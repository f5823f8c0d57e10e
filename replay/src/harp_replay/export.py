"""`harp-replay export`: a trace for the timeline viewers that there are."""

from __future__ import annotations

import click

from harp_replay.files import written
from harp_replay.timeline import marks


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@click.option(
    "--perfetto", "form", flag_value="perfetto", default=True, help="For ui.perfetto.dev (default)."
)
@click.option("--chrome", "form", flag_value="chrome", help="Chrome's JSON, which many tools read.")
@click.option("-o", "--output", metavar="FILE", required=True)
def export(trace: str, form: str, output: str) -> None:
    """Write TRACE as a timeline: a track for each thread and stream.

    Arrows lead from launches to kernels, if the trace has the device's times; waits carry their
    reasons; counters show bytes sent, received and allocated.

    \b
    Examples:
      harp-replay export --perfetto out.htrace -o out.pftrace
      harp-replay export --chrome out.htrace -o out.json
    """
    if form == "chrome":
        from harp_replay import chrome

        with written(output) as file:
            count = chrome.Writer(file).write(marks(trace))
    else:
        from harp_replay import perfetto

        with written(output, "wb") as file:
            count = perfetto.Writer(file).write(marks(trace))
    click.echo(f"{output}: {count:,} marks; open it in ui.perfetto.dev")
