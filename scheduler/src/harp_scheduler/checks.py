"""What `harp doctor --scheduler-state` checks of the folder that a scheduler keeps its state in."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from harp_client.errors import HarpError
from harp_client.finding import Finding, certificate, failed
from harp_scheduler.commands import url_of
from harp_scheduler.store import audit, schema
from harp_scheduler.store.database import Database
from harp_scheduler.store.migrate import revision, revisions
from harp_server.checks import disk

BACK = datetime.timedelta(seconds=5)
"""How far the clock may be behind the last thing that was written."""


def scheduler(folder: Path, url: str) -> Iterator[Finding]:
    """The authority, the database, its audit, the disk. Changes nothing: an older database is not
    brought to this version's schema. `url`: of the database, or its file, where that is not in the
    folder."""
    authority = folder / "ca" if (folder / "ca").is_dir() else folder
    how = "harp restore from a backup; a new authority means that everybody joins anew"
    yield from certificate("authority", authority, "ca", how=how)
    if (folder / "admin").is_dir():
        yield from certificate("admin", folder / "admin", "client", how="harp ca user CA_DIR admin")
    try:
        database = Database(url_of(url, folder))
        try:
            yield from missing(database, bool(url)) if database.is_missing else stored(database)
        finally:
            database.close()
    except HarpError as error:
        yield failed("database", error)
    yield disk("disk", folder)


def missing(database: Database, is_named: bool) -> Iterator[Finding]:
    """Nothing has been started on it yet; one that was named may also have another name."""
    following = "the scheduler's first start makes it"
    if is_named:
        following = f"is that its name? {following}"
    yield Finding("database", not is_named, f"there is no {database.path}", following)


def stored(database: Database) -> Iterator[Finding]:
    """What the database says of itself. Raises HarpError."""
    head, known = revisions()
    now = revision(database)
    if now != head:
        is_older = now is None or now in known
        following = (
            "the scheduler's start brings it to this version's"
            if is_older
            else "a newer version has written it: start that one"
        )
        text = f"{database.name} has revision {now}, this version's is {head}"
        yield Finding("database", is_older, text, following)
        return
    row = schema.pool.c
    with database.reading() as connection:
        term, holder = connection.execute(select(row.term, row.holder)).one()
        newest = select(schema.audit.c.time).order_by(schema.audit.c.sequence.desc()).limit(1)
        last = connection.execute(newest).scalar()
    led = f"{holder} leads or led last, in term {term}" if term else "nobody has led yet"
    yield Finding("database", True, f"{database.name}, revision {now}; {led}")
    if last is not None and last - datetime.datetime.now(datetime.UTC) > BACK:
        text = f"this clock is behind what was written last ({last:%Y-%m-%d %H:%M:%S} UTC)"
        yield Finding("clock", False, text, "set it by NTP (timedatectl set-ntp true)")
    broken = audit.verify(database)
    if broken is not None:
        yield Finding(
            "audit",
            False,
            f"row {broken.sequence} {broken.cause}",
            "find out who can write to the database; the rows before it are whole",
        )
    else:
        yield Finding("audit", True, "whole")
