"""What a child of the agent can do to it: its last words, and what a worker says of its session."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from harp_api.control.v1 import agent_pb2 as control
from harp_server.logs import Log
from harp_server.process import Process, allow_files, end_all
from harp_server.session import EVENTS_MAX, Session, Totals
from pool.standins import BOUND

SAYS = """
import json, socket, sys
control = socket.socket(fileno=int(sys.argv[1]))
for packet in json.loads(sys.argv[2]):
    control.send(packet.encode())
"""


def said_at_once(*packets: str, refused: str = "") -> tuple[int, list[Any], list[str]]:
    """Has a child say something and end before the agent comes to hear it. Its exit status, what
    was heard, and what has failed; `refused`: a message that whoever hears it fails at."""
    heard: list[Any] = []
    failed: list[str] = []

    def hear(message: dict[str, Any], _: int | None) -> None:
        if json.dumps(message) == refused:
            raise RuntimeError(refused)
        heard.append(message)

    async def run() -> int:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: failed.append(str(context.get("exception")))
        )
        process = Process(
            lambda control: [sys.executable, "-c", SAYS, str(control), json.dumps(packets)],
            os.environ,
            hear,
            lambda line: failed.append(line),
        )
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        async with asyncio.timeout(BOUND):
            return await process.exited

    return asyncio.run(run()), heard, failed


@pytest.mark.parametrize("nonsense", ["no JSON", "[1]", "[" * 60_000])
def test_the_end_of_a_child_is_seen_though_its_last_words_are_nonsense(nonsense: str) -> None:
    assert said_at_once("{}", nonsense) == (0, [{}], [])


def test_the_end_of_a_child_is_seen_though_its_last_words_cannot_be_taken() -> None:
    last = '{"event": "end"}'
    assert said_at_once("{}", last, refused=last) == (0, [{}], [last])


def test_a_child_that_cannot_be_watched_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def refuse(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    async def run() -> None:
        monkeypatch.setattr(os, "pidfd_open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            Process(lambda _: ["sleep", "3600"], os.environ, lambda *_: None, lambda _: None)
        await asyncio.sleep(0)  # its output is at its end

    before = set(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(started[0], 0)


def test_a_child_that_cannot_be_killed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but a driver makes one: here no signal reaches it for a while."""

    async def run() -> None:
        stuck, other = (
            Process(lambda _: ["sleep", "3600"], os.environ, lambda *_: None, lambda _: None)
            for _ in range(2)
        )
        monkeypatch.setattr(stuck, "signal", lambda _: None)
        assert await end_all([stuck, other]) == [stuck]
        assert (stuck.alive, other.alive) == (True, False)
        os.kill(stuck.pid, signal.SIGKILL)
        async with asyncio.timeout(BOUND):
            assert await stuck.exited == -signal.SIGKILL

    monkeypatch.setattr("harp_server.process.KILL_SECONDS", 0.1)
    asyncio.run(run())


def test_no_more_files_are_asked_for_than_the_system_has(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert allow_files(200) == 200
    assert limits == [(256, 4096)]
    assert allow_files(8000) == 4096
    assert limits[-1] == (4096, 4096)


def worker() -> Any:
    """What a session knows of a worker, which has ended well."""
    exited = asyncio.get_running_loop().create_future()
    exited.set_result(0)
    return SimpleNamespace(process=SimpleNamespace(pid=1, exited=exited))


HOSTILE: tuple[dict[str, Any], ...] = (
    *({"pid": -1}, {"pid": 1 << 40}, {"pid": "1"}, {"peer": "\ud800"}, {"program": ["\udfff"]}),
    *({"self": 1}, {"level": 1}, {"exc_info": 1}, {"stack": 1}, {"": 1}),
    *({"cause": {"a": [[1]]}}, {"code": [[[]]]}, {"calls": 1 << 9999}, {"waits": -1}),
)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_worker_may_say_anything_of_its_session(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        for fields in HOSTILE:
            told: list[control.Running] = []

            def tell(session: Session, told: list[control.Running] = told) -> None:
                about = {"user": session.user, "program": session.program}
                told.append(control.Running(session=session.id, pid=session.pid, **about))

            session = Session("s", "here", worker(), Log(form, "debug"), Totals(), tell)
            for event in ("start", "interrupted", "resumed", "not_resumed", "other", "end"):
                session.event({"event": event} | fields)
            await session.run()
            assert len(told) == 1
            assert 0 <= sum(session.totals.counted.values()) < 1 << 63

    asyncio.run(run())
    assert capsys.readouterr().err.count("session end") == len(HOSTILE)


def test_a_session_stays_whose_it_is_and_does_not_fill_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def run() -> None:
        starts: list[Session] = []
        session = Session("s", "here", worker(), Log("json"), Totals(), starts.append)
        for name in ("alice", "bob"):
            session.event({"event": "start", "serial": name, "peer": name, "program": name})
        assert (session.serial, session.user, session.program) == ("alice",) * 3
        assert (len(starts), session.totals.started) == (1, 1)
        for _ in range(EVENTS_MAX):
            session.event({"event": "interrupted", "cause": "none"})
            session.event({"event": "resumed"})
        await session.run()

    asyncio.run(run())
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert (events[0], events[-2:]) == ("session start", ["session says too much", "session end"])
    assert len(events) == 1 + EVENTS_MAX + 2
