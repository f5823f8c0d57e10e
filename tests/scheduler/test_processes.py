"""The real processes of a pool: scheduler, servers, `harp` and `harp-run`, with kills."""

from __future__ import annotations

import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harp_scheduler.commands import FEW_FILES
from harp_server.ca import Authority, save_user
from pool.standins import HARP
from scheduler.cluster import BOUND, PROGRAM, Cluster, end, first_line, native_with_worker

OBEDIENT = [sys.executable, str(Path(__file__).parents[1] / "pool" / "obedient_program.py")]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One scheduler, one server with two devices."""
    cluster = Cluster(tmp_path)
    cluster.scheduler()
    cluster.server("gpu1", 2)
    yield cluster
    cluster.close()


def states(cluster: Cluster) -> dict[str, str]:
    return {lease["name"]: lease["state"] for lease in cluster.get("lease")}


def attach(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    """Attaches a device to host web1, for alice."""
    return cluster.harp(
        *("attach", "web1", "--tenant", "default", "--user", "alice", "--name", "work", "--wait")
    )


def test_a_host_uses_what_is_attached_to_it_until_it_is_detached(cluster: Cluster) -> None:
    attached = attach(cluster)
    assert attached.returncode == 0, attached.stderr
    assert attached.stdout.startswith("work: Available on gpu1/")
    refused = end(cluster.run(user="bob", host="web2"))
    assert refused[0] == 125
    assert "nothing is attached to host web2" in refused[2]
    program = cluster.run(host="web1")
    assert first_line(program).startswith("using")
    cluster.wait(lambda: states(cluster) == {"work": "InUse"}, "it is in use")

    in_use = cluster.harp("detach", "work", "--tenant", "default")
    assert in_use.returncode == 5
    assert "not detached: a program uses it. Next: add --drain to wait, or --force" in in_use.stderr
    draining = cluster.harp("detach", "work", "--tenant", "default", "--drain")
    assert draining.returncode == 0
    assert "Detaching" in draining.stdout
    assert end(program)[:2] == (0, "ended")
    cluster.wait(lambda: not states(cluster), "it is detached")


def test_forcing_ends_the_program_with_an_error_of_cuda(cluster: Cluster) -> None:
    attach(cluster)
    program = cluster.run(host="web1")
    assert first_line(program).startswith("using")
    forced = cluster.harp("detach", "work", "--tenant", "default", "--force")
    assert forced.returncode == 0, forced.stderr
    assert forced.stdout.strip() == "work: detached"
    status, out, err = end(program)
    assert (status, out.split()[0]) == (3, "failed")
    assert "the lease of this session was taken back" in err


def test_a_run_takes_a_lease_and_returns_it(cluster: Cluster) -> None:
    program = cluster.run("--gpus", "2")
    assert first_line(program) == "using 2"
    (lease,) = cluster.get("lease")
    assert [target["device"] for target in lease["targets"]] == ["gpu1/0", "gpu1/1"]
    assert end(program)[:2] == (0, "ended")
    assert not states(cluster)


def test_a_run_uses_devices_of_several_servers_at_once(cluster: Cluster) -> None:
    cluster.server("gpu2", 2)
    program = cluster.run("--gpus", "3", program=OBEDIENT)
    assert first_line(program) == "init 0"
    (lease,) = cluster.get("lease")
    servers = [target["device"].split("/")[0] for target in lease["targets"]]
    assert sorted(set(servers)) == ["gpu1", "gpu2"]
    assert tell(program, "devices").startswith("3 ")
    for device in range(3):
        assert tell(program, f"kernel {device}") == "0"
    for pair in ("0 1", "1 2", "2 0"):
        assert tell(program, f"copy {pair}") == "0", pair
    # The fourth device is nobody's, and not this program's.
    assert tell(program, "retain 3") == "101"
    other = cluster.run("--gpus", "1")
    assert first_line(other) == "using 1"
    assert [end(running)[0] for running in (other, program)] == [0, 0]
    assert not states(cluster)


def test_a_server_lends_only_the_devices_that_it_offers(cluster: Cluster) -> None:
    cluster.server("gpu2", 3, "--devices", "2,1", "--metrics", "127.0.0.1:0")
    offered = [found["id"] for found in cluster.get("device")]
    assert sorted(offered) == ["gpu1/0", "gpu1/1", "gpu2/1", "gpu2/2"]
    _, told = cluster.metrics("gpu2")
    assert [number for number in range(3) if f'gpu="{number}"' in told] == [1, 2]
    program = cluster.run("--gpus", "4", program=OBEDIENT)
    assert first_line(program) == "init 0"
    assert tell(program, "devices").startswith("4 ")
    for device in range(4):
        assert tell(program, f"kernel {device}") == "0"
    assert end(program)[0] == 0


def tell(program: subprocess.Popen[str], line: str) -> str:
    """Has a program do something; what it answers."""
    assert program.stdin is not None
    print(line, file=program.stdin, flush=True)
    return first_line(program)


def test_a_killed_run_returns_its_lease(cluster: Cluster) -> None:
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")
    program.kill()
    program.communicate()
    cluster.wait(lambda: not states(cluster), "the lease is returned")


def test_without_room_a_run_queues_says_its_place_and_leaves_on_ctrl_c(cluster: Cluster) -> None:
    first = cluster.run("--gpus", "2")
    assert first_line(first).startswith("using")
    second, third = cluster.run("--gpus", "1"), cluster.run("--gpus", "1", "--queue-timeout", "1s")
    status, _, err = end(third)
    assert status == 125
    assert "no device after 1 s in the queue" in err
    cluster.wait(lambda: len(cluster.get("queue")) == 1, "one waits")
    second.send_signal(signal.SIGINT)
    status, _, err = end(second)
    assert status == 130
    assert "waits for a device: place 1 in the queue (no capacity" in err
    assert not cluster.get("queue")
    waiting = cluster.run("--gpus", "1")
    cluster.wait(lambda: len(cluster.get("queue")) == 1, "one waits again")
    assert end(first)[0] == 0
    assert first_line(waiting).startswith("using")
    assert end(waiting)[0] == 0


def test_sessions_need_a_lease_of_their_own(cluster: Cluster) -> None:
    without = end(cluster.run("--server", cluster.addresses["gpu1"], program=PROGRAM, user="alice"))
    assert "take a lease" in without[2]
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")
    (lease,) = cluster.get("lease")
    foreign = end(
        cluster.run(
            *("--server", cluster.addresses["gpu1"]),
            *("--server-name", f"{lease['id']}.lease.harp-server", "--ptx"),
            user="bob",
        )
    )
    assert "the lease belongs to others" in foreign[2]
    assert end(program)[0] == 0


def test_programs_go_on_while_the_scheduler_is_killed_and_started_again(cluster: Cluster) -> None:
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")
    cluster.kill("scheduler")
    cluster.scheduler()
    cluster.wait(lambda: list(states(cluster).values()) == ["InUse"], "it is still in use")
    assert end(program)[:2] == (0, "ended")
    cluster.wait(lambda: not states(cluster), "the lease is returned")


def test_a_killed_agent_takes_its_sessions_along_and_its_lease_comes_back(cluster: Cluster) -> None:
    attach(cluster)
    program = cluster.run(host="web1")
    assert first_line(program).startswith("using")
    cluster.kill("gpu1")
    cluster.wait(lambda: states(cluster) == {"work": "Unavailable"}, "it is out of reach")
    assert end(program)[1].startswith("failed")
    cluster.server("gpu1", 2)
    cluster.wait(lambda: states(cluster) == {"work": "Available"}, "it is back")


def test_orders_that_cannot_be_stored_are_taken_when_they_can_be(cluster: Cluster) -> None:
    state = cluster.folder / "servers" / "gpu1" / "state"
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")
    cluster.wait(lambda: len(cluster.get("session")) == 1, "its session is told of")
    stored = (state / "leases.json").read_text()
    in_the_way = state / ".leases.json.new"
    in_the_way.mkdir()
    waiting = cluster.run("--gpus", "1")
    cluster.wait(lambda: '"orders not taken"' in cluster.log("gpu1"), "the server says why")
    assert len(cluster.get("session")) == 1, "no other session begins, and this one goes on"
    assert (state / "leases.json").read_text() == stored
    in_the_way.rmdir()
    assert first_line(waiting).startswith("using")
    assert [end(running)[0] for running in (program, waiting)] == [0, 0]


def test_only_operators_steer_and_what_is_not_there_is_said_to_be(cluster: Cluster) -> None:
    denied = cluster.harp("cordon", "gpu1", user="alice")
    assert denied.returncode == 4
    assert "alice is not operator of the pool. Next: ask an admin" in denied.stderr
    missing = cluster.harp("detach", "nothing")
    assert missing.returncode == 3
    assert "there is no lease nothing. Next: harp get leases" in missing.stderr
    assert cluster.harp("cordon", "gpu1/0").returncode == 0
    assert [device["unusable"] for device in cluster.get("device")] == ["cordoned", ""]
    table = cluster.harp("get", "devices").stdout.splitlines()
    assert table[0].split()[:4] == ["ID", "STATE", "KIND", "MODEL"]
    assert table[1].split()[:3] == ["gpu1/0", "cordoned", "gpu"]


def test_without_a_scheduler_it_is_said_which_was_tried(cluster: Cluster) -> None:
    cluster.kill("scheduler")
    done = cluster.harp("get", "devices")
    assert done.returncode == 6
    assert f"no scheduler at {cluster.addresses['scheduler']} leads" in done.stderr


def test_only_tls_1_3_and_only_with_a_certificate_of_the_pool(cluster: Cluster) -> None:
    host, _, port = cluster.addresses["scheduler"].rpartition(":")

    def is_let_in(version: ssl.TLSVersion, user: str | None) -> bool:
        context = ssl.create_default_context(cafile=cluster.folder / "alice" / "ca.pem")
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        if user is not None:
            folder = cluster.folder / user
            context.load_cert_chain(folder / "client.pem", folder / "client.key")
        try:
            with (
                socket.create_connection((host, int(port)), timeout=BOUND) as plain,
                context.wrap_socket(plain, server_hostname="harp-scheduler") as secured,
            ):
                return secured.recv(1) != b""  # the settings of HTTP/2
        except (ssl.SSLError, ConnectionError):
            return False

    assert is_let_in(ssl.TLSVersion.TLSv1_3, "alice")
    assert not is_let_in(ssl.TLSVersion.TLSv1_2, "alice")
    assert not is_let_in(ssl.TLSVersion.TLSv1_3, None)
    stranger = Authority.create("lab")
    save_user(cluster.folder / "mallory", b"", stranger.issue_user("default", "mallory"))
    assert not is_let_in(ssl.TLSVersion.TLSv1_3, "mallory")


@pytest.mark.parametrize("most", [300, FEW_FILES])
def test_a_scheduler_has_as_many_files_as_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    limited = ["prlimit", f"--nofile=256:{most}", *HARP]
    monkeypatch.setattr("scheduler.cluster.HARP", limited)
    cluster = Cluster(tmp_path)
    try:
        cluster.scheduler()
        pid = cluster.started["scheduler"].pid
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == most
        assert ("few files" in cluster.log("scheduler")) == (most < FEW_FILES)
    finally:
        cluster.close()


def test_devices_whose_workers_do_not_start_are_taken_out_until_they_do(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    script = f'[ -e {broken} ] && exit 1\nexec $WORKER "$@"'
    cluster = Cluster(tmp_path)
    try:
        cluster.scheduler()
        cluster.own_environ["gpu1"] = native_with_worker(tmp_path, script)
        cluster.server("gpu1")
        broken.touch()
        # This one takes the worker that is idle; the next ones do not start.
        assert end(cluster.run("--gpus", "1"))[0] == 0
        cluster.wait(lambda: cluster.get("device")[0]["unusable"] == "faulty", "it is taken out")
        assert cluster.get("device")[0]["fault"].startswith("workers do not start: ")
        waiting = cluster.run("--gpus", "1", "--queue-timeout", "1s")
        assert "faulty" in end(waiting)[2]
        broken.unlink()
        cluster.wait(lambda: not cluster.get("device")[0]["unusable"], "it is back")
        assert end(cluster.run("--gpus", "1"))[0] == 0
    finally:
        cluster.close()
