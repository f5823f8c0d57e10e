"""What people see of a pool: its things, its events, the audit, usage, and all of it live."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool.standins import HARP
from scheduler.cluster import BOUND, Cluster, end, first_line

ALTERNATE_SCREEN, FORMER_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One scheduler, one server with two devices, one of them attached to host web1."""
    cluster = Cluster(tmp_path)
    cluster.scheduler()
    cluster.server("gpu1", 2)
    attached = cluster.harp(
        *("attach", "web1", "--tenant", "default", "--user", "alice", "--name", "work", "--wait")
    )
    assert attached.returncode == 0, attached.stderr
    yield cluster
    cluster.close()


def items(cluster: Cluster, *words: str, user: str = "admin") -> list[dict[str, Any]]:
    done = cluster.harp(*words, "-o", "json", user=user)
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return listed


def test_hosts_and_sessions_are_listed_with_who_runs_what(cluster: Cluster) -> None:
    assert cluster.harp("get", "sessions").stderr == "No sessions.\n"
    program = cluster.run(host="web1")
    assert first_line(program).startswith("using")
    cluster.wait(lambda: items(cluster, "get", "sessions"), "the session is known")
    (session,) = items(cluster, "get", "sessions")
    assert session["lease_name"] == "work"
    assert session["user"] == "spiffe://lab/tenant/default/user/alice"
    assert (session["server"], session["host"]) == ("gpu1", "web1")
    assert session["program"].startswith("python")
    assert session["pid"] > 0
    assert abs(session["began"] - time.time()) < 2 * BOUND
    (host,) = items(cluster, "get", "hosts")
    assert (host["name"], host["leases"], host["sessions"]) == ("web1", ["work"], 1)
    assert items(cluster, "get", "hosts", user="alice") == [host]
    assert end(program)[0] == 0
    cluster.wait(lambda: not items(cluster, "get", "sessions"), "the session is over")


def test_events_tell_what_came_of_a_lease(cluster: Cluster) -> None:
    assert cluster.harp("detach", "work", "--tenant", "default").returncode == 0
    told = [(e["about"], e["name"], e["what"]) for e in items(cluster, "get", "events", "work")]
    assert told == [
        ("lease", "work", what) for what in ("Attaching", "Available", "Detaching", "Gone")
    ]
    everything = [(e["about"], e["name"], e["what"]) for e in items(cluster, "events")]
    assert ("server", "gpu1", "Connected") in everything
    table = cluster.harp("events", "work").stdout.splitlines()
    assert table[0].split() == ["TIME", "ABOUT", "WHAT", "REASON"]
    assert table[1].split()[2:] == ["lease/work", "Attaching"]


def test_events_are_watched_as_they_come(cluster: Cluster) -> None:
    watching = subprocess.Popen(
        [*HARP, "events", "gpu1", "--watch", "-o", "json"],
        env=cluster.environ_of("admin"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert json.loads(first_line(watching))["what"] == "Connected"
        assert cluster.harp("cordon", "gpu1").returncode == 0
        assert json.loads(first_line(watching))["what"] == "Cordoned"
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=BOUND)


def test_the_audit_names_who_asked_and_the_first_row_that_was_changed(cluster: Cluster) -> None:
    denied = cluster.harp("audit", "list", user="alice")
    assert denied.returncode == 4
    assert "alice is not admin of the pool" in denied.stderr
    alice = "spiffe://lab/tenant/default/user/alice"
    rows = items(cluster, "audit", "list")
    assert [(row["verb"], row["outcome"]) for row in rows] == [
        ("attach", "done"),
        ("audit", f"refused: {alice} is not admin of the pool"),
    ]
    assert rows[1]["caller"] == alice
    assert rows[0]["caller"] == "spiffe://lab/tenant/system/user/admin"
    assert json.loads(rows[0]["after"])["name"] == "work"
    assert cluster.harp("detach", "work", "--tenant", "default").returncode == 0
    assert [r["verb"] for r in items(cluster, "audit", "list", "--after", "2")] == ["detach"]
    lease = rows[0]["subject"]
    assert [r["verb"] for r in items(cluster, "get", "events", lease, "--audit")] == [
        *("attach", "detach")
    ]
    whole = cluster.harp("audit", "verify")
    assert (whole.returncode, whole.stdout) == (0, "the audit is whole: 3 rows\n")

    with sqlite3.connect(cluster.database) as database:
        database.execute("DROP TRIGGER audit_no_update")
        database.execute("UPDATE audit SET caller = 'spiffe://lab/x' WHERE sequence = 3")
    database.close()
    broken = cluster.harp("audit", "verify")
    assert broken.returncode == 1
    assert "row 3 of the audit was changed" in broken.stderr


def test_usage_counts_running_leases_and_outlives_the_scheduler(cluster: Cluster) -> None:
    def used() -> dict[str, Any]:
        (usage,) = items(cluster, "usage")
        return usage

    cluster.wait(lambda: used()["device_seconds"] > 0.5, "it is used")
    first = used()
    assert first["tenant"] == "default"
    assert first["compute_seconds"] == pytest.approx(first["device_seconds"])
    memory = items(cluster, "get", "leases")[0]["targets"][0]["memory"]
    assert first["byte_seconds"] == pytest.approx(first["device_seconds"] * memory)
    cluster.kill("scheduler")
    cluster.scheduler()
    cluster.wait(lambda: used()["device_seconds"] > first["device_seconds"], "it goes on")
    cluster.wait(
        lambda: items(cluster, "get", "leases")[0]["state"] == "Available", "the agent is back"
    )
    assert cluster.harp("detach", "work", "--tenant", "default").returncode == 0
    last = used()
    assert used() == last
    exported = cluster.harp("usage", "--tenant", "default", "--since", "2h", "-o", "csv")
    (row,) = csv.DictReader(io.StringIO(exported.stdout))
    assert row["tenant"] == "default"
    assert float(row["device_seconds"]) == pytest.approx(last["device_seconds"])
    assert cluster.harp("usage", "--tenant", "system", user="alice").returncode == 4
    assert cluster.harp("usage", "--since", "soon").returncode == 2
    assert cluster.harp("usage").stdout.splitlines()[0].startswith("TENANT")


def test_top_shows_devices_leases_and_who_waits(cluster: Cluster) -> None:
    waiting = cluster.run("--gpus", "2")
    cluster.wait(lambda: cluster.get("queue"), "one waits")
    shown = cluster.harp("top", "--once").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert shown.startswith("1 of 1 servers ready, 2 devices; leased: 0.25 of 0.5 GiB, 1 devices'")
    device = next(line for line in lines if line[:1] == ["gpu1/0"])
    assert device[-1] == "work"
    assert device.count("100%") == 2
    assert ["work", "Available", "default", "web1", "gpu1/0", "0"] in lines
    assert any(line[:1] == ["1"] and "default" in line for line in lines)
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=BOUND)


def test_top_leaves_the_terminal_as_it_was(cluster: Cluster) -> None:
    ours, theirs = pty.openpty()
    environ = cluster.environ_of("admin") | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = [*HARP, "top", "-n", "0.2"]
    process = subprocess.Popen(
        command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    seen = read_until(ours, "gpu1/1")
    process.send_signal(signal.SIGINT)
    seen += read_until(ours, "")
    assert process.wait(BOUND) == 0
    os.close(ours)
    assert seen.count(ALTERNATE_SCREEN) == seen.count(FORMER_SCREEN) == 1
    assert seen.rindex(SHOW_CURSOR) > seen.rindex(HIDE_CURSOR)
    assert "Traceback" not in seen


def read_until(terminal: int, text: str) -> str:
    """What is shown until `text` is; until the end where it is empty."""
    seen = b""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.5)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        seen += piece
        if not piece or (text and text in seen.decode(errors="replace")):
            break
    return seen.decode(errors="replace")


def test_an_empty_table_says_so_where_it_is_in_nobodys_way(cluster: Cluster) -> None:
    empty = cluster.harp("get", "queue")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "No leases.\n")
    listed = cluster.harp("get", "queue", "-o", "json")
    assert json.loads(listed.stdout)["items"] == []
    assert listed.stderr == ""
    (device,) = [d for d in items(cluster, "get", "devices") if d["ordinal"] == 0]
    assert (device["kind"], device["accelerator"]) == ("Device", "gpu")
    wrong = cluster.harp("get", "leases", "--audit")
    assert wrong.returncode == 2
