"""The command `harp scheduler`."""

import asyncio
import contextlib
import os
from pathlib import Path

import click

from harp_client.errors import HarpError

HELP = """Run the pool's scheduler: it decides who gets which device.

    Agents of servers and users of the pool connect to it with certificates of the pool's authority,
    over TLS 1.3. What it decides is in a database before anybody hears of it.

    \b
    Examples:
      harp scheduler --ca pool-ca
      harp scheduler --ca pool-ca --listen 0.0.0.0:7440 --database /var/lib/harp/pool.db
      harp scheduler --ca pool-ca --database postgresql://harp@db.example/harp

    Several schedulers on one PostgreSQL: one leads, and when it is gone another one does.
    SIGTERM and SIGINT stop it; sessions go on without it.
    """


@click.command(help=HELP)
@click.option(
    "--ca",
    "authority",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the pool's authority (harp ca create makes it).",
)
@click.option(
    "--listen", default="127.0.0.1:7440", show_default=True, help="HOST:PORT; port 0 picks one."
)
@click.option(
    "--database",
    default="",
    metavar="URL",
    help="A file of SQLite, or postgresql://... (default: pool.db in the authority's folder).",
)
@click.option("--name", default="", help="This scheduler's name (default: the machine's).")
@click.option(
    "--grace",
    type=click.FloatRange(1, 86_400),
    default=300.0,
    show_default=True,
    help="Seconds that sessions go on while their server and the scheduler do not hear each other.",
)
@click.option(
    "--metrics",
    default="",
    metavar="HOST:PORT",
    help="Tell Prometheus (/metrics) and who asks for its health (/healthz); open to all who can "
    "reach it, so bind it to a management network. Default: off.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    default="auto",
    show_default=True,
    help="Form of the log lines on stderr.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.option("--ready-fd", type=int, help="Also write the address to this descriptor when ready.")
def scheduler(
    authority: Path,
    listen: str,
    database: str,
    name: str,
    grace: float,
    metrics: str,
    log_format: str,
    log_level: str,
    ready_fd: int | None,
) -> None:
    # With the pool's elliptic-curve certificates, no handshake of TLS 1.2 has a cipher in common
    # with this list; gRPC cannot be told the lowest version itself. Read when gRPC is loaded.
    os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
    from harp_scheduler.service.process import Scheduler, Settings
    from harp_scheduler.store.store import Store
    from harp_server.ca import Authority
    from harp_server.commands import stop_signals
    from harp_server.logs import Log

    log = Log(log_format, log_level)
    settings = Settings(listen, Authority.load(authority), name, grace, metrics)
    if "://" not in database:
        database = f"sqlite:///{Path(database or authority / 'pool.db').absolute()}"
    store = Store.open(database)

    async def run() -> None:
        stop = stop_signals()
        process = Scheduler(settings, store, log)
        await process.start()
        log.info("scheduler ready", address=process.address, pool=settings.authority.pool)
        print(f"harp scheduler: ready on {process.address}", flush=True)
        if ready_fd is not None:
            with os.fdopen(ready_fd, "w") as ready, contextlib.suppress(BrokenPipeError):
                ready.write(f"{process.address}\n")
        running = asyncio.create_task(process.run())
        stopping = asyncio.create_task(stop.get())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done() and (error := running.exception()) is not None:
            raise HarpError(f"the scheduler failed: {error}") from error
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await process.stop()
        log.info("scheduler stopped")

    try:
        asyncio.run(run())
    finally:
        store.close()
