"""The weather maker does what it says, or the tests that use it would show nothing."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from weather.proxy import DOWN, UP, Proxy

BOUND = 30.0


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends everything back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    connection.sendall(data)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield "{}:{}".format(*listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)


def connect(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=BOUND)


def receive(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def test_bytes_pass_and_are_counted(echo: str) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        sent = bytes(range(256)) * 2000
        threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
        assert receive(client, len(sent)) == sent
        assert proxy.carried(UP) == proxy.carried(DOWN) == len(sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert (proxy.accepted, proxy.cuts) == (1, 0)


def test_a_cut_is_a_reset_at_its_byte(echo: str) -> None:
    with Proxy(echo) as proxy:
        proxy.cut_at(DOWN, 1000)
        with connect(proxy) as client:
            client.sendall(bytes(5000))
            with pytest.raises(ConnectionResetError):
                receive(client, 5000)
        assert (proxy.carried(DOWN), proxy.cuts) == (1000, 1)
        with connect(proxy) as client:
            client.sendall(b"again")
            assert receive(client, 5) == b"again"
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        proxy.refuse = True
        with pytest.raises(ConnectionResetError), connect(proxy) as client:
            client.recv(1)
        assert (proxy.accepted, proxy.cuts) == (2, 2)


def test_a_connection_carries_its_share(echo: str) -> None:
    with Proxy(echo) as proxy:
        proxy.share = lambda number: {UP: 700} if number == 1 else {}
        for expected in (2000, 2700, 4700):
            with connect(proxy) as client:
                client.sendall(bytes(2000))
                with contextlib.suppress(ConnectionResetError):
                    receive(client, 2000)
            assert proxy.carried(UP) == expected
        assert (proxy.accepted, proxy.cuts) == (3, 1)


def test_stalls_hold_everything_back_and_freezing_only_what_is_open(echo: str) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.stall(DOWN)
        client.sendall(b"later")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(5)
        client.settimeout(BOUND)
        proxy.flow()
        assert receive(client, 5) == b"later"
        proxy.freeze()
        client.sendall(b"never")
        with connect(proxy) as other:
            other.sendall(b"other")
            assert receive(other, 5) == b"other"
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(5)


def test_one_bit_is_flipped(echo: str) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.corrupt_at(UP, 3)
        client.sendall(bytes(10))
        assert receive(client, 10) == bytes([0, 0, 0, 1, 0, 0, 0, 0, 0, 0])


def test_bytes_are_late_and_slow(echo: str) -> None:
    with Proxy(echo) as proxy, connect(proxy) as client:
        proxy.delay = 0.1
        start = time.monotonic()
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        assert time.monotonic() - start >= 0.2
        proxy.rate = 100_000
        start = time.monotonic()
        client.sendall(bytes(20_000))
        assert receive(client, 20_000) == bytes(20_000)
        assert time.monotonic() - start >= 0.4
