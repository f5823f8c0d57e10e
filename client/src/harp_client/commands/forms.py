"""The forms in which commands print things: tables for people, the rest for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click
from google.protobuf.message import Message

from harp_client.errors import printable

API_VERSION = "harp.control/v1"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    value: Callable[[Any], object]
    is_wide: bool = False
    """Only with `-o wide`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What `harp get` can list."""

    name: str
    """As in messages and in JSON, in the singular."""

    asked: str
    """The list of an answer that holds it."""

    columns: tuple[Column, ...]
    takes: Callable[[Any], bool] = lambda _: True
    key: Callable[[Any], str] = lambda thing: str(thing.name)
    message: type[Message] | None = None
    """For `-o csv`, which only some kinds have."""


def output_option(*forms: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --output; the first of its forms is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(forms), default=forms[0], show_default=True
    )


def when(time: float) -> str:
    """A time of the API, in seconds since 1970, as people here write it."""
    return datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M:%S")


def show(kind: Kind, things: Sequence[Any], output: str, headers: bool) -> None:
    """Prints things in one of the forms of `-o`; says on stderr that a table has no rows."""
    if output == "name":
        for thing in things:
            click.echo(printable(f"{kind.name.lower()}/{kind.key(thing)}"))
    elif output in ("json", "yaml"):
        items = [as_data(kind, thing) for thing in things]
        whole = {"apiVersion": API_VERSION, "kind": f"{kind.name}List", "items": items}
        click.echo(json.dumps(whole, indent=2) if output == "json" else as_yaml(whole), nl=True)
    elif output == "csv":
        rows(kind, things, headers)
    elif things:
        table(kind, things, output == "wide", headers)
    else:
        click.echo(f"No {kind.asked}.", err=True)


def rows(kind: Kind, things: Sequence[Any], headers: bool) -> None:
    """All fields, in the units of the API, for other programs."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    data = [as_data(kind, thing) for thing in things]
    names = [field.name for field in kind.message.DESCRIPTOR.fields] if kind.message else []
    if headers:
        writer.writerow(names)
    writer.writerows([item[name] for name in names] for item in data)


def as_data(kind: Kind, thing: Any) -> dict[str, Any]:
    """A thing as JSON has it; what it calls its own kind is there under another name."""
    values = _values(thing)
    if "kind" in values:
        values = {"accelerator": values.pop("kind"), **values}
    return {"apiVersion": API_VERSION, "kind": kind.name, **values}


def _values(message: Message) -> dict[str, Any]:
    """All fields of a message, those with their default too; what is optional and not set, not."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            continue
        if isinstance(value, Message):
            values[field.name] = _values(value)
        elif isinstance(value, Mapping):
            values[field.name] = dict(sorted(value.items()))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            values[field.name] = [_values(v) if isinstance(v, Message) else v for v in value]
        else:
            values[field.name] = value
    return values


def as_yaml(value: object) -> str:
    """YAML text."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False).rstrip("\n")


def table(kind: Kind, things: Sequence[Any], wide: bool, headers: bool) -> None:
    """Columns, as wide as what is in them; nothing is cut off where the output is no terminal."""
    from rich.console import Console
    from rich.table import Table

    columns = [column for column in kind.columns if wide or not column.is_wide]
    grid = Table(box=None, pad_edge=False, show_header=headers, header_style="bold")
    for column in columns:
        grid.add_column(column.title, overflow="fold")
    for thing in things:
        grid.add_row(*(printable(str(column.value(thing))) for column in columns))
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, highlight=False, emoji=False).print(grid)
