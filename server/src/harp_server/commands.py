"""The commands of the device side: `harp server` and `harp ca`."""

import asyncio
import datetime
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harp_client import native
from harp_client.commands.finite import FiniteRange
from harp_client.commands.serving import serving_options, tell_ready
from harp_client.errors import HarpError
from harp_client.quantities import size

if TYPE_CHECKING:
    from harp_server.agent import Agent
    from harp_server.channel import Message
    from harp_server.exposition import Exposition
    from harp_server.health import DeviceWatch

SERVER_HELP = """Offer this machine's devices to a pool.

    One port, mutual TLS 1.3. Every session is served by a worker process of its own.

    \b
    Examples:
      harp server --credentials pool-ca/servers/gpu1
      harp server --listen 0.0.0.0:7443 --device soft --credentials pool-ca/servers/gpu1
      harp server --device /usr/lib/x86_64-linux-gnu/libcuda.so.1 --credentials /etc/harp
      harp server --devices 0,2 --credentials /etc/harp
      harp server --scheduler pool.example:7440 --listen 0.0.0.0:7443 --credentials /etc/harp

    With a scheduler, sessions begin only under its leases; without one, for every user of the pool.

    SIGTERM and SIGINT stop it: it accepts nothing more and waits up to --drain seconds for the
    sessions to end. A second signal ends them at once.
    """


def device_numbers(text: str | None) -> tuple[int, ...] | None:
    """The numbers of `--devices`. Raises HarpError where they are none, or one comes twice."""
    if text is None:
        return None
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise HarpError(f"--devices {text}: not a list of devices", "write it like 0,2", 2)
    return numbers


@click.command(help=SERVER_HELP)
@click.option(
    "--listen", default="127.0.0.1:7443", show_default=True, help="HOST:PORT; port 0 picks one."
)
@click.option(
    "--device", default="soft", show_default=True, help="soft, or the path of a libcuda.so.1."
)
@click.option(
    "--devices",
    callback=lambda _context, _option, value: device_numbers(value),
    metavar="N,N",
    help="Offer only these of the driver's devices, in this order (default: all).",
)
@click.option(
    "--credentials",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with ca.pem, server.pem and server.key (harp ca server makes it).",
)
@click.option(
    "--idle-workers",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    help="Workers started ahead of need.",
)
@click.option(
    "--max-sessions",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    help="Sessions at one time; who finds no room within 2 s is refused.",
)
@click.option(
    "--drain",
    type=FiniteRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds that sessions get to end when the server is stopped.",
)
@click.option(
    "--grace",
    type=FiniteRange(0, 86_400),
    default=30.0,
    show_default=True,
    help="Seconds that a session waits for its client when the connection breaks.",
)
@click.option(
    "--scheduler",
    "schedulers",
    multiple=True,
    metavar="HOST:PORT",
    help="The pool's scheduler; once for each, if there are several.",
)
@click.option(
    "--advertise", metavar="HOST:PORT", help="Where programs reach this server (default: --listen)."
)
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", help="rack=r1, switch=s3, and so on."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Folder for what must outlive a restart (default: state in --credentials).",
)
@click.option(
    "--blob-cache",
    type=click.Path(path_type=Path),
    help="Folder for what programs upload, for the next ones of their tenant (default: cache in "
    "--state).",
)
@click.option(
    "--blob-cache-size",
    default="20GiB",
    show_default=True,
    callback=lambda _context, _option, value: size(value),
    help="Bytes kept of all tenants together; 0 keeps nothing.",
)
@click.option(
    "--blob-cache-tenant-size",
    callback=lambda _context, _option, value: None if value is None else size(value),
    help="Bytes kept of one tenant (default: half of --blob-cache-size).",
)
@click.option(
    "--record",
    "recorded",
    multiple=True,
    metavar="TENANT=POLICY",
    help="Record the sessions of a tenant, or of all with *: shape, hash, full, or by class "
    "(images=full,uploads=shape,downloads=hash). full keeps the programs' data.",
)
@click.option(
    "--record-folder",
    type=click.Path(path_type=Path),
    help="Folder for the traces of this server alone, by tenant (default: traces in --state).",
)
@click.option(
    "--record-size",
    default="10GiB",
    show_default=True,
    callback=lambda _context, _option, value: size(value),
    help="Bytes of traces that are kept: the oldest go first, and of a longer one the end is lost.",
)
@serving_options("address")
def server(
    listen: str,
    device: str,
    devices: tuple[int, ...] | None,
    credentials: Path,
    idle_workers: int,
    max_sessions: int,
    drain: float,
    grace: float,
    schedulers: tuple[str, ...],
    advertise: str | None,
    labels: tuple[str, ...],
    state: Path | None,
    blob_cache: Path | None,
    blob_cache_size: int,
    blob_cache_tenant_size: int | None,
    recorded: tuple[str, ...],
    record_folder: Path | None,
    record_size: int,
    metrics: str,
    log_format: str,
    log_level: str,
    ready_fd: int | None,
) -> None:
    from harp_client.target import open_key
    from harp_server.agent import (
        FILES,
        SESSION_FILES,
        Agent,
        Device,
        Offer,
        worker_environ,
    )
    from harp_server.agent import listen as open_port
    from harp_server.ca import SessionIssuer
    from harp_server.content_cache import Place
    from harp_server.logs import Log
    from harp_server.process import allow_files
    from harp_server.recordings import Recording
    from harp_server.recordings import rules as recording_rules

    environ = native.without_preload(os.environ)
    parts = native.find(environ)
    log = Log(log_format, log_level)
    issuer = SessionIssuer.load(credentials)
    agents: list[Agent] = []
    link = None
    folder = state or credentials / "state"
    if schedulers:
        from harp_server.scheduler_link import SchedulerLink

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

        async def end_session(session: str, reason: str) -> None:
            await agents[0].end_session(session, reason)

        def revoke(serials: frozenset[str]) -> None:
            agents[0].revoke(serials)

        def record(session: str, payload: str) -> None:
            agents[0].record(session, payload)

        link = SchedulerLink(
            schedulers, issuer, folder / "leases.json", end_session, revoke, record, log
        )
    cache = None
    if blob_cache_size > 0:
        half = blob_cache_size // 2
        place = str((blob_cache or folder / "cache").absolute())
        cache = Place(place, blob_cache_size, blob_cache_tenant_size or half)
    traces = (record_folder or folder / "traces").absolute()
    recording = Recording(traces, recording_rules(recorded), record_size)
    offer = Offer(
        parts=parts,
        device=Device.resolve(device, parts),
        issuer=issuer,
        root_certificate=str((credentials / "ca.pem").absolute()),
        environ=worker_environ(environ),
        idle_workers=idle_workers,
        max_sessions=max_sessions,
        grace=grace,
        leases=link,
        devices=devices,
        cache=cache,
        recording=recording,
    )
    if warning := open_key(str(credentials), "server.key"):
        log.warning("open key", cause=warning.cause, next=warning.next_step)
    files = FILES + SESSION_FILES * max_sessions
    if (allowed := allow_files(files)) < files:
        cause = f"{allowed} files may be open, {max_sessions} sessions may need {files}"
        log.warning("few files", cause=cause, next="raise the limit (ulimit -Hn, LimitNOFILE=)")
    port = open_port(listen)

    exposition: Exposition | None = None
    watch: DeviceWatch | None = None
    linked: list[asyncio.Task[None]] = []

    async def begin(agent: "Agent") -> "Message":
        """Starts all parts; returns what a worker says of the devices. Raises HarpError."""
        nonlocal exposition, watch
        offered = await agent.start()
        nvml = None
        if link is None and not metrics:
            return offered
        from harp_server.inventory import named, take
        from harp_server.nvml import Nvml, answered

        if device != "soft":
            try:
                nvml = await answered(Nvml.open)
            except HarpError as error:
                cause, following = error.cause, error.next_step
                log.warning("devices are not watched", cause=cause, next=following)
        inventory = await take(offer, advertise or agent.address, labels, nvml)
        if link is not None:
            from harp_server.renewal import Renewal

            link.offer(inventory)
            if nvml is not None:
                from harp_server.health import DeviceWatch

                watch = DeviceWatch(nvml, named(inventory.devices), link.health, log)

            def use(issuer: SessionIssuer) -> None:
                agent.use(issuer)
                link.use(issuer)

            renewal = Renewal(credentials, issuer, link.renew, use, log)
            linked.extend((asyncio.create_task(link.run()), asyncio.create_task(renewal.run())))
        if metrics:
            from harp_server.watching import expose

            xids = watch.xids if watch is not None else None
            exposition = expose(metrics, agent, link, inventory.devices, nvml, xids)
            log.info("metrics", address=exposition.address)
        return offered

    async def run() -> None:
        stop = stop_signals()
        asked = asyncio.create_task(stop.get())
        agent = Agent(offer, port, log)
        agents.append(agent)
        beginning = asyncio.create_task(begin(agent))
        # A driver may keep it waiting for long.
        await asyncio.wait({asked, beginning}, return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            beginning.cancel()
            await asyncio.wait({beginning})
            await agent.stop(0)
            log.info("server stopped")
            return
        try:
            offered = beginning.result()
        except HarpError:
            await agent.stop(0)
            raise
        log.info(
            "server ready",
            address=agent.address,
            pool=offer.issuer.pool,
            device=device,
            devices=offered.get("devices") if devices is None else list(devices),
            driver_version=offered.get("driver_version"),
            jail=offered.get("landlock"),
        )
        print(f"harp server: ready on {agent.address}", flush=True)
        tell_ready(ready_fd, agent.address)
        patience = drain
        if (failed := await first_failure(asked, linked)) is not None:
            log.error("server failed", cause=failed)
            patience = 0.0  # nobody fences the sessions any more
        stopping = asyncio.create_task(agent.stop(patience))
        again = asyncio.create_task(stop.get())
        await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await agent.stop(0)
        again.cancel()
        await stopping
        if exposition is not None:
            await exposition.close()
        if watch is not None:
            await watch.close()
        for task in linked:
            task.cancel()
        ended = await asyncio.gather(*linked, return_exceptions=True)
        failed = failed or next((repr(one) for one in ended if isinstance(one, Exception)), None)
        log.info("server stopped")
        if failed is not None:
            raise HarpError(f"the server failed: {failed}", "start it again, and report this")

    asyncio.run(run())


def stop_signals() -> "asyncio.Queue[int]":
    """A queue that gets every SIGTERM and SIGINT from now on."""
    asked: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.put_nowait, number)
    return asked


async def first_failure(
    asked: asyncio.Task[int], tasks: Sequence[asyncio.Task[None]]
) -> str | None:
    """Waits until somebody asks to stop (None) or one of the tasks, which go on for ever, has not
    (why)."""
    await asyncio.wait({asked, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        return None
    asked.cancel()
    return next(repr(task.exception()) for task in tasks if task.done())


@click.group()
def ca() -> None:
    """The pool's certificate authority: who may serve and who may use.

    \b
    Examples:
      harp ca create pool-ca --pool lab
      harp ca server pool-ca gpu1
      harp ca user pool-ca alice --tenant research
    """


@ca.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--pool", default="harp", show_default=True, help="Name of the pool.")
def create(folder: Path, pool: str) -> None:
    """Make a new authority in FOLDER.

    Its key (FOLDER/ca.key) makes servers and users: keep it away from both.

    \b
    Examples:
      harp ca create pool-ca --pool lab
    """
    from harp_server.ca import Authority

    Authority.create(pool).save(folder)
    click.echo(f"pool {pool}: authority in {folder}")


@ca.command("server")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name", default=lambda: socket.gethostname().lower())
def issue_server(folder: Path, name: str) -> None:
    """Make the credentials of server NAME (default: this machine's name).

    They lie in FOLDER/servers/NAME: copy that folder to the server and give it to
    `harp server --credentials`.

    \b
    Examples:
      harp ca server pool-ca gpu1
    """
    from harp_server.ca import Authority

    into = folder / "servers" / name
    _refuse_to_replace(into / "server.key")
    Authority.load(folder).issue_server(name).save(into)
    click.echo(f"server {name}: credentials in {into}")


@ca.command("user")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--tenant", default="default", show_default=True, help="Who is accountable.")
@click.option(
    "--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Validity."
)
def issue_user(folder: Path, name: str, tenant: str, days: int) -> None:
    """Make the credentials of user NAME.

    They lie in FOLDER/users/NAME: copy that folder to the user, who gives it to
    `harp-run --credentials` or puts it at ~/.config/harp/credentials.

    \b
    Examples:
      harp ca user pool-ca alice --tenant research
    """
    from harp_server.ca import Authority, save_user

    into = folder / "users" / name
    _refuse_to_replace(into / "client.key")
    authority = Authority.load(folder)
    save_user(into, authority.trusted_pem(), authority.issue_user(tenant, name, days))
    click.echo(f"user {name} of {tenant}: credentials in {into}")


@ca.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--switch", "step", flag_value="switch", help="Second step: the new root signs.")
@click.option("--finish", "step", flag_value="finish", help="Third: the old one counts no more.")
@click.option(
    "--after",
    default="7d",
    show_default=True,
    help="How long certificates live: what has to pass between two steps.",
)
def rotate(folder: Path, step: str | None, after: str) -> None:
    """Give the pool another root, in three steps, while its schedulers, sessions and members go on.

    A scheduler takes each step within seconds, everybody else with the next renewal. Certificates
    that were made by hand (harp ca server, harp ca user) have to be made anew after --switch, and
    tokens too.

    \b
    Examples:
      harp ca rotate /var/lib/harp/ca
      harp ca rotate /var/lib/harp/ca --switch
      harp ca rotate /var/lib/harp/ca --finish
    """
    from harp_client.quantities import seconds
    from harp_server import rotation

    wait = datetime.timedelta(seconds=seconds(after))
    now = datetime.datetime.now(datetime.UTC)
    match step:
        case None:
            rotation.begin(folder)
            click.echo("a new root is trusted beside the one that signs")
            click.echo(f"  after {now + wait:%F %T} UTC: harp ca rotate {folder} --switch")
        case "switch":
            rotation.switch(folder, wait)
            click.echo("the new root signs")
            click.echo(f"  after {now + wait:%F %T} UTC: harp ca rotate {folder} --finish")
        case _:
            rotation.finish(folder, wait)
            click.echo("the old root is trusted no more")


@ca.command()
@click.argument("certificate", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def show(certificate: Path) -> None:
    """Say whose a CERTIFICATE is, who issued it and until when it is valid.

    \b
    Examples:
      harp ca show pool-ca/users/alice/client.pem
    """
    from cryptography import x509

    from harp_server.ca import identity

    try:
        found = x509.load_pem_x509_certificates(certificate.read_bytes())
    except ValueError as error:
        raise HarpError(f"{certificate} is not a PEM certificate") from error
    for one in found:
        click.echo(f"identity  {identity(one) or '(none)'}")
        click.echo(f"subject   {one.subject.rfc4514_string()}")
        click.echo(f"issuer    {one.issuer.rfc4514_string()}")
        click.echo(
            f"valid     {one.not_valid_before_utc:%Y-%m-%d} to {one.not_valid_after_utc:%Y-%m-%d}"
        )


def _refuse_to_replace(path: Path) -> None:
    if path.exists():
        raise HarpError(f"{path} exists already", f"remove {path.parent} to issue it anew")
