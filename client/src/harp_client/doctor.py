"""The command `harp doctor`: checks this host end to end and says what to do about what fails."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from harp_client import __version__, native
from harp_client.commands.finite import FiniteRange
from harp_client.errors import HarpError, printable
from harp_client.finding import Finding
from harp_client.target import Flags, choose, schedulers

PROBE_SECONDS = 60


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form.")
@click.option(
    "--server",
    type=click.Path(path_type=Path),
    metavar="CREDENTIALS",
    help="Check this machine as a server with this folder of credentials.",
)
@click.option(
    "--device",
    default="soft",
    show_default=True,
    help="With --server: soft, or the path of a libcuda.so.1.",
)
@click.option(
    "--scheduler",
    "named",
    multiple=True,
    metavar="HOST:PORT",
    help="With --server: the pool's scheduler; once for each, if there are several.",
)
@click.option(
    "--events",
    "seconds",
    type=FiniteRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    help="With --server and a real device: also tell what the driver reports of it (Xids) so long.",
)
@click.option(
    "--scheduler-state",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Check the folder that a scheduler keeps its authority and its database in.",
)
@click.option(
    "--database", default="", metavar="URL", help="With --scheduler-state: as for harp scheduler."
)
def doctor(
    output: str,
    server: Path | None,
    device: str,
    named: tuple[str, ...],
    seconds: float,
    scheduler_state: Path | None,
    database: str,
) -> int:
    """Check this host: native parts, kernel, configured pool, and a device end to end.

    With a scheduler configured: whether it leads, certificate and clock, what is attached here.

    \b
    Examples:
      harp doctor
      harp doctor -o json
      harp doctor --server /etc/harp --device /usr/lib/x86_64-linux-gnu/libcuda.so.1
      harp doctor --scheduler-state /var/lib/harp
    """
    checks: list[Callable[[], Iterable[Finding]]] = [_versions]
    if server is not None:
        from harp_server.checks import server as check_server

        checks += [_native_parts, _kernel, lambda: check_server(server, device, named, seconds)]
    if scheduler_state is not None:
        from harp_scheduler.checks import scheduler as check_state

        checks += [lambda: check_state(scheduler_state, database)]
    if server is None and scheduler_state is None:
        checks += [_native_parts, _kernel, _target, _embedded, _configured, _pool]
    findings: list[Finding] = []
    for check in checks:
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
        target, pool = choose(Flags()), schedulers(Flags())
    except HarpError as error:
        yield Finding("configuration", False, error.cause, error.next_step)
        return
    text = "no pool configured: harp-run starts an embedded one"
    if target:
        text = f"server {target.server}, credentials {target.credentials}"
    elif pool:
        text = f"schedulers {', '.join(pool.addresses)}, credentials {pool.credentials}"
    yield Finding("configuration", True, text)


def _embedded() -> Iterator[Finding]:
    yield _probe("embedded pool", ["--embedded"])


def _configured() -> Iterator[Finding]:
    try:
        if choose(Flags()) is not None:
            yield _probe("pool", [])
    except HarpError:
        return  # told by the configuration's own line


def _pool() -> Iterator[Finding]:
    """A pool with a scheduler; a program on what is attached to this host."""
    from harp_client import pool_checks

    try:
        pool = schedulers(Flags())
    except HarpError:
        return  # told by the configuration's own line
    if pool is None:
        return
    found = list(pool_checks.host(pool))
    yield from found
    if any(f.name == "attachment" and f.ok and not f.next_step for f in found):
        yield _probe("pool", [])


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
