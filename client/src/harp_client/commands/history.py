"""`harp events`, `harp audit`, `harp usage`: what happened, who asked for it, and what was used."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import click

from harp_api.control.v1 import history_pb2 as api
from harp_client.commands.forms import Column, Kind, as_data, output_option, show, when
from harp_client.commands.options import connect, pool_options
from harp_client.errors import HarpError, printable
from harp_client.quantities import GIB, seconds
from harp_client.scheduler import Scheduler

HOUR = 3600.0

EVENTS = Kind(
    "Event",
    "events",
    (
        Column("TIME", lambda event: when(event.time)),
        Column("ABOUT", lambda event: f"{event.about}/{event.name}"),
        Column("WHAT", lambda event: event.what),
        Column("REASON", lambda event: event.reason),
        Column("TENANT", lambda event: event.tenant, is_wide=True),
        Column("ID", lambda event: event.subject, is_wide=True),
    ),
    key=lambda event: str(event.number),
)
AUDIT = Kind(
    "AuditRow",
    "rows",
    (
        Column("NUMBER", lambda row: row.sequence),
        Column("TIME", lambda row: when(row.time)),
        Column("CALLER", lambda row: row.caller.partition("://")[2].partition("/")[2]),
        Column("VERB", lambda row: row.verb),
        Column("SUBJECT", lambda row: row.subject),
        Column("TENANT", lambda row: row.tenant),
        Column("OUTCOME", lambda row: row.outcome),
        Column("REQUEST", lambda row: row.request, is_wide=True),
        Column("BEFORE", lambda row: row.before, is_wide=True),
        Column("AFTER", lambda row: row.after, is_wide=True),
    ),
    key=lambda row: str(row.sequence),
    message=api.AuditRow,
)
USAGE = Kind(
    "Usage",
    "usage",
    (
        Column("TENANT", lambda usage: usage.tenant),
        Column("DEVICE HOURS", lambda usage: f"{usage.device_seconds / HOUR:.3f}"),
        Column("COMPUTE HOURS", lambda usage: f"{usage.compute_seconds / HOUR:.3f}"),
        Column("GIB HOURS", lambda usage: f"{usage.byte_seconds / GIB / HOUR:.3f}"),
    ),
    key=lambda usage: str(usage.tenant),
    message=api.Usage,
)


@click.command()
@click.argument("subject", default="")
@click.option("-w", "--watch", is_flag=True, help="Go on with what happens.")
@click.option("--tenant", default="", help="Only of leases of this tenant.")
@click.option("--no-headers", is_flag=True, help="A table without its first line.")
@output_option("table", "wide", "json", "yaml")
@pool_options
def events(
    subject: str, watch: bool, tenant: str, no_headers: bool, output: str, **pool: str | None
) -> None:
    """Say what came of leases, servers and devices; of SUBJECT alone where it is named.

    The scheduler remembers the newest since it leads, and of those before it what was out of order;
    `harp audit list` has who asked for what since the pool began.

    \b
    Examples:
      harp events
      harp events training
      harp events --watch
      harp events --watch -o json | jq -r .what
    """
    show_events(connect(**pool), output, not no_headers, watch, subject, tenant)


def show_events(
    scheduler: Scheduler, output: str, headers: bool, watch: bool, subject: str, tenant: str
) -> None:
    """Prints events; with `watch` one line each, as they come."""
    request = api.EventsRequest(follow=watch, subject=subject, tenant=tenant)
    found = scheduler.watch("Events", request)
    if not watch:
        show(EVENTS, list(found), output, headers)
        return
    for event in found:
        # Where another scheduler takes over, the watch goes on behind it.
        request.after = event.number
        if output in ("json", "yaml"):
            click.echo(json.dumps(as_data(EVENTS, event)))
        elif output == "name":
            click.echo(f"event/{event.number}")
        else:
            about = f"{event.about}/{event.name}"
            line = f"{when(event.time)}  {about:<28}  {event.what:<12}  {event.reason}"
            click.echo(printable(line).rstrip())


@click.group()
def audit() -> None:
    """Who changed what: a chain of rows that shows any later change of it.

    \b
    Examples:
      harp audit list
      harp audit verify
    """


@audit.command("list")
@click.option("--caller", default="", help="Only calls of this identity (spiffe://...).")
@click.option("--subject", default="", help="Only calls about this lease (id), server and so on.")
@click.option("--tenant", default="", help="Only calls in this tenant.")
@click.option(
    "--after",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    help="Only rows behind this number.",
)
@click.option("--no-headers", is_flag=True, help="A table without its first line.")
@output_option("table", "wide", "json", "yaml", "csv")
@pool_options
def audit_list(
    caller: str,
    subject: str,
    tenant: str,
    after: int,
    no_headers: bool,
    output: str,
    **pool: str | None,
) -> None:
    """List the calls that changed something, with the caller, what was before and after.

    Calls that were refused (no such lease, over the quota, not the role for it) are there with the
    reason; of those that one caller may not make, the first few of each hour.

    \b
    Examples:
      harp audit list
      harp audit list --tenant research -o json
      harp audit list --after 10000 -o csv >> audit.csv
    """
    show_audit(
        connect(**pool),
        output,
        not no_headers,
        caller=caller,
        subject=subject,
        tenant=tenant,
        after=after,
    )


def show_audit(scheduler: Scheduler, output: str, headers: bool, **wanted: Any) -> None:
    """Prints rows of the audit."""
    # After a change of schedulers the stream begins anew.
    found = {row.sequence: row for row in scheduler.watch("Audit", api.AuditRequest(**wanted))}
    show(AUDIT, list(found.values()), output, headers)


@audit.command()
@pool_options
def verify(**pool: str | None) -> None:
    """Follow the audit's chain of hashes; say the first row that is not as it was written.

    \b
    Examples:
      harp audit verify
    """
    state = next(connect(**pool).watch("VerifyAudit", api.VerifyAuditRequest()))
    if state.broken:
        raise HarpError(
            f"row {state.broken} of the audit {state.cause}",
            "find out who can write to the database; the rows before it are whole",
        )
    click.echo(f"the audit is whole: {state.rows} rows")


@click.command()
@click.option("--tenant", default="", help="Only of this tenant (default: all that you may see).")
@click.option(
    "--since",
    default="",
    metavar="TIME",
    help="From the hour on that 2026-11-01, 2026-11-01T08:00 or 30d (before now) is in.",
)
@click.option("--no-headers", is_flag=True, help="A table without its first line.")
@output_option("table", "json", "yaml", "csv")
@pool_options
def usage(tenant: str, since: str, no_headers: bool, output: str, **pool: str | None) -> None:
    """Say what the leases of tenants held, and for how long: running ones up to now.

    A table has hours; json, yaml and csv have seconds and bytes times seconds. Compute counts the
    share of each device: half of one for an hour is half an hour.

    \b
    Examples:
      harp usage
      harp usage --tenant research --since 30d
      harp usage --since 2026-11-01 -o csv > november.csv
    """
    request = api.UsageRequest(tenant=tenant, since=moment(since) if since else 0.0)
    report = connect(**pool).call("Usage", request)
    show(USAGE, report.usage, output, not no_headers)


def moment(text: str) -> float:
    """Seconds since 1970 of a date, a time, or a duration before now. Raises HarpError."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - seconds(text)
    except HarpError as error:
        raise HarpError(f"{text!r} is no time", "write 2026-11-01, or 30d", 2) from error
