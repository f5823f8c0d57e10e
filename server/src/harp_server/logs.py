"""Structured log lines of the server on stderr: JSON for machines, columns for a terminal."""

import logging
import sys
from typing import Any

import structlog

from harp_client.errors import printable

Log = structlog.typing.FilteringBoundLogger


def configure(form: str = "auto", level: str = "info") -> Log:
    """The server's logger. `form` is json, console or auto (console on a terminal)."""
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "json"
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if form == "console"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_escapes,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    log: Log = structlog.get_logger()
    return log


def _without_escapes(
    _log: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Strips terminal escapes: program names and causes come from the other side of the wire."""
    return {k: printable(v) if isinstance(v, str) else v for k, v in event.items()}
