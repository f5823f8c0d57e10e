"""`harp doctor` of a host in a pool, of a server, and of a scheduler's state."""

from __future__ import annotations

import datetime
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harp_client.finding import certificate
from harp_client.pool_checks import SKEW, clock
from harp_server.ca import Authority, save_user
from pool.standins import HARP
from scheduler.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One scheduler, one server."""
    cluster = Cluster(tmp_path)
    cluster.scheduler()
    cluster.server("gpu1")
    yield cluster
    cluster.close()


def doctor(
    cluster: Cluster, *words: str, user: str = "alice", **environ: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status and findings by name; of several of a name the last that failed, or the last."""
    done = subprocess.run(
        [*HARP, "doctor", *words, "-o", "json"],
        env=cluster.environ_of(user) | environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout, done.stderr
    found: dict[str, dict[str, Any]] = {}
    for finding in json.loads(done.stdout):
        name = finding["name"]
        if name not in found or found[name]["ok"]:
            found[name] = finding
    return done.returncode, found


def test_a_host_of_a_pool(cluster: Cluster) -> None:
    status, found = doctor(cluster, HARP_HOST="web1")
    assert status == 0, found
    assert found["certificate"]["text"].startswith("spiffe://lab/tenant/default/user/alice, valid")
    assert found["scheduler"]["text"].endswith("1 of 1 servers are connected, 1 of 1 devices ready")
    assert found["clock"]["ok"]
    assert found["attachment"]["text"] == "nothing is attached to host web1"
    assert "harp attach web1" in found["attachment"]["next_step"]
    attach = ("attach", "web1", "--tenant", "default", "--user", "alice", "--wait")
    assert cluster.harp(*attach).returncode == 0
    status, found = doctor(cluster, HARP_HOST="web1")
    assert status == 0, found
    assert "gpu1/0 (HARP Soft GPU)" in found["attachment"]["text"]
    assert "HARP Soft GPU" in found["pool"]["text"]


def test_a_host_whose_scheduler_is_away(cluster: Cluster) -> None:
    cluster.kill("scheduler")
    status, found = doctor(cluster)
    assert status == 1
    assert "nothing answers at" in found["scheduler"]["text"]
    assert found["scheduler"]["next_step"]


def test_a_server_and_its_scheduler(cluster: Cluster) -> None:
    credentials = cluster.folder / "servers" / "gpu1"
    scheduler = ("--scheduler", cluster.addresses["scheduler"])
    status, found = doctor(cluster, "--server", str(credentials), *scheduler)
    assert status == 0, found
    assert found["certificate"]["text"].startswith("spiffe://lab/server/gpu1, valid until")
    assert found["agent"]["ok"]
    assert found["worker"]["text"].startswith("1 devices of soft, jail: landlock")
    assert found["scheduler"]["text"].endswith("answers")
    (credentials / "agent.key").chmod(0o640)
    status, found = doctor(cluster, "--server", str(credentials))
    assert status == 1
    assert found["agent"]["next_step"] == f"chmod 600 {credentials / 'agent.key'}"
    status, found = doctor(cluster, "--server", str(credentials), "--device", "/nowhere/libcuda.so")
    assert status == 1
    assert "no such library" in found["worker"]["text"]


def test_a_schedulers_state(cluster: Cluster) -> None:
    state = ("--scheduler-state", str(cluster.ca), "--database", cluster.database)
    assert cluster.harp("cordon", "gpu1").returncode == 0
    status, found = doctor(cluster, *state)
    assert status == 0, found
    assert found["authority"]["text"].startswith("spiffe://lab, valid until")
    assert "scheduler leads or led last, in term 1" in found["database"]["text"]
    assert found["audit"]["text"] == "whole"
    cluster.kill("scheduler")
    with sqlite3.connect(cluster.database) as database:
        database.execute("DROP TRIGGER audit_no_update")
        database.execute("UPDATE audit SET verb = 'nothing' WHERE sequence = 1")
    database.close()
    status, found = doctor(cluster, *state)
    assert status == 1
    assert found["audit"]["text"] == "row 1 was changed"
    with sqlite3.connect(cluster.database) as database:
        database.execute("UPDATE alembic_version SET version_num = 'f00d'")
    database.close()
    status, found = doctor(cluster, *state)
    assert status == 1
    assert "has revision f00d" in found["database"]["text"]
    assert "newer" in found["database"]["next_step"]


def test_state_that_is_not_there(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    status, found = doctor(cluster, "--scheduler-state", str(tmp_path / "nowhere"))
    assert status == 1
    assert not found["authority"]["ok"]
    status, found = doctor(cluster, "--scheduler-state", str(cluster.ca))
    assert status == 0
    assert found["database"]["next_step"] == "the scheduler's first start makes it"
    typo = tmp_path / "typo.db"
    named = ("--scheduler-state", str(cluster.ca), "--database", str(typo))
    status, found = doctor(cluster, *named)
    assert status == 1
    assert found["database"]["text"] == f"there is no {typo}"
    assert not typo.exists()


@pytest.fixture
def authority() -> Authority:
    return Authority.create("lab")


def user_of(authority: Authority, folder: Path, days: int = 100) -> Path:
    save_user(folder, authority.root.certificate_pem(), authority.issue_user("t", "me", days))
    return folder


def texts(folder: Path) -> list[tuple[bool, str]]:
    return [(finding.ok, finding.text) for finding in certificate("c", folder, "client", how="how")]


def test_certificates_that_do_not_fit(authority: Authority, tmp_path: Path) -> None:
    one, other = user_of(authority, tmp_path / "one"), user_of(authority, tmp_path / "other")
    assert [ok for ok, _ in texts(one)] == [True]
    (one / "client.key").write_bytes((other / "client.key").read_bytes())
    assert texts(one) == [(False, f"{one / 'client.pem'} does not belong to client.key")]
    (other / "ca.pem").write_bytes(Authority.create("lab").root.certificate_pem())
    assert texts(other) == [(False, f"{other / 'client.pem'} was not issued by {other / 'ca.pem'}")]
    (other / "client.pem").write_text("no certificate")
    assert "cannot be read" in texts(other)[0][1]
    (other / "client.pem").unlink()
    assert texts(other) == [(False, f"{other / 'client.pem'}: No such file or directory")]


def test_certificates_that_have_expired_or_soon_will(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = user_of(authority, tmp_path / "me", days=100)
    now = datetime.datetime.now(datetime.UTC)

    def found_in(days: int) -> tuple[bool, str]:
        class Later(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
                return now + datetime.timedelta(days=days)

        monkeypatch.setattr("harp_client.finding.datetime.datetime", Later)
        (finding,) = certificate("c", folder, "client", how="join again")
        monkeypatch.undo()
        return finding.ok, finding.next_step or finding.text.partition(", ")[2][:11]

    assert found_in(10) == (True, "valid until")
    assert found_in(90) == (True, "soon: join again")
    assert found_in(101) == (False, "join again")
    assert found_in(-1) == (False, "is this machine's clock right? (timedatectl)")


def test_clocks_that_differ() -> None:
    assert clock(100.0, 99.0, 101.0).ok
    behind, ahead = clock(2 * SKEW, 0.0, 1.0), clock(0.0, 2 * SKEW, 2 * SKEW + 1)
    assert (behind.ok, behind.text) == (False, "this clock is 119 s behind the scheduler's")
    assert (ahead.ok, ahead.text) == (False, "this clock is 120 s ahead of the scheduler's")
