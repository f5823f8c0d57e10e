"""Agent and scheduler cut off from each other, either way: who uses a device, and until when."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.cluster import Cluster, end, first_line
from weather.proxy import DOWN, UP, Proxy

GRACE = 8.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, grace=GRACE)
    cluster.scheduler()
    yield cluster
    cluster.close()


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """Between the agent of gpu1 and the scheduler; a device of gpu1 is attached to host web1."""
    with Proxy(cluster.addresses["scheduler"]) as proxy:
        cluster.server("gpu1", schedulers=[proxy.address])
        attached = cluster.harp(
            *("attach", "web1", "--tenant", "default", "--user", "alice"),
            *("--name", "work", "--wait"),
        )
        assert attached.returncode == 0, attached.stderr
        yield proxy


def state(cluster: Cluster) -> str:
    (lease,) = cluster.get("lease")
    return str(lease["state"])


def test_a_short_cut_is_seen_and_harms_nobody(cluster: Cluster, proxy: Proxy) -> None:
    program = cluster.run(host="web1")
    assert first_line(program).startswith("using")
    proxy.refuse = True
    proxy.cut()
    cluster.wait(lambda: state(cluster) == "Unavailable", "it is out of reach")
    proxy.refuse = False
    cluster.wait(lambda: state(cluster) == "InUse", "it is in use again")
    assert end(program)[:2] == (0, "ended")


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_after_the_grace_the_server_has_ended_what_the_scheduler_gives_away(
    cluster: Cluster, proxy: Proxy, direction: str
) -> None:
    program = cluster.run(host="web1")
    assert first_line(program).startswith("using")
    proxy.stall(direction)
    # Cut off from the scheduler, the server ends it by its own clock.
    status, said, _ = end_by_itself(program)
    assert (status, said.split()[0]) == (3, "failed")
    assert "no word from the scheduler for the leases' grace" in cluster.log("gpu1")
    if direction == UP:
        cluster.wait(lambda: state(cluster) == "Lost", "it is lost")
    proxy.flow()
    if direction == UP:
        cluster.wait(lambda: cluster.get("server")[0]["connected"], "the server is back")
        assert cluster.harp("start", "work", "--tenant", "default").returncode == 0
    cluster.wait(lambda: state(cluster) == "Available", "it can be used again")
    again = cluster.run(host="web1")
    assert first_line(again).startswith("using")
    assert end(again)[:2] == (0, "ended")


def test_while_no_scheduler_answers_programs_go_on_until_the_grace_is_over(
    cluster: Cluster, proxy: Proxy
) -> None:
    program = cluster.run(host="web1")
    assert first_line(program).startswith("using")
    cluster.kill("scheduler")
    status, said, _ = end_by_itself(program)
    assert (status, said.split()[0]) == (3, "failed")
    cluster.scheduler()
    # It was never lost: nobody was there to give it away.
    cluster.wait(lambda: state(cluster) == "Available", "it can be used again")


def end_by_itself(program: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The end of a program that is not told to end."""
    program.wait(60)
    return end(program)
