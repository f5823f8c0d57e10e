"""The commands of the scheduler's own machine: `harp scheduler`, `harp backup`, `harp restore`."""

import asyncio
import contextlib
import datetime
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harp_client.commands.finite import FiniteRange
from harp_client.commands.serving import serving_options, tell_ready
from harp_client.errors import HarpError

if TYPE_CHECKING:
    from harp_scheduler.workload_trace import WorkloadFile

FILES = 1 << 16
"""That may be open, where the system lets them: each server and each watch has a connection."""

FEW_FILES = 1 << 12
"""With fewer there is a warning: a large pool needs more."""

HELP = """Run the pool's scheduler: it decides who gets which device.

    Agents of servers and users of the pool connect to it with certificates of the pool's authority,
    over TLS 1.3. What it decides is in a database before anybody hears of it. Its first start makes
    the authority, and credentials for an admin; others join with tokens (harp token, harp join).

    \b
    Examples:
      harp scheduler --pool lab --listen 0.0.0.0:7440
      harp scheduler --state /srv/pool --listen 0.0.0.0:7440
      harp scheduler --ca pool-ca --database postgresql://harp@db.example/harp
      harp scheduler --workload monday.jsonl          record what arrives

    Several schedulers on one PostgreSQL: one leads, and when it is gone another one does.
    SIGTERM and SIGINT stop it; sessions go on without it.
    """


@click.command(help=HELP)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Folder for the authority, the admin's credentials and the database (default: "
    "HARP_STATE_DIR, /var/lib/harp for root, $XDG_STATE_HOME/harp).",
)
@click.option("--pool", metavar="NAME", help="Name of a new pool.  [default: harp]")
@click.option(
    "--ca",
    "authority",
    type=click.Path(path_type=Path),
    help="Folder of an authority that there is (harp ca create) in place of the one in --state.",
)
@click.option(
    "--listen", default="127.0.0.1:7440", show_default=True, help="HOST:PORT; port 0 picks one."
)
@click.option(
    "--join-listen",
    default="",
    metavar="HOST:PORT",
    help="Where new members join (default: the port after --listen's).",
)
@click.option(
    "--database",
    default="",
    metavar="URL",
    help="A file of SQLite, or postgresql://... (default: pool.db in --state, or in --ca).",
)
@click.option("--name", default="", help="This scheduler's name (default: the machine's).")
@click.option(
    "--grace",
    type=FiniteRange(1, 86_400),
    default=300.0,
    show_default=True,
    help="Seconds that sessions go on while their server and the scheduler do not hear each other.",
)
@click.option(
    "--member-life",
    default="24h",
    show_default=True,
    help="How long a certificate of a server or a host is valid; it is renewed at half of that.",
)
@click.option("--user-life", default="7d", show_default=True, help="The same of a user's.")
@click.option(
    "--workload",
    metavar="FILE",
    help="Record what arrives, is granted and ends, for `harp-replay workload` (out.jsonl).",
)
@serving_options("address")
def scheduler(
    state: Path | None,
    pool: str | None,
    authority: Path | None,
    listen: str,
    join_listen: str,
    database: str,
    name: str,
    grace: float,
    metrics: str,
    member_life: str,
    user_life: str,
    workload: str | None,
    log_format: str,
    log_level: str,
    ready_fd: int | None,
) -> None:
    # With the pool's elliptic-curve certificates, no handshake of TLS 1.2 has a cipher in common
    # with this list; gRPC cannot be told the lowest version itself. Read when gRPC is loaded.
    os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
    from harp_client.state import kept
    from harp_scheduler.first_start import open_authority
    from harp_scheduler.service.members import Lives
    from harp_scheduler.service.process import Scheduler, Settings
    from harp_scheduler.store.store import Store
    from harp_server.commands import stop_signals
    from harp_server.logs import Log
    from harp_server.process import allow_files

    log = Log(log_format, log_level)
    if (allowed := allow_files(FILES)) < FEW_FILES:
        cause = f"{allowed} files may be open, and each server of the pool has a connection"
        log.warning("few files", cause=cause, next="raise the limit (ulimit -Hn, LimitNOFILE=)")
    place = state or Path(kept())
    lives = Lives(life(member_life), life(member_life), life(user_life))
    opened = open_authority(authority or place / "ca", place / "admin", pool, make=not authority)
    ca = authority or place / "ca"
    settings = Settings(listen, opened.authority, name, grace, metrics, join_listen, ca, lives)
    store = Store.open(url_of(database, authority if authority and not state else place))

    async def run(is_new: bool) -> None:
        stop = stop_signals()
        process = Scheduler(settings, store, log)
        await process.start()
        async with contextlib.AsyncExitStack() as ending:
            ending.push_async_callback(process.stop)
            # Only now: where it cannot start, it can be started again with the same file.
            recording = recording_to(workload) if workload else None
            if recording is not None:
                ending.callback(recording.close)
            log.info(
                "scheduler ready",
                address=process.address,
                joining=process.join_address,
                pool=settings.authority.pool,
            )
            print(f"harp scheduler: ready on {process.address}", flush=True)
            if is_new:
                print(opened.welcome(process.address), flush=True)
            tell_ready(ready_fd, process.address)
            running = asyncio.create_task(process.run(recording))
            stopping = asyncio.create_task(stop.get())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if running.done() and (error := running.exception()) is not None:
                raise HarpError(f"the scheduler failed: {error}") from error
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        log.info("scheduler stopped")

    try:
        asyncio.run(run(opened.is_new(store)))
    finally:
        store.close()


def recording_to(path: str) -> "WorkloadFile":
    """A new file for the workload. Raises HarpError."""
    from harp_scheduler.workload_trace import WorkloadFile

    try:
        return WorkloadFile(path)
    except OSError as error:
        raise HarpError(f"cannot write {path}: {error.strerror}", "name a new file") from error


def life(text: str) -> datetime.timedelta:
    """How long a certificate is valid. Raises HarpError."""
    from harp_client.quantities import seconds

    found = seconds(text)
    if found < 1:
        raise HarpError("a certificate has to be valid for a second", "write it like 24h", 2)
    return datetime.timedelta(seconds=found)


def url_of(database: str, folder: Path) -> str:
    """The URL of a database that --database names, or of the one in a folder."""
    if "://" in database:
        return database
    return f"sqlite:///{Path(database or folder / 'pool.db').absolute()}"


def database_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --state and --database: what they say of `harp scheduler` they say here."""
    for option in (
        click.option(
            "--database",
            default="",
            metavar="URL",
            help="A file of SQLite, or postgresql://... (default: pool.db in --state).",
        ),
        click.option(
            "--state",
            type=click.Path(path_type=Path),
            help="The scheduler's folder (default: HARP_STATE_DIR, /var/lib/harp for root, "
            "$XDG_STATE_HOME/harp).",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@database_options
def backup(file: Path, database: str, state: Path | None) -> None:
    """Write the pool's state to FILE, in place of one that is there; the scheduler may be running.

    That is everything in its database: leases, tenants, roles, tokens, audit. The authority is not
    in it: keep a copy of its folder in a safer place.

    \b
    Examples:
      harp backup /backups/pool.backup
      harp backup pool.backup --database postgresql://harp@db.example/harp
    """
    from harp_client.state import kept
    from harp_scheduler.store.store import Store

    store = Store.open(url_of(database, state or Path(kept())), is_new=False)
    try:
        store.backup(file.absolute())
    finally:
        store.close()
    click.echo(f"{file}: the pool's state, as of now")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@database_options
def restore(file: Path, database: str, state: Path | None) -> None:
    """Fill a new database from FILE, which `harp backup` wrote; no scheduler may lead on it.

    Agents keep what they hold: a grant that the backup does not know is taken back, and numbers of
    grants go on far above all that were ever given.

    \b
    Examples:
      harp restore /backups/pool.backup
      harp restore pool.backup --database postgresql://harp@db.example/harp
    """
    from harp_client.state import kept
    from harp_scheduler.store import archive
    from harp_scheduler.store.audit import AuditEntry
    from harp_scheduler.store.store import Store

    folder = state or Path(kept())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    entry = AuditEntry(
        caller=f"uid {os.getuid()} of {socket.gethostname()}",
        verb="restore",
        subject=str(file.absolute()),
    )
    # The backup first: a scheduler would start on an empty database that was made for none.
    with archive.opened(file.absolute()) as source:
        store = Store.open(url_of(database, folder))
        try:
            store.restore(source, [entry])
        finally:
            store.close()
    click.echo(f"restored from {file}; start the scheduler: harp scheduler")
