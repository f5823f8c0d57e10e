"""Calls without gRPC's library, to stock gRPC servers; what is not understood is left to gRPC."""

from __future__ import annotations

import datetime
import random
import ssl
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from harp_api.control.v1 import access_pb2, history_pb2, join_pb2, pool_pb2, pool_pb2_grpc
from harp_client import brief
from harp_client import scheduler as client
from harp_client.errors import HarpError
from harp_client.scheduler import Scheduler, method
from harp_server.ca import Authority, save_user
from scheduler.cluster import BOUND, Cluster

GET = "/harp.control.v1.Pool/Get"
LEASE = pool_pb2.Lease(id="l-1", state="Available", reason="weil größer")


class Pool(pool_pb2_grpc.PoolServicer):
    """Answers by the name of what is asked for."""

    def __init__(self, leads: bool = True) -> None:
        self.asked: list[str] = []
        self._leads = leads

    def Get(self, request: pool_pb2.GetRequest, context: Any) -> pool_pb2.Things:  # noqa: N802
        self.asked.append(request.name)
        if not self._leads:
            context.abort(grpc.StatusCode.UNAVAILABLE, "this scheduler does not lead")
        if request.name == "nothing":
            context.set_trailing_metadata((("harp-next", "ask for something"),))
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no »nothing«, 100 %\n")
        if request.name == "half":  # a message, and then a status that is not OK
            context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
            context.set_details("half of it")
        number = 50_000 if request.name == "many" else 1
        return pool_pb2.Things(leases=[LEASE] * number, revision=7)

    def WatchLease(  # noqa: N802
        self, request: pool_pb2.WatchLeaseRequest, context: Any
    ) -> Iterator[pool_pb2.Lease]:
        yield pool_pb2.Lease(state="Attaching")
        yield LEASE


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(brief, "CONNECT_SECONDS", BOUND)
    monkeypatch.setattr(brief, "SILENCE_SECONDS", BOUND)
    monkeypatch.setattr(client, "YOUNG_SECONDS", 10 * BOUND)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create("lab")


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> str:
    user = tmp_path / "alice"
    save_user(user, authority.trusted_pem(), authority.issue_user("default", "alice"))
    return str(user)


Serve = Callable[[Pool], str]


@pytest.fixture
def serve(authority: Authority) -> Iterator[Serve]:
    """Starts gRPC servers that are schedulers of the pool; their addresses."""
    servers = []

    def start(pool: Pool) -> str:
        pair = authority.issue_scheduler("one", datetime.timedelta(days=1))
        own = (pair.key_pem(), pair.certificate_pem())
        server = grpc.server(ThreadPoolExecutor(2))
        servers.append(server)
        pool_pb2_grpc.add_PoolServicer_to_server(pool, server)
        credentials = grpc.ssl_server_credentials([own], authority.trusted_pem(), True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def get(name: str) -> bytes:
    return pool_pb2.GetRequest(name=name).SerializeToString()


def test_answers_long_ones_and_streams(serve: Serve, folder: str) -> None:
    address = serve(Pool())
    for name, number in (("one", 1), ("many", 50_000)):
        (answer,) = brief.answers(address, folder, GET, get(name))
        things = pool_pb2.Things.FromString(answer)
        assert (len(things.leases), things.leases[-1], things.revision) == (number, LEASE, 7)
    path = "/harp.control.v1.Pool/WatchLease"
    states = [pool_pb2.Lease.FromString(a).state for a in brief.answers(address, folder, path, b"")]
    assert states == ["Attaching", "Available"]


def test_refusals_are_told_as_by_grpc(serve: Serve, folder: str) -> None:
    address = serve(Pool())
    told = []
    for may_be_brief in (True, False):
        scheduler = Scheduler([address], folder)
        if not may_be_brief:
            scheduler._brief_until = 0.0
        with pytest.raises(HarpError) as refused:
            scheduler.call("Get", pool_pb2.GetRequest(name="nothing"))
        assert (scheduler._channel is None) == may_be_brief
        told.append((refused.value.cause, refused.value.next_step, refused.value.exit_code))
        scheduler.close()
    assert told[0] == told[1] == ("there is no »nothing«, 100 %\n", "ask for something", 3)
    with pytest.raises(brief.Refused) as half:
        list(brief.answers(address, folder, GET, get("half")))
    assert (half.value.code, half.value.details) == ("FAILED_PRECONDITION", "half of it")


def test_the_one_that_leads_is_asked_first_the_next_time(serve: Serve, folder: str) -> None:
    standby, leader = Pool(leads=False), Pool()
    scheduler = Scheduler([serve(standby), "127.0.0.1:1", serve(leader)], folder)
    for name in ("one", "two"):
        assert scheduler.call("Get", pool_pb2.GetRequest(name=name)).revision == 7
    assert (standby.asked, leader.asked) == (["one"], ["one", "two"])
    assert scheduler._channel is None


def test_who_stays_or_is_not_understood_has_a_connection_of_grpc(
    serve: Serve, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = serve(Pool())
    old = Scheduler([address], folder)
    old._brief_until = 0.0
    monkeypatch.setattr(brief, "_connected", lambda *_: Played(b"HTTP/1.1 200 OK\r\n\r\n"))
    unclear = Scheduler([address], folder)
    for scheduler in (old, unclear):
        assert scheduler.call("Get", pool_pb2.GetRequest(name="one")).revision == 7
        assert scheduler._channel is not None
        scheduler.close()


def test_another_authority_or_no_scheduler_is_unclear(serve: Serve, tmp_path: Path) -> None:
    address, other = serve(Pool()), Authority.create("other")
    save_user(tmp_path / "eve", other.trusted_pem(), other.issue_user("default", "eve"))
    for place in (address, "127.0.0.1:1"):
        with pytest.raises(brief.Unclear):
            list(brief.answers(place, str(tmp_path / "eve"), GET, get("one")))


def test_every_call_has_its_path_and_its_answer() -> None:
    found = 0
    for module, service in (
        (pool_pb2, "Pool"),
        (access_pb2, "Access"),
        (history_pb2, "History"),
        (join_pb2, "Renewal"),
    ):
        for name, described in module.DESCRIPTOR.services_by_name[service].methods_by_name.items():
            path, answer = method(name)
            assert path == f"/harp.control.v1.{service}/{name}"
            assert answer.DESCRIPTOR is described.output_type
            found += 1
    assert found >= 20
    with pytest.raises(AttributeError):
        method("Nothing")


def test_a_scheduler_answers_and_refuses_so(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        address, alice = cluster.scheduler(), str(tmp_path / "alice")
        cluster.things()  # it leads
        (answer,) = brief.answers(address, alice, GET, b"")
        assert pool_pb2.Things.FromString(answer).revision > 0
        cordon = pool_pb2.CordonRequest(request_id="1", subject="gpu1", on=True)
        path = "/harp.control.v1.Pool/Cordon"
        with pytest.raises(brief.Refused) as refused:
            list(brief.answers(address, alice, path, cordon.SerializeToString()))
        assert refused.value.code == "PERMISSION_DENIED"
        assert refused.value.metadata["harp-next"]
    finally:
        cluster.close()


class Played:
    """A connection on which bytes come as they once did, or changed; then the last ones for ever,
    or the end."""

    def __init__(self, received: bytes, piece: int = 1 << 14, for_ever: bytes = b"") -> None:
        self._received, self._piece, self._for_ever = received, piece, for_ever
        self.asked = 0

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def settimeout(self, _: float) -> None:
        pass

    def sendall(self, _: bytes) -> None:
        pass

    def recv(self, size: int) -> bytes:
        self.asked += 1
        if not self._received:
            return self._for_ever
        taken = self._received[: min(size, self._piece)]
        self._received = self._received[len(taken) :]
        return taken


class Recorded:
    """A connection, and what has come on it."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection, self.received = connection, b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def recv(self, size: int) -> bytes:
        piece = self._connection.recv(size)
        self.received += piece
        return piece


@pytest.fixture
def recorded(serve: Serve, folder: str) -> bytes:
    """What a scheduler says when it answers."""
    with brief._connected(serve(Pool()), folder) as connection:
        recorder = Recorded(connection)
        call = brief._Call(recorder)
        call.ask(GET, get("one"))
        assert len(list(call.messages())) == 1
    return recorder.received


def test_broken_answers_are_unclear(
    recorded: bytes, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice, outcomes = random.Random(1), {"answer": 0, "unclear": 0, "refused": 0}
    for turn in range(4000):
        broken = bytearray(recorded)
        for _ in range(choice.randrange(4) if turn else 0):
            broken[choice.randrange(len(broken))] = choice.randrange(256)
        if turn % 4 == 3:
            del broken[choice.randrange(len(broken)) :]
        played = Played(bytes(broken), choice.randrange(1, 100))
        monkeypatch.setattr(brief, "_connected", lambda *_, played=played: played)
        try:
            answers = list(brief.answers("", folder, GET, b""))
            outcomes["answer"] += 1
            if turn == 0:
                assert pool_pb2.Things.FromString(answers[0]).revision == 7
        except brief.Unclear:
            outcomes["unclear"] += 1
        except brief.Refused:
            outcomes["refused"] += 1
    assert outcomes["answer"] > 0
    assert outcomes["unclear"] > 1000


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = 0, 1, 3, 4, 5, 6, 7
CONTINUATION = 9
BEGUN = frame(SETTINGS, 0, 0) + frame(HEADERS, 4, 1, b"\x88")
"""Settings, and the headers of an answer: `:status: 200`."""


IDLE = {
    "pings": frame(PING, 0, 0, bytes(8)),
    "settings": frame(SETTINGS, 0, 0),
    "data": frame(DATA, 0, 1),
    "informational": frame(HEADERS, 4, 1, b"\x08\x03103"),
    "unknown": frame(99, 0, 0),
}


@pytest.mark.parametrize("name", IDLE)
def test_what_is_no_answer_is_silence(
    name: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = BEGUN if name == "data" else frame(SETTINGS, 0, 0)
    played = Played(before, for_ever=IDLE[name])
    monkeypatch.setattr(brief, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(brief, "_connected", lambda *_: played)
    with pytest.raises(brief.Unclear, match="silence"):
        list(brief.answers("", folder, GET, b""))


BOMB = b"\x40\1x\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 20
"""A header field of 4000 bytes, and 20 times the same by its number."""


HOSTILE = {
    # The cause; how often it is heard at most; what comes before, and again and again.
    "data": ("window", 4097, BEGUN, frame(DATA, 0, 1, b"\0\4\0\0\0" + bytes(16379))),
    "long frame": ("overlong", 1, BEGUN, frame(DATA, 0, 1, bytes(16385))),
    "long message": ("nobody asked for", 1, BEGUN, frame(DATA, 0, 1, b"\0\xff\xff\xff\xff")),
    "compressed": ("nobody asked for", 1, BEGUN, frame(DATA, 0, 1, b"\1\0\0\0\1x")),
    "no end": ("continuation", 64, frame(HEADERS, 0, 1), frame(CONTINUATION, 0, 1, bytes(100))),
    "bomb": ("larger than 65536", 1, BEGUN, frame(HEADERS, 5, 1, BOMB)),
    "push": ("pushed", 1, BEGUN, frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2")),
    "reset": ("an end with", 1, BEGUN, frame(RST_STREAM, 0, 1, bytes(4))),
    "goodbye": ("an end with", 1, BEGUN, frame(GOAWAY, 0, 0, bytes(8))),
    "end": ("an end without", 1, BEGUN, b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_nobody_asked_for_is_unclear_at_once(
    name: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause, most, before, for_ever = HOSTILE[name]
    played = Played(before, for_ever=for_ever)
    monkeypatch.setattr(brief, "_connected", lambda *_: played)
    with pytest.raises(brief.Unclear, match=cause):
        list(brief.answers("", folder, GET, b""))
    assert played.asked <= 1 + most


def test_who_holds_a_lease_loads_little() -> None:
    """What is slow to load is left alone by what every `harp-run` waits for."""
    slow = {"grpc", "cryptography", "subprocess", "asyncio", "click", "argparse"}
    program = "import sys, harp_client.lease, harp_client.lease_holder; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "harp_client.brief" in loaded.stdout.split()
    assert not slow & set(loaded.stdout.split())
