"""Structured log lines of the server on stderr: JSON for machines, columns for a terminal.

structlog is imported by the first line that is written: an embedded pool usually writes none, and
the program that waits for it starts earlier.
"""

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from harp_client.errors import printable


class Log:
    """Writes events with fields from `level` on.

    `form` is json, console, auto (one of both, by terminal), or plain: as console, and what native
    processes say is for the person at the terminal, as they said it.
    """

    def __init__(self, form: str = "auto", level: str = "info") -> None:
        if form == "auto":
            form = "console" if sys.stderr.isatty() else "json"
        self._form = form
        self._level = logging.getLevelNamesMapping()[level.upper()]
        self._logger: Any = None
        self._lost = 0

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def output(self, process: str, text: str) -> None:
        """A line that a native process wrote on its stderr."""
        if self._form == "plain":
            # Nobody at the other end, or no room: what the line was about goes on.
            with contextlib.suppress(OSError):
                print(text, file=sys.stderr, flush=True)
        else:
            self.info("output", process=process, text=text)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if level < self._level:
            return
        if self._logger is None:
            self._logger = _structlog_logger(self._form)
        lost = self._lost
        # A log that cannot be written (its disk is full, its reader gone) ends no session.
        try:
            if lost:
                self._logger.log(logging.WARNING, "log lines lost", lines=lost)
                self._lost = 0
            self._logger.log(level, event, **fields)
        except OSError:
            self._lost += 1


def _structlog_logger(form: str) -> Any:
    import structlog

    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if form in ("console", "plain")
        else structlog.processors.JSONRenderer()
    )
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_escapes,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )


def _without_escapes(
    _log: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Strips terminal escapes: program names and causes come from the other side of the wire."""
    return {k: printable(v) if isinstance(v, str) else v for k, v in event.items()}
