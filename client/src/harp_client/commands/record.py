"""`harp record`: a trace of a program that runs already, made on its server."""

from __future__ import annotations

import click

from harp_api.control.v1 import pool_pb2 as api
from harp_client.commands.options import connect, pool_options
from harp_client.errors import printable
from harp_client.recorder import policies
from harp_client.scheduler import request_id


@click.command()
@click.argument("session")
@click.option(
    "--payload",
    default="",
    metavar="POLICY",
    help="How much of the payloads is kept: shape, hash or full, for all or by class "
    "(images=full,uploads=hash). Default: the hashes of images and the shapes of all else. full "
    "keeps the program's data.",
)
@pool_options
def record(session: str, payload: str, **pool: str | None) -> None:
    """Record a running program's SESSION (harp get sessions) on its server, from now to its end.

    The trace lies in the server's folder for traces, under the tenant's name. What the program had
    made before is not in it: it can be looked at (harp-replay info, stats, report), but not run
    again. `harp server --record` records sessions from their first call.

    \b
    Examples:
      harp record 5d41402abc4b2a76
      harp record 5d41 --payload images=full,downloads=hash
    """
    policies(payload)
    asked = api.RecordRequest(request_id=request_id(), session=session, payload=payload)
    found = connect(**pool).call("Record", asked)
    trace = f"traces/{found.tenant}/{found.name}.htrace"
    click.echo(printable(f"{found.name}: recorded on {found.server} ({trace})"))
    if "full" in payload:
        click.echo("The trace holds the program's data: mind whom you give it.", err=True)
