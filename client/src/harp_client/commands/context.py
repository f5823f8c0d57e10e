"""`harp context`: which pools this user knows, and which of them is meant."""

from __future__ import annotations

import json

import click

from harp_client import settings
from harp_client.contexts import remove_context, use_context
from harp_client.errors import printable
from harp_client.target import contexts


@click.group()
def context() -> None:
    """The pools that the configuration file names; --context and HARP_CONTEXT choose one for once.

    \b
    Examples:
      harp context list
      harp context use lab
    """


@context.command("list")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "name", "json"]),
    default="table",
    show_default=True,
)
def list_contexts(output: str) -> None:
    """List the contexts; a star stands before the one that is meant.

    \b
    Examples:
      harp context list
      harp context list -o name
    """
    current, known = contexts()
    current = settings.HARP_CONTEXT.get() or current
    if output == "json":
        items = [
            {"name": name, "current": name == current, **known[name]} for name in sorted(known)
        ]
        click.echo(json.dumps({"items": items}, indent=2))
        return
    if output == "table" and not known:
        click.echo("No contexts.", err=True)
    for name in sorted(known):
        where = known[name].get("scheduler") or known[name].get("server") or ""
        line = f"{'*' if name == current else ' '} {name:<20} {where}".rstrip()
        click.echo(printable(name if output == "name" else line))


@context.command()
@click.argument("name")
def use(name: str) -> None:
    """Mean the context NAME from now on.

    \b
    Examples:
      harp context use lab
    """
    use_context(name)
    click.echo(f"context {name}: current")


@context.command()
@click.argument("name")
def delete(name: str) -> None:
    """Forget the context NAME; its credentials stay where they are.

    \b
    Examples:
      harp context delete lab
    """
    remove_context(name)
    click.echo(f"context {name}: deleted")
