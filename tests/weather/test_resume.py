"""Connections that break, and programs that do not notice; or that are told in one line."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pool.standins import HARP_RUN, Server, wait_until
from programs import build
from weather.proxy import DOWN, UP, Proxy

TESTS = Path(__file__).resolve().parents[1]
DRIVER_PROGRAM = [sys.executable, str(TESTS / "pool/driver_program.py")]
DEVICE_UNAVAILABLE = 46
BOUND = 120.0
"""Seconds after which something hangs."""


class Program:
    """A program under harp-run, on a server behind a proxy."""

    def __init__(
        self,
        environ: dict[str, str],
        server: Server,
        proxy: Proxy,
        *command: str,
        **settings: str,
    ) -> None:
        at = ["--server", proxy.address, "--credentials", str(server.pool.user)]
        self.process = subprocess.Popen(
            [*HARP_RUN, "--stats", *at, "--", *command],
            env=environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._readers = [
            threading.Thread(target=lines.extend, args=(stream,), daemon=True)
            for lines, stream in (
                (self.stdout, self.process.stdout),
                (self.stderr, self.process.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    def finish(self) -> int:
        """Waits for its end; the exit status."""
        try:
            status = self.process.wait(BOUND)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for reader in self._readers:
            reader.join(BOUND)
        return status

    def has_said(self, text: str) -> bool:
        return any(text in line for line in list(self.stderr))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.finish()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def looping(environ: dict[str, str], server: Server, proxy: Proxy, **settings: str) -> Program:
    """A program that synchronises again and again, in the middle of its work."""
    program = Program(environ, server, proxy, *DRIVER_PROGRAM, "loop", **settings)
    wait_until(lambda: len(program.stdout) > 10, "the program works", BOUND)
    return program


def goes_on(program: Program) -> None:
    before = len(program.stdout)
    wait_until(lambda: len(program.stdout) > before + 3, "the program goes on", BOUND)


PROGRAMS = [
    ("copies", 170, 250_000),
    ("streams_events", 170, 60_000),
    ("host_callback", 160, 10_000),
]
"""Programs, at how many moments the connection is reset, and bytes between two of them at most."""


@pytest.mark.parametrize(("name", "moments", "spread"), PROGRAMS)
def test_a_program_does_not_notice(
    environ: dict[str, str],
    start_server: Callable[..., Server],
    name: str,
    moments: int,
    spread: int,
) -> None:
    """Every connection is reset after a random number of bytes in a random direction: within a
    handshake, a record, a repetition. What the program prints is what it prints without."""
    binary = str(build.build(name, build.programs()[name].variants[0]))
    server = start_server()
    with Proxy(server.address) as proxy:
        calm = Program(environ, server, proxy, binary)
        assert calm.finish() == 0, calm.stderr
        for seed in range(1, 61):
            numbers = random.Random(f"{name} {seed}")

            def share(_number: int, numbers: random.Random = numbers) -> dict[str, int]:
                return {numbers.choice((UP, DOWN)): numbers.randrange(1, spread)}

            proxy.share = share
            # What the server knows from the run before need not travel; in most runs all does.
            again = "1" if seed % 4 == 0 else "0"
            rough = Program(environ, server, proxy, binary, HARP_DEDUP=again)
            told = f"seed {name} {seed}: {proxy.cuts} cuts; {''.join(rough.stderr)}"
            assert rough.finish() == 0, told
            assert rough.stdout == calm.stdout, told
            assert not rough.has_said("lost"), told
            calm.stop()
            calm = rough
            if proxy.cuts >= moments:
                break
        calm.stop()
        assert proxy.cuts >= moments
    assert len(server.lines("session resumed")) > moments / 4
    wait_until(
        lambda: len(server.lines("session end")) >= seed + 1 - len(server.lines("session lost")),
        "the sessions end",
        BOUND,
    )


def test_damage_on_the_way_costs_a_connection(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    """TLS notices every changed bit; nothing of that record has been believed."""
    server = start_server()
    with Proxy(server.address) as proxy:
        program = looping(environ, server, proxy)
        for direction in (UP, DOWN):
            before = proxy.accepted
            proxy.corrupt_at(direction, proxy.carried(direction) + 100)
            wait_until(lambda: proxy.accepted > before, "another connection", BOUND)  # noqa: B023
            goes_on(program)
        program.stop()
    assert len(server.lines("session resumed")) >= 2


def test_a_dead_path_is_noticed_and_left(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    """Nobody is told that the packets of one connection vanish."""
    server = start_server()
    with Proxy(server.address) as proxy:
        program = looping(environ, server, proxy)
        proxy.freeze()
        wait_until(lambda: program.has_said("no sign of the pool server"), "a note", BOUND)
        wait_until(lambda: program.has_said("session resumed"), "another connection", BOUND)
        goes_on(program)
        program.stop()
    assert len(server.lines("session resumed")) == 1


def test_a_stalled_network_is_waited_for(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    server = start_server()
    with Proxy(server.address) as proxy:
        program = looping(environ, server, proxy)
        proxy.stall()
        wait_until(lambda: program.has_said("no sign of the pool server for"), "a note", BOUND)
        proxy.flow()
        goes_on(program)
        wait_until(
            lambda: program.has_said("is there again") or program.has_said("session resumed"),
            "another note",
            BOUND,
        )
        program.stop()


def test_a_network_that_stalls_for_ever_is_an_error(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    server = start_server()
    with Proxy(server.address) as proxy:
        program = looping(environ, server, proxy, HARP_RESUME_LIMIT="2")
        proxy.stall()
        assert program.finish() == 3
        assert program.stdout[-1].split()[1] == str(DEVICE_UNAVAILABLE)
        lost = [line for line in program.stderr if "lost" in line]
        assert len(lost) == 1, program.stderr
        assert "no sign of the peer for 10 s; not resumed within 2 s" in lost[0]
        program.stop()


def test_a_session_is_kept_for_its_grace_and_no_longer(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    server = start_server("--grace", "3")
    with Proxy(server.address) as proxy:
        program = looping(environ, server, proxy)
        (start,) = server.lines("session start")
        proxy.refuse = True
        begun = time.monotonic()
        proxy.cut()
        wait_until(lambda: bool(server.lines("session interrupted")), "a line", BOUND)
        wait_until(lambda: bool(server.lines("session lost")), "the end", BOUND)
        assert time.monotonic() - begun >= 3
        (end,) = server.lines("session end")
        assert end["cause"] == (
            "the connection was lost: reset by the peer, and not resumed within 3 s"
        )
        assert not os.path.exists(f"/proc/{start['worker']}")
        # The client was told of the grace: it gives up as well, in one line.
        assert program.finish() == 3
        assert program.stdout[-1].split()[1] == str(DEVICE_UNAVAILABLE)
        lost = [line for line in program.stderr if "lost" in line]
        assert len(lost) == 1, program.stderr
        assert "not resumed within 3 s" in lost[0]
        program.stop()


def test_a_session_that_is_gone_is_an_error_at_once(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    """The worker dies while the connection is away: nobody waits for the grace."""
    server = start_server("--grace", "600")
    with Proxy(server.address) as proxy:
        program = looping(environ, server, proxy, HARP_RESUME_LIMIT="600")
        (start,) = server.lines("session start")
        proxy.refuse = True
        proxy.cut()
        os.kill(int(str(start["worker"])), signal.SIGKILL)
        wait_until(lambda: bool(server.lines("session end")), "the end", BOUND)
        proxy.refuse = False
        assert program.finish() == 3
        assert program.stdout[-1].split()[1] == str(DEVICE_UNAVAILABLE)
        lost = [line for line in program.stderr if "lost" in line]
        assert len(lost) == 1, program.stderr
        assert "does not have the session any more" in lost[0]
        program.stop()
    (refused,) = server.lines("connection refused")
    assert "it has ended, or the server was started anew" in str(refused["cause"])


def test_a_program_may_end_while_the_connection_is_away(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    server = start_server("--grace", "2")
    with Proxy(server.address) as proxy:
        program = looping(environ, server, proxy)
        proxy.refuse = True
        proxy.cut()
        program.stop()
        wait_until(lambda: bool(server.lines("session lost")), "the end of the grace", BOUND)


def test_a_program_that_calls_nothing_keeps_its_session(
    environ: dict[str, str], start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """It computes on the host for longer than the grace; its connection is looked after."""
    server = start_server("--grace", "8")
    idle = tmp_path / "idle.py"
    text = Path(DRIVER_PROGRAM[1]).read_text()
    idle.write_text(text.replace("time.sleep(0.05)", "time.sleep(12)"))
    with Proxy(server.address) as proxy:
        program = Program(environ, server, proxy, sys.executable, str(idle), "loop")
        wait_until(lambda: bool(program.stdout), "a start", BOUND)
        wait_until(lambda: program.stdout[-1].startswith("cuCtxSync"), "a first call", BOUND)
        proxy.cut()
        wait_until(lambda: bool(server.lines("session resumed")), "a new connection", BOUND)
        wait_until(lambda: program.stdout.count("cuCtxSynchronize 0\n") > 1, "calls", BOUND)
        program.stop()
