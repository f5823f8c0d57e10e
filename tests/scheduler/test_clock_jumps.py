"""The wall clock of one part of a pool is set while a lease is used: hours away, and years."""

from __future__ import annotations

import asyncio
import datetime
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509

from harp_api.control.v1 import join_pb2 as api
from harp_client import credentials
from harp_server import ca
from harp_server.ca import Authority, SessionIssuer
from harp_server.logs import Log
from harp_server.renewal import Renewal
from pool.standins import HARP
from scheduler.clock import WallClock
from scheduler.cluster import Cluster, end, first_line, native_with_worker

HOUR, DECADE = 3600, 3660 * 86_400
PARTS = ("scheduler", "gpu1", "web1")


@pytest.fixture
def clocks(tmp_path: Path) -> dict[str, WallClock]:
    return {part: WallClock(tmp_path, part) for part in PARTS}


@pytest.fixture
def cluster(tmp_path: Path, clocks: dict[str, WallClock]) -> Iterator[Cluster]:
    """A scheduler, a server with two devices, and a host, each with a clock of its own."""
    cluster = Cluster(tmp_path)
    for part, clock in clocks.items():
        cluster.own_environ[part] = dict(clock.environ)
    # An agent's workers do not inherit what it is started with; they are on its machine's clock.
    set_clock = " ".join(f"{name}={value}" for name, value in clocks["gpu1"].environ.items())
    cluster.own_environ["gpu1"] |= native_with_worker(tmp_path, f'{set_clock} exec $WORKER "$@"')
    cluster.scheduler()
    cluster.server("gpu1", 2)
    words = ("attach", "web1", "--tenant", "default", "--user", "alice", "--name", "work", "--wait")
    assert cluster.harp(*words).returncode == 0
    yield cluster
    cluster.close()


def restart_scheduler(cluster: Cluster) -> None:
    """Its certificate, and that of everybody who comes back, is verified anew."""
    cluster.kill("scheduler")
    cluster.scheduler()
    cluster.wait(lambda: cluster.things().leases[0].state == "InUse", "the agent has come back")


def use(cluster: Cluster) -> tuple[object, ...]:
    """Which session uses the attachment, under which epoch, on what."""
    things = cluster.things()
    (lease,), (session,) = things.leases, things.sessions
    return lease.state, lease.epoch, lease.targets[0].device, session.name, session.lease


def begin(cluster: Cluster) -> tuple[subprocess.Popen[str], tuple[object, ...]]:
    """A program that uses the attachment, and how."""
    program = cluster.run(host="web1")
    assert first_line(program) == "using 1"
    cluster.wait(lambda: bool(cluster.things().sessions), "the session is known")
    before = use(cluster)
    assert before[0] == "InUse"
    return program, before


def test_a_jump_ends_no_session_and_grants_nothing_twice(
    cluster: Cluster, clocks: dict[str, WallClock]
) -> None:
    program, before = begin(cluster)
    for part, clock in clocks.items():
        for hours in (2, -2):
            clock.jump(hours * HOUR)
            if part == "scheduler":
                restart_scheduler(cluster)
            # A lease of its own, another session, and both ended; on the other device.
            status, out, error = end(cluster.run("--gpus", "1", host="web1"))
            assert (status, out) == (0, "using 1\nended"), (part, hours, error)
            assert use(cluster) == before, (part, hours)
        clock.jump(0)
    granted = [device.compute_leased for device in cluster.things().devices]
    assert sorted(granted) == [0, 1000]
    assert end(program)[:2] == (0, "ended")


def test_a_jump_beyond_all_certificates_is_told_in_a_line(
    cluster: Cluster, clocks: dict[str, WallClock]
) -> None:
    program, before = begin(cluster)

    def run() -> str:
        """What a run says that fails."""
        status, _, error = end(cluster.run("--gpus", "1", host="web1"))
        assert status in (3, 125)
        (line,) = error.splitlines()
        return line

    clocks["scheduler"].jump(DECADE)
    assert "by this machine's clock the scheduler's certificate is not valid yet" in run()
    clocks["scheduler"].jump(0)
    clocks["web1"].jump(DECADE)
    assert "/alice expired at " in run()
    # Of all certificates a scheduler's own, which live for a day, are the first to end.
    clocks["web1"].jump(3 * 24 * HOUR)
    late = subprocess.run(
        [*HARP, "get", "leases"],
        env=cluster.environ_of("admin") | clocks["web1"].environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert late.returncode == 6
    (line,) = late.stderr.splitlines()
    assert "leads: by this machine's clock the scheduler's certificate has expired. Next: " in line
    clocks["web1"].jump(0)
    clocks["gpu1"].jump(DECADE)
    assert "the clocks of the two differ by at least" in run()
    cluster.kill("scheduler")
    cluster.scheduler()
    said = "by this machine's clock the scheduler's certificate has expired"
    cluster.wait(lambda: said in cluster.log("gpu1"), "the agent says why it cannot connect")
    assert not cluster.things().servers[0].connected
    clocks["gpu1"].jump(0)
    cluster.wait(lambda: cluster.things().servers[0].connected, "the agent has come back")
    lines = cluster.log("gpu1").splitlines()
    assert sum(said in line for line in lines) == 1
    assert all(line.startswith("{") for line in lines)
    cluster.wait(lambda: bool(cluster.things().sessions), "the session is known again")
    assert use(cluster) == before
    assert end(program)[:2] == (0, "ended")


def test_a_certificate_that_a_wrong_clock_made_is_valid_by_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = datetime.datetime.now(datetime.UTC)
    authority = Authority.create("lab")
    server = authority.issue_server("gpu1")

    class Ahead(datetime.datetime):
        by = datetime.timedelta()

        @classmethod
        def now(cls, zone: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return real + cls.by

    module = SimpleNamespace(datetime=Ahead, timedelta=datetime.timedelta, UTC=datetime.UTC)
    monkeypatch.setattr(ca, "datetime", module)
    for hours in (11, -11):
        Ahead.by = datetime.timedelta(hours=hours)
        made = [
            authority.issue_scheduler("one", datetime.timedelta(days=1)).certificate,
            authority.issue_user("default", "alice", days=1).certificate,
            x509.load_pem_x509_certificate(server.issue("0" * 16)[0].encode()),
        ]
        for one in made:
            assert one.not_valid_before_utc < real < one.not_valid_after_utc, (hours, one.subject)
    # By a clock that is beyond the issuer's end, what it makes ends with the issuer.
    Ahead.by = datetime.timedelta(days=4000)
    late = x509.load_pem_x509_certificate(server.issue("0" * 16)[0].encode())
    assert late.not_valid_after_utc == server.intermediate.certificate.not_valid_after_utc


def test_an_agent_whose_clock_is_ahead_does_not_renew_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.create("lab")
    authority.issue_server("gpu1").save(tmp_path)
    day = datetime.timedelta(days=1)
    # By its clock each new certificate is in the second half of its life already.
    monkeypatch.setattr(credentials, "half_life", lambda found: found.not_valid_before_utc)
    renewed: list[SessionIssuer] = []

    async def sign(requests: api.Requests) -> api.Credentials:
        agent = authority.sign_agent("gpu1", ca.requested_key(requests.client), day)
        own = authority.sign_server("gpu1", ca.requested_key(requests.server), day)
        return api.Credentials(
            authority=authority.trusted_pem(), client=ca.pem(agent), server=ca.pem(own)
        )

    async def run() -> None:
        log = Log("json", "error")
        renewal = Renewal(tmp_path, SessionIssuer.load(tmp_path), sign, renewed.append, log)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(renewal.run(), 1.0)

    asyncio.run(run())
    assert len(renewed) == 1
