"""A TCP proxy that makes weather: it delays, slows down, stalls, damages and cuts connections.

    with Proxy(server.address) as proxy:
        proxy.share = lambda number: {UP: 4711}  # connection 0, 1, … is reset after so many bytes
        start(["harp-run", "--server", proxy.address, ...])
        proxy.cut_at(UP, 100_000)     # reset after exactly so many bytes towards the server
        proxy.cut()                   # reset everything that is open, now
        proxy.stall(DOWN)             # nothing more comes back, on any connection ...
        proxy.flow()                  # ... until now
        proxy.freeze()                # the open connections are dead without a word; new ones work
        proxy.refuse = True           # new connections are reset at once
        proxy.corrupt_at(DOWN, 5000)  # one bit of that byte is flipped
        proxy.delay = 0.05            # seconds each way
        proxy.rate = 1_000_000        # bytes per second of each direction of each connection

Byte positions count one direction over all connections, from the first byte of the first one;
`carried` says how far it is. `cuts` counts the resets that `cut_at`, `share` and `cut` have made.
"""

import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

UP = "up"
"""From the client to the server."""
DOWN = "down"
"""From the server to the client."""

PIECE = 64 << 10
POLL_SECONDS = 0.01


@dataclass
class _Meter:
    """What one direction has carried, and what is to happen at which byte."""

    carried: int = 0
    cuts: list[int] = field(default_factory=list)
    corruptions: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_through(self, data: bytes) -> tuple[bytes, bool]:
        """Counts `data`; returns what may go on of it, damaged as planned, and whether the
        connection is cut after that."""
        with self.lock:
            begin, end = self.carried, self.carried + len(data)
            passed = [position for position in self.cuts if position <= end]
            cut = bool(passed)
            if cut:
                # Points that lie behind already count for this cut too.
                self.cuts = [position for position in self.cuts if position > end]
                end = max(min(passed), begin)
            self.carried = end
            kept = bytearray(data[: end - begin])
            for position in self.corruptions:
                if begin <= position < end:
                    kept[position - begin] ^= 1
            self.corruptions = [position for position in self.corruptions if position >= end]
            return bytes(kept), cut


class Proxy:
    """Forwards connections to `upstream` (HOST:PORT), as they come, until it is closed."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.delay = 0.0
        self.rate: float | None = None
        self.refuse = False
        self.share: Callable[[int], dict[str, int]] = lambda _number: {}
        self.accepted = 0
        """Connections so far, refused ones not among them."""
        self.cuts = 0
        self._counting = threading.Lock()
        self._meters = {UP: _Meter(), DOWN: _Meter()}
        self._stalled: set[str] = set()
        self._open: set[_Connection] = set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Resets what is open and accepts nothing more."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections():
            connection.reset()

    def carried(self, direction: str) -> int:
        """Bytes that have gone this way so far."""
        return self._meters[direction].carried

    def cut_at(self, direction: str, position: int) -> None:
        """Resets the connection that carries the byte before `position`, right after it. A
        position that lies behind cuts with the next byte."""
        meter = self._meters[direction]
        with meter.lock:
            meter.cuts.append(position)

    def corrupt_at(self, direction: str, position: int) -> None:
        """Flips a bit of the byte at `position`."""
        meter = self._meters[direction]
        with meter.lock:
            meter.corruptions.append(position)

    def cut(self) -> None:
        """Resets every open connection, now."""
        for connection in self._connections():
            connection.cut()

    def stall(self, *directions: str) -> None:
        """Carries nothing more in these directions (both, if none is named) until `flow`."""
        self._stalled.update(directions or (UP, DOWN))

    def flow(self) -> None:
        """Ends `stall`."""
        self._stalled.clear()

    def freeze(self) -> None:
        """Makes the open connections carry nothing more, for ever, without closing them."""
        for connection in self._connections():
            connection.frozen = True

    def stands_still(self, direction: str) -> bool:
        return direction in self._stalled

    def _connections(self) -> "list[_Connection]":
        with self._lock:
            return list(self._open)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._upstream, timeout=10)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            share = self.share(self.accepted)
            self.accepted += 1
            connection = _Connection(self, client, server, self._meters, share)
            with self._lock:
                self._open.add(connection)
            connection.start(self._forget)

    def count_cut(self) -> None:
        """One more; connections call it."""
        with self._counting:
            self.cuts += 1

    def _forget(self, connection: "_Connection") -> None:
        with self._lock:
            self._open.discard(connection)


class _Connection:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: Proxy,
        client: socket.socket,
        server: socket.socket,
        meters: dict[str, _Meter],
        share: dict[str, int],
    ) -> None:
        self.frozen = False
        self._share = dict(share)
        self._proxy = proxy
        self._ends = {UP: (client, server), DOWN: (server, client)}
        self._meters = meters
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._running = 2
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self, finished: "Callable[[_Connection], None]") -> None:
        for direction in (UP, DOWN):
            threading.Thread(target=self._run, args=(direction, finished), daemon=True).start()

    def reset(self) -> None:
        """Resets both ends, unless somebody else has."""
        if self._ends_now():
            self._reset_ends()

    def cut(self) -> None:
        """As `reset`, and counts before either end can know of it."""
        if self._ends_now():
            self._proxy.count_cut()
            self._reset_ends()

    def _ends_now(self) -> bool:
        with self._lock:
            was_over = self._over.is_set()
            self._over.set()
        return not was_over

    def _reset_ends(self) -> None:
        for end in self._ends[UP]:
            _reset(end)

    def _run(self, direction: str, finished: "Callable[[_Connection], None]") -> None:
        try:
            self._carry(direction)
        except OSError:
            self.reset()  # one end is gone, and the other is to know
        with self._lock:
            self._running -= 1
            last = self._running == 0
        if last:
            finished(self)
            if not self._over.is_set():
                self._over.set()
                for end in self._ends[UP]:
                    end.close()

    def _carry(self, direction: str) -> None:
        source, target = self._ends[direction]
        source.settimeout(POLL_SECONDS)
        late: queue.SimpleQueue[tuple[float, bytes]] | None = None
        while not self._over.is_set():
            if self.frozen or self._proxy.stands_still(direction):
                time.sleep(POLL_SECONDS)
                continue
            try:
                data = source.recv(PIECE)
            except TimeoutError:
                continue
            if self.frozen or self._proxy.stands_still(direction):
                # It came while the stall began.
                while not self._over.is_set() and (
                    self.frozen or self._proxy.stands_still(direction)
                ):
                    time.sleep(POLL_SECONDS)
            if self._over.is_set():
                return
            if self._proxy.delay and late is None:
                late = queue.SimpleQueue()
                threading.Thread(target=self._carry_late, args=(late, target), daemon=True).start()
            if not data:
                break
            left = self._share.get(direction, len(data) + 1)
            kept, cut = self._meters[direction].pass_through(data[:left])
            if direction in self._share:
                self._share[direction] = left - len(kept)
            cut = cut or left <= len(data)
            if self._proxy.rate:
                time.sleep(len(kept) / self._proxy.rate)
            if late is not None:
                late.put((time.monotonic() + self._proxy.delay, kept))
            else:
                self._send(target, kept)
            if cut:
                time.sleep(self._proxy.delay)
                self.cut()
                return
        if late is not None:
            late.put((time.monotonic() + self._proxy.delay, b""))
        elif not self._over.is_set():
            target.shutdown(socket.SHUT_WR)

    def _carry_late(
        self, pieces: "queue.SimpleQueue[tuple[float, bytes]]", target: socket.socket
    ) -> None:
        try:
            while not self._over.is_set():
                due, data = pieces.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                self._send(target, data)
        except OSError:
            self.reset()

    def _send(self, target: socket.socket, data: bytes) -> None:
        """As sendall, but it ends with the connection and not with the timeout of receiving."""
        rest = memoryview(data)
        while rest and not self._over.is_set():
            try:
                rest = rest[target.send(rest) :]
            except TimeoutError:
                continue


def _reset(end: socket.socket) -> None:
    """Closes with RST instead of FIN: what is under way is lost, as in a network that fails."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # A thread that sleeps in a call on this socket would keep it open.
        end.close()
    except OSError:
        pass
