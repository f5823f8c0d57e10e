"""Streams of any bytes at the open port: the server stays up and small, and serves its users."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from hostile.rogue import under
from hostile.witness import Neighbour, Witness
from pool.standins import Pool, Server, environment, processes_with, servers, wait_until

STREAMS = int(os.environ.get("HOSTILE_STREAMS", "10000"))
SEED = int(os.environ.get("HOSTILE_SEED", "1"))
AT_ONCE = 96
SECONDS = 20.0

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def client_hello(name: str) -> bytes:
    """What stock TLS says first."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


class Stranger:
    """Makes streams, one after the other, each in one of several ways."""

    def __init__(self, server: Server, folder: Path, seed: int) -> None:
        host, _, port = server.address.rpartition(":")
        self.address = (host, int(port))
        self.random = random.Random(seed)
        self.hello = client_hello("harp-server")
        self.user = self._context(server.pool.user)
        self.nobody = self._context(None)
        stranger = Pool(folder, "stranger")
        (stranger.user / "ca.pem").write_bytes((server.pool.user / "ca.pem").read_bytes())
        self.other = self._context(stranger.user)
        self.ways: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self.noise),
            (20, self.cut_hello),
            (20, self.changed_hello),
            (8, self.http1),
            (8, self.http2_in_clear),
            (6, self.nothing),
            (4, self.drip),
            (1, self.hello_then_noise),
            (1, self.no_certificate),
            (1, self.foreign_certificate),
            (1, self.authenticated_noise),
        ]
        self.done: Counter[str] = Counter()

    @staticmethod
    def _context(user: Path | None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        if user is not None:
            context.load_cert_chain(user / "client.pem", user / "client.key")
        return context

    async def run(self, count: int) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with room:
                weights, ways = zip(*self.ways, strict=True)
                (way,) = self.random.choices(ways, weights)
                self.done[way.__name__] += 1
                # The server may cut us off at any byte, and should.
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    await asyncio.wait_for(way(), SECONDS)

        await asyncio.gather(*(one() for _ in range(count)))

    async def send(self, *pieces: bytes, tls: ssl.SSLContext | None = None) -> bytes:
        """Connects, sends, and returns what comes back first."""
        name = "harp-server" if tls else None
        reader, writer = await asyncio.open_connection(*self.address, ssl=tls, server_hostname=name)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if len(pieces) > 1:
                    await asyncio.sleep(0.02)
            if self.random.random() < 0.5:
                writer.write_eof() if tls is None else None
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(reader.read(100), 1)
            return b""
        finally:
            if self.random.random() < 0.3:  # a reset instead of an end
                raw = writer.get_extra_info("socket")
                linger = b"\1\0\0\0\0\0\0\0"
                with contextlib.suppress(OSError, AttributeError):  # it may be closed already
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    def changed(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(changed))
            match self.random.randrange(4):
                case 0:
                    changed[at] = self.random.randrange(256)
                case 1:
                    changed[at : at + self.random.randrange(1, 9)] = b""
                case 2:
                    changed[at:at] = self.random.randbytes(self.random.randrange(1, 9))
                case _:
                    changed[at : at + 2] = self.random.choice([b"\0\0", b"\xff\xff", b"\x7f\xff"])
            changed = changed or bytearray(1)
        return bytes(changed)

    async def noise(self) -> None:
        await self.send(self.random.randbytes(self.random.choice([1, 5, 64, 600, 20_000])))

    async def cut_hello(self) -> None:
        await self.send(self.hello[: self.random.randrange(1, len(self.hello))])

    async def changed_hello(self) -> None:
        # Most changes are seen by the gate already; what is still a greeting goes on to a worker.
        data = self.hello[:9] + self.changed(self.hello[9:])
        await self.send(data[: self.random.choice([40, 80, 120, len(data) - 1])])

    async def http1(self) -> None:
        method = self.random.choice(["GET", "POST", "CONNECT", "OPTIONS"])
        await self.send(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    async def http2_in_clear(self) -> None:
        await self.send(HTTP2_PREFACE + EMPTY_SETTINGS + self.random.randbytes(50))

    async def nothing(self) -> None:
        await self.send()

    async def drip(self) -> None:
        await self.send(*(bytes([byte]) for byte in self.hello[: self.random.randrange(2, 12)]))

    async def hello_then_noise(self) -> None:
        await self.send(self.hello + self.random.randbytes(300))

    async def no_certificate(self) -> None:
        await self.send(HTTP2_PREFACE + EMPTY_SETTINGS, tls=self.nobody)

    async def foreign_certificate(self) -> None:
        await self.send(HTTP2_PREFACE + EMPTY_SETTINGS, tls=self.other)

    async def authenticated_noise(self) -> None:
        preface = self.random.choice([HTTP2_PREFACE, HTTP2_PREFACE + EMPTY_SETTINGS, b""])
        await self.send(preface + self.random.randbytes(200), tls=self.user)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with servers(Pool(tmp_path), environment(tmp_path), tmp_path) as start:
        yield start("--idle-workers", "2")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_any_bytes_leave_the_server_as_it_was(server: Server, tmp_path: Path) -> None:
    environ = environment(tmp_path)
    neighbour = Neighbour(server, environ)
    wait_until(lambda: bool(server.lines("session start")), "the neighbour is let in")
    witness = Witness(server)
    stranger = Stranger(server, tmp_path, SEED)

    async def storm() -> None:
        storming = asyncio.create_task(stranger.run(STREAMS))
        while not storming.done():
            await asyncio.wait([storming], timeout=0.5)
            await asyncio.to_thread(witness.look)
            neighbour.check()
        await storming

    asyncio.run(storm())
    assert stranger.done.total() == STREAMS
    assert len(stranger.done) == len(stranger.ways)
    assert len(server.lines("session start")) == 1, "nobody else was let in"
    bad = server.lines("gate lost") + server.lines("idle worker lost")
    causes = [str(line["cause"]) for line in server.lines("connection refused")]
    bad += [{"cause": c} for c in causes if "killed" in c or "status" in c]
    assert not bad, json.dumps(bad[:5])
    neighbour.finish()
    witness.settle()
    mark = str(server.pool.server / "ca.pem")
    assert server.stop() == 0
    wait_until(lambda: not processes_with(mark), "no worker is left")


def serves(server: Server) -> bool:
    """Whether a program gets a session."""
    program = [sys.executable, Path(__file__).parents[1] / "pool" / "driver_program.py", "once"]
    command = under(server.address, server.pool, program)
    return subprocess.run(command, capture_output=True, timeout=6 * SECONDS).returncode == 0


def test_silent_strangers_leave_room_for_users(server: Server) -> None:
    """Connections that greet and then fall silent take no session from anybody for long."""
    host, _, port = server.address.rpartition(":")
    hello = client_hello("harp-server")
    silent = []
    try:
        for _ in range(80):
            stranger = socket.create_connection((host, int(port)))
            stranger.sendall(hello)
            silent.append(stranger)
        # A program that comes now is served, at the latest when a stranger has had its second.
        wait_until(lambda: serves(server), "a program is served", 6 * SECONDS)
    finally:
        for stranger in silent:
            stranger.close()
