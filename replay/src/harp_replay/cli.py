"""The command `harp-replay`. Imports happen per command."""

import sys
from typing import NoReturn

import click

from harp_client import __version__
from harp_client.cli import LazyGroup, status_of

EPILOG = """\b
Examples:
  harp-run --trace out.htrace -- python train.py  record a program
  harp-replay run out.htrace                      run what it did again, on a soft GPU
  harp-replay run out.htrace --check outputs      and compare all that came back from the device
  harp-replay report out.htrace -o out.html       look at it: a page, a table, a timeline
  harp-replay stats out.htrace
  harp-replay export out.htrace -o out.pftrace
  harp-replay predict --rtt 10ms out.htrace       how long it would take farther away
  harp-replay diff monday.htrace tuesday.htrace   what has changed

Exit status: 0 ok, 1 something differs or fails a check, 2 the trace or the command line is refused,
6 nobody answers, 130 Ctrl-C.
"""

COMMANDS = {
    "convert": "harp_replay.convert:convert",
    "diff": "harp_replay.diff:diff",
    "export": "harp_replay.export:export",
    "info": "harp_replay.info:info",
    "predict": "harp_replay.predict:predict",
    "repack": "harp_replay.convert:repack",
    "report": "harp_replay.report:report",
    "run": "harp_replay.run:run",
    "stats": "harp_replay.stats:stats",
    "trim": "harp_replay.trim:trim",
    "verify": "harp_replay.convert:verify",
    "workload": "harp_replay.workload:workload",
}


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", message="harp-replay %(version)s")
def harp_replay() -> None:
    """Runs traces of CUDA programs again, without the programs, and looks into them."""


def main() -> NoReturn:
    """Entry point of `harp-replay`; the help says what its exit status means."""
    sys.exit(status_of(harp_replay, "harp-replay"))


if __name__ == "__main__":
    main()
