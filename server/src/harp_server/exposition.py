"""The port where a part of the pool can be watched: `/metrics` for Prometheus, and `/healthz`.

It has no authentication and is open to whoever can reach it: it belongs on a management network.
Requests are answered by threads; what they tell is read on the part's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from harp_client import __version__, endpoint
from harp_client.errors import HarpError

EXAMPLE = "127.0.0.1:9440"
"""Of an address for this port."""

ANSWER_SECONDS = 5.0
"""Longest that the event loop may take to say what it knows."""

REQUESTS_AT_ONCE = 8
"""More are cut off: a port without authentication must not cost threads without bound."""

SLOW_SECONDS = 20.0
"""What there is for a client to send its request, for the answer to be found, and for the client to
take it."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Health:
    """What `/healthz` says: 200 where `ok`, else 503."""

    ok: bool
    text: str


def registry(part: str) -> CollectorRegistry:
    """A registry that already knows the process, Python, and what version of the part this is."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    made.register(BuildInfo(part))
    return made


class BuildInfo(Collector):
    """`harp_build_info`."""

    def __init__(self, part: str) -> None:
        self._part = part

    def collect(self) -> list[Metric]:
        """One metric, whose value says nothing."""
        labels = {"version": __version__, "part": self._part}
        return [InfoMetricFamily("harp_build", "Version of this part of the pool.", labels)]


class Exposition:
    """An open port that tells what a registry has."""

    def __init__(
        self,
        listen: str,
        metrics: CollectorRegistry,
        health: Callable[[], Awaitable[Health]],
    ) -> None:
        """Listens on `HOST:PORT`; to be made on the event loop that `health` is called on.

        Raises HarpError where that cannot be done."""
        host, port = endpoint.parse(listen, EXAMPLE)
        loop = asyncio.get_running_loop()
        page = _page(metrics, lambda: called(loop, health))
        try:
            family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(where, page, family)
        except OSError as error:
            raise HarpError(
                f"cannot listen on {listen}: {error.strerror or error}",
                "choose another --metrics HOST:PORT",
            ) from error
        bound = self._server.server_address[1]
        self.address = endpoint.joined(host, bound)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    async def close(self) -> None:
        """Closes the port."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()


def called(loop: asyncio.AbstractEventLoop, what: Callable[[], Awaitable[Value]]) -> Value:
    """What a coroutine on the event loop answers, for another thread. Raises TimeoutError."""

    async def answer() -> Value:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await what()

    future = asyncio.run_coroutine_threadsafe(answer(), loop)
    try:
        return future.result(2 * ANSWER_SECONDS)
    finally:
        future.cancel()


class _Server(ThreadingHTTPServer):
    """One thread for each request, up to a bound."""

    daemon_threads = True

    def __init__(
        self, where: tuple[object, ...], page: type[BaseHTTPRequestHandler], family: int
    ) -> None:
        self.address_family = socket.AddressFamily(family)
        self._room = threading.BoundedSemaphore(REQUESTS_AT_ONCE)
        super().__init__((str(where[0]), int(str(where[1]))), page)

    def server_bind(self) -> None:
        """Binds, and asks no name service what this machine is called."""
        TCPServer.server_bind(self)

    def process_request(self, request: object, client_address: object) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        try:
            super().process_request(request, client_address)  # type: ignore[arg-type]
        except RuntimeError:  # the system has no thread for it, so none gives its place back
            self._room.release()
            self.shutdown_request(request)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        too_late = threading.Timer(SLOW_SECONDS, _cut_off, (request,))
        too_late.daemon = True
        try:
            too_late.start()
            super().process_request_thread(request, client_address)
        except RuntimeError:  # no thread that would cut it off
            self.shutdown_request(request)
        finally:
            too_late.cancel()
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone, or too slow, is no news; a fault of ours is."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


def _cut_off(request: socket.socket) -> None:
    """Ends a connection under whoever reads from it or writes to it."""
    with contextlib.suppress(OSError):  # it has just ended
        request.shutdown(socket.SHUT_RDWR)


def _page(metrics: CollectorRegistry, health: Callable[[], Health]) -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        server_version = "harp"
        sys_version = ""

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._metrics()
                case "/healthz":
                    self._healthz()
                case _:
                    self._answer(HTTPStatus.NOT_FOUND, b"/metrics or /healthz\n")

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def _metrics(self) -> None:
            encode, form = choose_encoder(self.headers.get("Accept", ""))
            try:
                body = encode(metrics)
            except TimeoutError:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"busy\n")
                return
            self._answer(HTTPStatus.OK, body, form)

        def _healthz(self) -> None:
            try:
                found = health()
            except TimeoutError:
                found = Health(False, f"no answer in {ANSWER_SECONDS:.0f} s")
            status = HTTPStatus.OK if found.ok else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, f"{found.text}\n".encode())

        def _answer(
            self, status: HTTPStatus, body: bytes, form: str = "text/plain; charset=utf-8"
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", form)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *words: object) -> None:
            """Scrapes are not logged."""

    return Page
