"""The README's real pool, from its first start to failover: two schedulers on one PostgreSQL, two
servers and a host that join, a CuPy program on two devices of two servers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.environment import clients_python
from clients.toolkit import HERE as CLIENTS
from scheduler.cluster import Cluster, end, first_line
from scheduler.store.postgres import Postgres


@pytest.fixture
def cluster(tmp_path: Path, postgres: Postgres) -> Iterator[Cluster]:
    """A pool that begins with nothing; everybody but its admin joins with a token."""
    cluster = Cluster(tmp_path, postgres.new_database(), is_new=True)
    cluster.scheduler("scheduler-1", "--pool", "lab")
    cluster.wait(lambda: '"leads"' in cluster.log("scheduler-1"), "the first one leads")
    cluster.scheduler("scheduler-2")
    for server in ("gpu1", "gpu2"):
        join(cluster, "server", server, f"servers/{server}")
        cluster.server(server)
    join(cluster, "user", "alice", "alice")
    join(cluster, "host", "web1", "web1")
    schedulers = [word for address in cluster.schedulers for word in ("--scheduler", address)]
    cluster.start("host", ["host", *schedulers, "--credentials", str(tmp_path / "web1")])
    yield cluster
    cluster.close()


def join(cluster: Cluster, role: str, name: str, into: str) -> None:
    joined = cluster.join(cluster.token("--role", role, "--name", name), into)
    assert joined.returncode == 0, joined.stderr


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def states(cluster: Cluster) -> dict[str, str]:
    return {lease["name"]: lease["state"] for lease in cluster.get("lease")}


def attach(cluster: Cluster) -> str:
    words = ["attach", "web1", "--tenant", "default", "--user", "alice", "--count", "2"]
    return said(cluster.harp(*words, "--name", "training", "--wait"))


def test_a_pool_of_two_servers_from_attach_to_failover(cluster: Cluster) -> None:
    devices = said(cluster.harp("get", "devices", "-o", "name")).split()
    assert devices == ["device/gpu1/0", "device/gpu2/0"]
    assert attach(cluster) == "training: Available on gpu1/0, gpu2/0"

    program = cluster.run(
        host="web1", program=[str(clients_python()), str(CLIENTS / "cupy_two_devices.py")]
    )
    status, out, err = end(program, 120)
    assert status == 0, f"{out}\n{err}"

    # Detached under load: not while a program uses it, and then when it has ended.
    program = cluster.run(host="web1")
    assert first_line(program) == "using 2"
    refused = cluster.harp("detach", "training", "--tenant", "default")
    assert refused.returncode == 5
    assert "programs use it" in refused.stderr
    said(cluster.harp("detach", "training", "--tenant", "default", "--drain"))
    second = end(cluster.run(host="web1"))
    assert "training: Detaching" in second[2]
    assert end(program)[:2] == (0, "ended")
    cluster.wait(lambda: not states(cluster), "it is detached")

    # A server is emptied: its lease waits for two devices, and has them when it is back.
    attach(cluster)
    program = cluster.run(host="web1")
    assert first_line(program) == "using 2"
    said(cluster.harp("drain", "gpu1"))
    assert states(cluster) == {"training": "Detaching"}
    assert end(program)[:2] == (0, "ended")
    cluster.wait(lambda: states(cluster) == {"training": "Starting"}, "it waits for devices")
    said(cluster.harp("uncordon", "gpu1"))
    cluster.wait(lambda: states(cluster) == {"training": "Available"}, "it has them again")

    # The scheduler that leads is killed: the program does not notice.
    program = cluster.run(host="web1")
    assert first_line(program) == "using 2"
    cluster.kill("scheduler-1")
    cluster.wait(lambda: states(cluster) == {"training": "InUse"}, "another scheduler leads")
    assert end(program)[:2] == (0, "ended")
    cluster.wait(lambda: states(cluster) == {"training": "Available"}, "it is unused")
    assert said(cluster.harp("detach", "training", "--tenant", "default")) == "training: detached"


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_sees_the_devices_of_its_lease_and_no_others(cluster: Cluster, count: int) -> None:
    probe = [sys.executable, "-m", "harp_client.probe"]
    status, out, err = end(cluster.run("--gpus", str(count), program=probe))
    assert status == 0, err
    assert out.count("HARP Soft GPU") == count
