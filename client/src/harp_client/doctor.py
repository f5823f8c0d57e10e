"""The command `harp doctor`: checks this host end to end and says what to do about what fails."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

from harp_client import __version__, native
from harp_client.errors import HarpError, printable
from harp_client.target import Flags, choose

PROBE_SECONDS = 60


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    ok: bool
    text: str
    next_step: str = ""


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form.")
def doctor(output: str) -> int:
    """Check this host: native parts, kernel, configured pool, and a device end to end.

    \b
    Examples:
      harp doctor
      harp doctor -o json
    """
    findings: list[Finding] = []
    for check in (_versions, _native_parts, _kernel, _target, _embedded, _configured):
        for finding in check():
            findings.append(finding)
            if output == "text":
                _print(finding)
    if output == "json":
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    return 0 if all(finding.ok for finding in findings) else 1


def _print(finding: Finding) -> None:
    from rich.console import Console
    from rich.text import Text

    mark = Text("ok  ", "green") if finding.ok else Text("FAIL", "red bold")
    line = Text.assemble(mark, f"  {finding.name:<14}{printable(finding.text)}")
    if finding.next_step:
        line.append(f". Next: {finding.next_step}")
    Console(highlight=False, soft_wrap=True).print(line)


def _versions() -> Iterator[Finding]:
    yield Finding(
        "versions",
        True,
        f"harp-pool {__version__}, Python {platform.python_version()}, {platform.platform()}",
    )


def _native_parts() -> Iterator[Finding]:
    try:
        parts = native.find()
    except HarpError as error:
        yield Finding("native parts", False, error.cause, error.next_step)
        return
    missing = parts.missing()
    if missing:
        yield Finding(
            "native parts",
            False,
            f"{parts.root} lacks {', '.join(missing)}",
            "build or install again",
        )
    else:
        yield Finding("native parts", True, parts.root)


def _kernel() -> Iterator[Finding]:
    needed: dict[str, Callable[[], object]] = {
        "pidfd_open": lambda: os.close(os.pidfd_open(os.getpid())),
        "memory overcommit": _overcommit,
    }
    for name, attempt in needed.items():
        try:
            attempt()
        except OSError as error:
            yield Finding("kernel", False, f"{name}: {error.strerror}", "use Linux 5.13 or newer")
            return
    yield Finding("kernel", True, f"Linux {platform.release()}")


def _overcommit() -> None:
    """The soft GPU and the interposer reserve address space far beyond the memory they use."""
    with open("/proc/sys/vm/overcommit_memory") as file:
        if file.read().strip() == "2":
            raise OSError(0, "vm.overcommit_memory is 2: large reservations fail")


def _target() -> Iterator[Finding]:
    try:
        target = choose(Flags())
    except HarpError as error:
        yield Finding("configuration", False, error.cause, error.next_step)
        return
    yield Finding(
        "configuration",
        True,
        f"server {target.server}, credentials {target.credentials}"
        if target
        else "no pool configured: harp-run starts an embedded one",
    )


def _embedded() -> Iterator[Finding]:
    yield _probe("embedded pool", ["--embedded"])


def _configured() -> Iterator[Finding]:
    try:
        if choose(Flags()) is not None:
            yield _probe("pool", [])
    except HarpError:
        return  # told by the configuration's own line


def _probe(name: str, options: list[str]) -> Finding:
    """Lists the devices that a program sees under harp-run."""
    command = [sys.executable, "-P", "-c", "from harp_client.run import main; main()", *options]
    command += ["--", sys.executable, "-P", "-m", "harp_client.probe"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(name, False, f"no answer in {PROBE_SECONDS} s")
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return Finding(name, False, " / ".join(lines))
    answer = json.loads(done.stdout)
    shown = [
        f"{device['name']} ({device['memory'] / 2**30:.1f} GiB, "
        f"compute {device['compute_capability']})"
        for device in answer["devices"]
    ]
    return Finding(name, bool(shown), ", ".join(shown) or "no devices")
