"""Several schedulers on one PostgreSQL, all of it real: kills, restarts, nothing given twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harp_api.control.v1 import access_pb2 as access
from harp_api.control.v1 import pool_pb2 as api
from harp_client.errors import HarpError
from harp_client.scheduler import Scheduler, request_id
from scheduler.cluster import BOUND, Cluster, JoinCommand, end, first_line
from scheduler.store.postgres import Postgres

DEVICES = 4


@pytest.fixture
def cluster(tmp_path: Path, postgres: Postgres) -> Iterator[Cluster]:
    """Two schedulers, of which the first leads, and a server."""
    cluster = Cluster(tmp_path, postgres.new_database())
    cluster.scheduler("scheduler-1")
    cluster.wait(lambda: '"leads"' in cluster.log("scheduler-1"), "the first one leads")
    cluster.scheduler("scheduler-2")
    cluster.server("gpu1", DEVICES)
    yield cluster
    cluster.close()


def attach(scheduler: Scheduler, request: str) -> api.Lease:
    """Asks for a share of a device for a host."""
    asked = api.AttachRequest(
        request_id=request, tenant="default", demand=api.Demand(compute=50), host="web1"
    )
    lease: api.Lease = scheduler.call("Attach", asked, BOUND)
    return lease


def leader(cluster: Cluster) -> tuple[str, int]:
    """Who began to lead last, and in which term. On a busy machine that is not always who leads
    because another one was killed."""
    began = [
        (json.loads(line)["term"], name)
        for name in ("scheduler-1", "scheduler-2")
        for line in cluster.log(name).splitlines()
        if '"leads"' in line
    ]
    term, name = max(began)
    return name, term


def test_another_scheduler_leads_and_programs_and_leases_go_on(cluster: Cluster) -> None:
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")
    (before,) = cluster.get("lease")
    cluster.kill("scheduler-1")
    (after,) = cluster.get("lease")
    assert '"leads"' in cluster.log("scheduler-2")
    assert (after["id"], after["epoch"]) == (before["id"], before["epoch"])
    cluster.wait(lambda: cluster.get("lease")[0]["state"] == "InUse", "it is in use")
    # The first one comes back, and waits.
    cluster.scheduler("scheduler-1")
    assert end(program)[:2] == (0, "ended")
    cluster.wait(lambda: not cluster.get("lease"), "the lease is returned")
    assert cluster.log("scheduler-1").count('"leads"') == 1


def test_the_next_leader_says_why_a_lease_was_lost(cluster: Cluster) -> None:
    attach = ("attach", "web1", "--tenant", "default", "--name", "work", "--wait")
    assert cluster.harp(*attach).returncode == 0
    assert cluster.harp("revoke", "spiffe://lab/server/gpu1").returncode == 0
    assert cluster.get("lease", "work")[0]["state"] == "Lost"
    said = cluster.harp("events", "work", "-o", "json")
    before = [(e["what"], e["reason"]) for e in json.loads(said.stdout)["items"]]
    assert ("Lost", "server gpu1 was revoked") in before
    cluster.kill("scheduler-1")
    said = cluster.harp("events", "-o", "json")
    after = [(e["name"], e["what"], e["reason"]) for e in json.loads(said.stdout)["items"]]
    assert ("work", "Lost", "server gpu1 was revoked") in after
    leads = [name for name, what, _ in after if what == "Leads"]
    assert leads == ["scheduler-1", "scheduler-2"]


def test_a_repeated_call_makes_no_second_token_whoever_leads(cluster: Cluster) -> None:
    scheduler = Scheduler(cluster.schedulers, str(cluster.folder / "admin"))
    asked = access.CreateTokenRequest(request_id="again", role="host", ttl=600, uses=1)
    before: access.CreatedToken = scheduler.call("CreateToken", asked, BOUND)
    cluster.kill("scheduler-1")
    after: access.CreatedToken = scheduler.call("CreateToken", asked, BOUND)
    assert (after.text, after.token) == (before.text, before.token)
    assert after.join_port != before.join_port
    (token,) = scheduler.call("ListTokens", access.ListTokensRequest()).tokens
    assert token.id == before.token.id
    address = f"127.0.0.1:{after.join_port}"
    joined = cluster.join(JoinCommand(address, before.text), "web1", "--name", "web1")
    assert joined.returncode == 0, joined.stderr
    used: access.CreatedToken = scheduler.call("CreateToken", asked, BOUND)
    assert (used.text, used.token.state) == (before.text, "used up")
    asked.request_id = "another"
    assert scheduler.call("CreateToken", asked, BOUND).text != before.text
    scheduler.close()


def test_no_grant_is_lost_or_doubled_when_the_leader_is_killed_under_load(
    cluster: Cluster,
) -> None:
    answered: dict[str, str] = {}
    failures: list[HarpError] = []
    stop = threading.Event()

    def ask() -> None:
        scheduler = Scheduler(cluster.schedulers, str(cluster.folder / "admin"))
        while not stop.is_set():
            request = request_id()
            try:
                lease = attach(scheduler, request)
                # What a caller does that has not heard the answer.
                assert attach(scheduler, request).id == lease.id
                answered[request] = lease.id
            except HarpError as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        count = len(answered)
        cluster.wait(lambda count=count: len(answered) > count + 5 or failures, "leases are made")
        leads, term = leader(cluster)
        cluster.kill(leads)
        cluster.wait(lambda term=term: leader(cluster)[1] > term, "another one leads")
        cluster.scheduler(leads)
    stop.set()
    for thread in threads:
        thread.join(BOUND)
    assert not failures
    leases = cluster.get("lease")
    assert sorted(lease["id"] for lease in leases) == sorted(answered.values())
    epochs = [lease["epoch"] for lease in leases if lease["targets"]]
    assert len(set(epochs)) == len(epochs)
    for device in cluster.get("device"):
        assert device["compute_leased"] <= 1000


def test_a_restarted_database_costs_no_lease_and_no_program(
    cluster: Cluster, postgres: Postgres
) -> None:
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")
    (before,) = cluster.get("lease")
    postgres.stop()
    cluster.wait(lambda: "leads no more" in cluster.log("scheduler-1"), "the lead is given up")
    postgres.start()
    (after,) = cluster.get("lease")
    assert after["epoch"] == before["epoch"]
    assert end(program)[:2] == (0, "ended")
    cluster.wait(lambda: not cluster.get("lease"), "the lease is returned")
