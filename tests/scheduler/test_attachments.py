"""Several leases that are attached to one host: what programs there see, and in which order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harp_api.control.v1 import pool_pb2 as api
from harp_client.attached import attached, chosen
from harp_client.errors import HarpError
from pool.standins import HARP
from scheduler.cluster import BOUND, Cluster, end, first_line

OBEDIENT = [sys.executable, str(Path(__file__).parents[1] / "pool" / "obedient_program.py")]
TRACE = Path(__file__).parents[1] / "replay" / "golden" / "v1.1" / "timed_add.htrace"
ALICE, BOB = (f"spiffe://lab/tenant/default/user/{name}" for name in ("alice", "bob"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One scheduler, two servers with one device each."""
    cluster = Cluster(tmp_path)
    cluster.scheduler()
    cluster.server("gpu1")
    cluster.server("gpu2")
    yield cluster
    cluster.close()


def attach(cluster: Cluster, name: str, *options: str, user: str = "alice") -> str:
    """Attaches a lease to host web1; the device that it is on."""
    words = ("attach", "web1", "--tenant", "default", "--user", user, "--name", name, "--wait")
    done = cluster.harp(*words, *options)
    assert done.returncode == 0, done.stderr
    (lease,) = cluster.get("lease", name)
    (target,) = lease["targets"]
    return str(target["device"])


def tell(program: subprocess.Popen[str], line: str) -> str:
    assert program.stdin is not None
    assert program.stdout is not None
    print(line, file=program.stdin, flush=True)
    return program.stdout.readline().strip()


def begin(cluster: Cluster, *options: str) -> subprocess.Popen[str]:
    program = cluster.run(*options, host="web1", program=OBEDIENT)
    assert first_line(program) == "init 0"
    return program


def answers(program: subprocess.Popen[str], count: int) -> list[str]:
    """What a program's devices answer when each of them is used and each runs a kernel."""
    return [
        tell(program, f"{verb} {device}") for device in range(count) for verb in ("use", "kernel")
    ]


def await_sessions(cluster: Cluster, leases: list[str]) -> None:
    """Waits until the scheduler has heard of just these sessions, by their leases."""

    def heard() -> list[str]:
        return sorted(session["lease_name"] for session in cluster.get("session"))

    cluster.wait(lambda: heard() == leases, f"sessions of {leases}")


def test_a_program_has_the_devices_of_all_leases_of_its_host(cluster: Cluster) -> None:
    first = attach(cluster, "first", "--compute", "50%")
    second = attach(cluster, "second", "--compute", "50%")
    assert first == second, "two leases on one device"
    program = begin(cluster)
    assert tell(program, "devices") == "2 0000:01:00.0 0100:01:00.0"
    third = attach(cluster, "third", "--compute", "100%")
    assert third != first
    # What runs keeps what it has; what begins now has the new device as its last.
    assert tell(program, "devices").startswith("2 ")
    later = begin(cluster)
    assert tell(later, "devices").split() == ["3", "0000:01:00.0", "0100:01:00.0", "0200:01:00.0"]
    assert answers(later, 3) == ["0"] * 6
    for pair in ("0 1", "1 2", "2 0"):
        assert tell(later, f"copy {pair}") == "0", pair
    assert answers(program, 2) == ["0"] * 4
    await_sessions(cluster, ["first", "first", "second", "second", "third"])
    (host,) = cluster.get("host", "web1")
    assert host["devices"] == [first, second, third]

    # One of its leases is taken from a program: that device fails, and no other.
    assert cluster.harp("detach", "second", "--tenant", "default", "--force").returncode == 0
    assert tell(later, "use 1") != "0"
    assert (tell(later, "use 0"), tell(later, "use 2")) == ("0", "0")
    for running in (program, later):
        end(running)

    alone = begin(cluster, "--lease", "third,first")
    assert tell(alone, "devices").startswith("2 ")
    await_sessions(cluster, ["first", "third"])
    end(alone)
    status, _, error = end(cluster.run("--lease", "second", host="web1"))
    assert status == 125
    assert "no lease second is attached to host web1. Next: there is first, third" in error


def test_what_cannot_be_used_is_left_out_and_doctor_and_describe_agree(cluster: Cluster) -> None:
    gone = attach(cluster, "gone").split("/")[0]
    here = attach(cluster, "here")
    assert not here.startswith(gone)
    cluster.kill(gone)
    cluster.wait(
        lambda: cluster.get("lease", "gone")[0]["state"] == "Unavailable", "its server is away"
    )
    program = begin(cluster, "-v")
    assert tell(program, "devices").startswith("1 ")
    _, _, error = end(program)
    line = f"gone: Unavailable, out of reach: {gone}"
    assert error.count(f"not used, though attached to this host: lease {line}") == 1
    quiet = begin(cluster)
    assert "not used" not in end(quiet)[2]

    cluster.wait(lambda: cluster.get("lease", "here")[0]["state"] == "Available", "nobody uses it")

    (host,) = cluster.get("host", "web1")
    assert (host["devices"], host["left_out"]) == ([here], [line])
    described = cluster.harp("describe", "host", "web1")
    assert line in described.stdout
    doctor = subprocess.run(
        [*HARP, "doctor", "-o", "json"],
        env=cluster.environ_of("alice") | {"HARP_HOST": "web1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = [f for f in json.loads(doctor.stdout) if f["name"] == "attachment"]
    assert [(f["ok"], f["text"]) for f in found] == [
        (True, f"here: Available, device 0 is {here} (HARP Soft GPU)"),
        (False, line),
    ]
    assert cluster.harp("detach", "here", "--tenant", "default", "--force").returncode == 0
    status, _, error = end(cluster.run(host="web1"), BOUND)
    assert status == 125
    assert f"nothing that is attached to host web1 can be used: {line}. Next: harp attach" in error


def lease(name: str, state: str = "Available", user: str = ALICE, reason: str = "") -> api.Lease:
    owner = "spiffe://lab/host/web1"
    return api.Lease(
        id=f"l-{name}",
        name=name,
        host="web1",
        owner=owner,
        users=[user],
        state=state,
        reason=reason,
    )


def test_leases_that_wait_or_are_for_others_are_left_out() -> None:
    leases = [
        lease("bobs", user=BOB),
        lease("waits", "Pending", reason="no capacity"),
        lease("b"),
        lease("a", "InUse"),
        lease("lost", "Lost"),
        api.Lease(id="l-run", owner=ALICE, state="InUse"),
    ]
    found = attached(leases, "web1", ALICE)
    assert [one.name for one in found.usable] == ["b", "a"]
    left_out = ["bobs: is for bob", "waits: Pending, no capacity", "lost: Lost"]
    assert [one.line for one in found.left_out] == left_out
    assert [one.name for one in chosen(found, "web1", ["a", "l-b", "a"]).usable] == ["a", "b"]
    with pytest.raises(HarpError, match="lease waits: Pending, no capacity"):
        chosen(found, "web1", ["a", "waits"])
    # The host's own certificate may use all of them.
    owned = attached(leases, "web1", "spiffe://lab/host/web1")
    assert [one.name for one in owned.usable] == ["bobs", "b", "a"]


def test_a_trace_is_replayed_on_what_is_attached(cluster: Cluster) -> None:
    command = [sys.executable, "-c", "from harp_replay.cli import main; main()", "run", str(TRACE)]
    environ = cluster.environ_of("alice") | {"HARP_HOST": "web1"}

    def replay(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, "--device", "pool", *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    status, told = replay()
    assert status == 2
    assert "harp-replay: the pool has no device for the replay, as is said above" in told
    attach(cluster, "one")
    status, told = replay()
    assert (status, "different 0\n" in told) == (0, True), told
    attach(cluster, "two")
    status, told = replay()
    assert status == 2
    assert "a replay uses one server, and these are several: " in told
    status, told = replay("--lease", "two")
    assert (status, "different 0\n" in told) == (0, True), told
