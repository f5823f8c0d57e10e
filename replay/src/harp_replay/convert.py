"""`harp-replay convert`, `verify` and `repack`: what `harp-trace` does with files, for people."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click

from harp_client.errors import HarpError, printable
from harp_client.quantities import readable
from harp_replay.events import SUFFIXES
from harp_replay.files import written
from harp_replay.native_trace import NativeTrace


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Shows on a terminal that something goes on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, markup=False).status(printable(what)):
        yield


def answer(arguments: list[str], what: str) -> dict[str, Any] | None:
    """Runs `harp-trace`; the last line that it printed, if it printed any. Raises HarpError (2)."""
    found = None
    with working(what), NativeTrace(arguments) as native_trace:
        for line in native_trace.lines():
            found = line
        if found is None or found["type"] != "verified":
            native_trace.end(status_of_failure=2)
    return found


@click.command()
@click.argument("source", metavar="TRACE|LINES", type=click.Path(exists=True))
@click.option("-o", "--output", metavar="FILE", required=True, help="- for standard output.")
@click.option("--short", is_flag=True, help="Leave long data out; no trace can be made of that.")
def convert(source: str, output: str, short: bool) -> None:
    """Write the events of a trace as lines of JSON, or make a trace of such lines again.

    A source that is called .jsonl is lines; anything else is a trace. docs/trace-format.md lists
    the fields.

    \b
    Examples:
      harp-replay convert out.htrace -o out.jsonl
      harp-replay convert out.htrace --short -o - | jq 'select(.type == "wait")'
      harp-replay convert out.jsonl -o again.htrace
    """
    path = os.path.abspath(source)
    if source.endswith(SUFFIXES) and not os.path.isdir(source):
        if output == "-" or short:
            raise HarpError("a trace is made in full, at a path", "name it with -o TRACE", 2)
        answer(["assemble", path, "--out", os.path.abspath(output)], f"assembling {output}")
        return
    with NativeTrace(["events", path, *([] if short else ["--full"])]) as native_trace:
        lines = native_trace.process.stdout
        assert lines is not None
        if output == "-":
            shutil.copyfileobj(lines, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            native_trace.end(status_of_failure=2)
        else:
            with working(f"writing {output}"), written(output, "wb") as file:
                shutil.copyfileobj(lines, file)
                native_trace.end(status_of_failure=2)  # before the file has its name


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(trace: str, as_json: bool) -> int:
    """Look at everything in TRACE: each block, each content and its hash.

    Exit status: 0 all of it is good, also of a trace that was cut off; 1 something is not; 2 it is
    no trace.

    \b
    Examples:
      harp-replay verify out.htrace
      harp-replay verify out.htrace --json
    """
    found = answer(["verify", os.path.abspath(trace)], f"verifying {trace}")
    if found is None:
        raise HarpError("harp-trace ended without a result", "report this", 2)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return 1 if found["found"] else 0
    for problem in found["problems"]:
        click.echo(printable(problem))
    if found["found"] > len(found["problems"]):
        click.echo(f"… and {found['found'] - len(found['problems']):,} more")
    state = "cut off there" if found["cut"] else "whole" if found["complete"] else "without an end"
    click.echo(
        f"{found['blocks']:,} blocks, {found['calls']:,} calls, {found['blobs']:,} contents: "
        f"{state}, {found['found'] or 'no'} problem{'s' * (found['found'] != 1)}"
    )
    lost = found["lost"]
    if lost["blocks"]:
        click.echo(f"while it was recorded, {lost['blocks']:,} blocks were lost")
    return 1 if found["found"] else 0


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@click.option("-o", "--output", metavar="OUT", required=True, help="The new trace.")
@click.option("--tar", "form", flag_value="--tar", help="As one file.")
@click.option("--folder", "form", flag_value="--folder", help="As a folder.")
@click.option("--level", type=click.IntRange(1, 19), help="zstd's level.  [default: 9]")
def repack(trace: str, output: str, form: str | None, level: int | None) -> None:
    """Write TRACE once more, compressed better, as one file or as a folder.

    \b
    Examples:
      harp-replay repack out.htrace --tar -o small.htrace
      harp-replay repack small.htrace --folder -o out.htrace
    """
    arguments = ["repack", os.path.abspath(trace), "--out", os.path.abspath(output)]
    arguments += [form] if form is not None else []
    arguments += ["--level", str(level)] if level is not None else []
    found = answer(arguments, f"repacking {trace}")
    if found is not None:
        before, after = readable(found["bytes_before"]), readable(found["bytes"])
        click.echo(f"{output}: {found['calls']:,} calls, {before} before, {after} now")
