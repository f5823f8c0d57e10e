"""A stock client's session with a real worker breaks and goes on; nobody else can take it over."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from harp_server.ca import save_user
from harp_spec.spec.all import REGISTRY
from pool.standins import Server, wait_until
from weather.proxy import UP, Proxy
from wire.stock import SERVER_NAME, Session, channel

CALL = REGISTRY.calls["cuMemGetInfo_v2"].id
INVALID_CONTEXT = 201
REPLY_WANTED = 1
UNKNOWN = "0123456789abcdef"
"""The name of no session."""


def question(ticket: int) -> bytes:
    """A call that is answered; on a thread without a context, by that code."""
    return struct.pack("<IHBBII", 12, CALL, REPLY_WANTED, 0, 1, ticket)


def answer(ticket: int) -> bytes:
    return struct.pack("<IIII", 12, ticket, INVALID_CONTEXT, 0)


class Owner(Session):
    """A client that keeps what it sends, and comes back for its session."""

    def __init__(self, stubs, server: Server, proxy: Proxy) -> None:
        super().__init__(stubs, minor=1)
        self.server, self.proxy = server, proxy
        self.channel = channel(server.pool.user, proxy.address)
        self.begin(self.channel)
        self.welcome = self.receive().welcome

    def ask(self, ack: int | None = None) -> int:
        """Sends a question; returns its ticket, which is its frame's number."""
        ticket = self.sent + 1
        self.send(ack, calls=question(ticket))
        return ticket

    def hears(self, tickets: list[int]) -> bool:
        """Whether these are answered next, be it in few frames or in many."""
        answers = b"".join(map(answer, tickets))
        heard = b""
        while len(heard) < len(answers):
            heard += self.receive().replies
        return heard == answers

    def is_answered(self) -> bool:
        return self.hears([self.ask()])

    def cut(self) -> None:
        """The network resets the connection, and both ends notice."""
        before = len(self.server.lines("session interrupted"))
        self.proxy.cut()
        with pytest.raises(grpc.RpcError) as broken:
            list(self.incoming)  # what has come before, then the break
        assert broken.value.code() == grpc.StatusCode.UNAVAILABLE
        wait_until(lambda: len(self.server.lines("session interrupted")) > before, "it is noticed")

    def come_back(self):
        """Asks to go on over a new connection; the greeting."""
        self.channel.close()
        self.channel = returning(self.server, self.proxy.address, self.welcome.session)
        return self.resume(self.channel, self.welcome.session, self.welcome.token)

    def goes_on(self, greeting) -> None:
        """Asks again what the server has not got."""
        assert (greeting.seq, greeting.welcome.session) == (0, self.welcome.session)
        last, self.sent = self.sent, greeting.ack
        while self.sent < last:
            self.ask()


def returning(server: Server, address: str, session: str, user: Path | None = None):
    return channel(user or server.pool.user, address, name=f"{session}.{SERVER_NAME}")


@pytest.fixture
def server(start_server) -> Server:
    return start_server("--grace", "600")


@pytest.fixture
def owner(stubs, server: Server) -> Iterator[Owner]:
    with Proxy(server.address) as proxy:
        owner = Owner(stubs, server, proxy)
        yield owner
        owner.finish()
        owner.channel.close()


def test_a_session_that_was_cut_goes_on_in_order(owner: Owner) -> None:
    server = owner.server
    assert owner.welcome.token
    assert owner.welcome.grace_ms == 600_000
    for _ in range(3):
        assert owner.is_answered()
    # Of five answers three are lost on the way, and of five more questions perhaps all.
    acknowledged = owner.received
    answered = []
    for _ in range(5):
        answered.append(owner.ask(acknowledged))
        assert owner.receive().replies == answer(answered[-1])
    asked = [owner.ask(acknowledged) for _ in range(5)]
    owner.cut()
    owner.received = acknowledged + 2
    greeting = owner.come_back()
    assert answered[-1] <= greeting.ack <= asked[-1]
    owner.goes_on(greeting)
    assert owner.hears(answered[2:] + asked)
    assert owner.is_answered()
    wait_until(lambda: len(server.lines("session resumed")) == 1, "it is logged")
    owner.send(bye=owner.messages.Bye())
    owner.finish()
    wait_until(lambda: bool(server.lines("session end")), "the end")
    (end,) = server.lines("session end")
    assert (end["level"], end["calls"]) == ("info", 14)


def test_an_answer_waits_for_nothing_that_comes_with_its_question(owner: Owner) -> None:
    for token in range(1, 4):
        owner.proxy.stall(UP)
        ticket = owner.ask()
        # No call, but there when the server has to decide whether more calls follow.
        owner.send(ping=owner.messages.Ping(token=token))
        time.sleep(0.3)
        owner.proxy.flow()
        frames = [owner.receive(), owner.receive()]
        assert {frame.WhichOneof("body") for frame in frames} == {"replies", "pong"}
        assert answer(ticket) in [frame.replies for frame in frames]


def test_a_session_is_cut_again_and_again(owner: Owner) -> None:
    for _ in range(5):
        asked = [owner.ask() for _ in range(4)]
        owner.cut()
        owner.goes_on(owner.come_back())
        assert owner.hears(asked)
    wait_until(lambda: len(owner.server.lines("session resumed")) == 5, "they are logged")


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"token": bytes(32)}, "its token is another"),
        ({"token": b""}, "its token is another"),
        ({"session": UNKNOWN}, "its token is another"),
        ({"user": "mallory"}, "it is another client's"),
        ({"place": UNKNOWN}, "it has ended, or the server was started anew"),
    ],
    ids=["wrong-token", "no-token", "another-name", "another-user", "unknown-session"],
)
def test_nobody_else_gets_the_session(
    stubs, owner: Owner, tmp_path: Path, changed: dict[str, object], cause: str
) -> None:
    assert owner.is_answered()
    server, welcome = owner.server, owner.welcome
    right = {"session": welcome.session, "token": welcome.token, "place": welcome.session}
    shown = {**right, "user": "alice", **changed}
    user = server.pool.user
    if shown["user"] != "alice":
        user = tmp_path / "another"
        issued = server.pool.authority.issue_user("research", shown["user"])
        save_user(user, (server.pool.user / "ca.pem").read_bytes(), issued)
    thief = Session(stubs, minor=1)
    with returning(server, server.address, shown["place"], user) as thief_channel:
        greeting = thief.resume(thief_channel, shown["session"], shown["token"])
        assert greeting.seq == 0
        assert greeting.refused.reason == thief.messages.Refused.REASON_SESSION
        assert greeting.refused.text == cause
        with pytest.raises(grpc.RpcError) as refused:
            next(thief.incoming)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert refused.value.details() == cause
        thief.finish()
    assert cause in refusal(server)
    goes_on_undisturbed(owner)


@pytest.mark.parametrize(("number", "resumes"), [(1, True), (2, True), (0, False)])
def test_a_greeting_with_the_wrong_number_resumes_nothing(
    stubs, owner: Owner, number: int, resumes: bool
) -> None:
    """A hello that resumes stands outside of the count, and no other does."""
    assert owner.is_answered()
    welcome = owner.welcome
    stranger = Session(stubs, minor=1)
    shown = stranger.messages.Resume(session=welcome.session, token=welcome.token)
    hello = stranger.hello(resume=shown) if resumes else stranger.hello()
    with returning(owner.server, owner.server.address, welcome.session) as stranger_channel:
        with pytest.raises(grpc.RpcError):
            stranger.greet(stranger_channel, number, hello)
        stranger.finish()
    assert "another session's number" in refusal(owner.server) or number == 2
    goes_on_undisturbed(owner)


def test_the_name_of_a_session_opens_no_other(stubs, owner: Owner) -> None:
    assert owner.is_answered()
    with returning(owner.server, owner.server.address, owner.welcome.session) as channel:
        stranger = Session(stubs, minor=1).begin(channel)
        refused = stranger.receive().refused
        stranger.finish()
    assert refused.text == "the server name is its own, and no token was shown"
    assert refused.text in refusal(owner.server)
    goes_on_undisturbed(owner)


@pytest.mark.parametrize("received", [1, 5000], ids=["forgotten", "never-sent"])
def test_what_is_not_kept_is_not_sent_again(owner: Owner, received: int) -> None:
    """The server keeps what was not acknowledged; its client may then still come back rightly."""
    for _ in range(4):
        assert owner.is_answered()
    owner.cut()
    has, owner.received = owner.received, received
    refused = owner.come_back().refused
    assert refused.text == "it has gone on without this client"
    assert refused.text in refusal(owner.server)
    owner.received = has
    owner.goes_on(owner.come_back())
    assert owner.is_answered()


def test_a_call_that_has_arrived_is_not_taken_twice(owner: Owner) -> None:
    for _ in range(4):
        assert owner.is_answered()
    owner.cut()
    greeting = owner.come_back()
    assert greeting.ack == owner.sent
    owner.sent -= 1
    owner.ask()
    with pytest.raises(grpc.RpcError):
        owner.receive()
    wait_until(lambda: bool(owner.server.lines("session end")), "the end")
    (end,) = owner.server.lines("session end")
    assert end["cause"] == f"the peer sent frame {owner.sent} where {owner.sent + 1} was next"
    assert end["calls"] == 4


def refusal(server: Server) -> str:
    """What the server says about the one connection that it has refused."""
    wait_until(lambda: bool(server.lines("connection refused")), "a line")
    (line,) = server.lines("connection refused")
    assert line["level"] == "warning"
    assert str(line["address"]).startswith("127.0.0.1:")
    return str(line["cause"])


def goes_on_undisturbed(owner: Owner) -> None:
    """It goes on over the connection that it has, and can still come back over another."""
    assert owner.is_answered()
    assert not owner.server.lines("session interrupted")
    owner.cut()
    owner.goes_on(owner.come_back())
    assert owner.is_answered()
