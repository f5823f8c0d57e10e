"""Workloads are recorded, and drive the scheduler's core under other policies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harp_api.control.v1 import agent_pb2 as agent
from harp_replay.drive import Driver
from harp_replay.jobs import read
from harp_replay.policies import POLICIES
from harp_scheduler.core.events import Asked, Connected, GivenBack, Reported, TenantSet
from harp_scheduler.core.model import Closing, Quota
from harp_scheduler.core.placement.model import Demand
from harp_scheduler.core.pool import Pool
from harp_scheduler.service.leader import Leader
from harp_scheduler.workload_trace import WorkloadFile, demand_as_data, demand_of

Look = Callable[..., Any]

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,0,0,2,A\nn1,0,0,2,A\n"
HEAD = "name,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time,scheduled_time\n"


@pytest.fixture
def lists(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a list of tasks, beside two machines of two devices."""

    def lists(rows: str) -> Path:
        (tmp_path / "nodes.csv").write_text(NODES)
        path = tmp_path / "tasks.csv"
        path.write_text(HEAD + rows)
        return path

    return lists


def driven(look: Look, path: Path, *policies: str) -> dict[str, dict[str, Any]]:
    words = [word for policy in policies for word in ("--policy", policy)]
    ended = look("workload", path, "--machines", path.parent / "nodes.csv", "--json", *words)
    assert ended.status == 0, ended.err
    return {each["policy"]: each for each in json.loads(ended.out)["policies"]}


def test_where_jobs_are_placed_decides_who_has_to_wait(
    look: Look, lists: Callable[[str], Path]
) -> None:
    # Two that want one device each, then one that wants two of one machine, for 100 s each.
    path = lists("a,1,1000,,0,100,0\nb,1,1000,,1,101,1\nc,2,1000,,2,102,2\n")
    found = driven(look, path, "first-fit", "spread", "harp")
    assert found["first-fit"]["wait_longest_seconds"] == 0
    assert found["harp"]["wait_longest_seconds"] == 0
    # Spread over both machines, neither has two devices left until one job has ended.
    assert found["spread"]["wait_longest_seconds"] == 98
    assert found["spread"]["granted"] == 3
    assert found["first-fit"]["peak"] == 1.0
    # Until c arrives, half of two seconds on average: one device of four, then two.
    assert found["first-fit"]["allocated"] == pytest.approx((1 + 2) / 2 / 4)


def test_who_comes_first_is_up_to_the_policy(look: Look, lists: Callable[[str], Path]) -> None:
    # All is taken but one device; what wants two devices waits, and behind it what wants one.
    rows = "a,2,1000,,0,1000,0\nb,1,1000,,1,501,1\nbig,2,1000,,2,102,2\nsmall,1,1000,,3,13,3\n"
    found = driven(look, lists(rows), "in-order", "backfill", "harp")
    # `big` gets the machine of `b` when that has ended, after 500 s.
    assert found["backfill"]["wait_longest_seconds"] == 499
    assert found["backfill"]["wait_median_seconds"] == 0
    waits = found["in-order"]["wait_mean_seconds"] * 4
    # `small` comes behind `big`, which keeps that machine for 100 s.
    assert waits == 499 + (601 - 3)
    # Nobody has waited for a minute when `small` comes.
    assert found["harp"]["wait_mean_seconds"] == found["backfill"]["wait_mean_seconds"]


def test_idle_compute_that_nobody_can_use_counts_as_fragmented(
    look: Look, lists: Callable[[str], Path]
) -> None:
    path = lists("a,1,600,,0,1000,0\nb,1,600,,100,1000,100\n")
    found = driven(look, path, "first-fit")["first-fit"]
    # Of 3,400 idle per mille, the 400 beside `a` are of no use to who wants 600.
    assert found["fragmented"] == pytest.approx(400 / 3400, rel=0.01)


def test_jobs_that_never_fit_are_counted(look: Look, lists: Callable[[str], Path]) -> None:
    found = driven(look, lists("a,1,1000,B,0,9,0\nb,3,1000,,0,9,0\nc,1,1000,A,1,9,1\n"), "harp")
    assert (found["harp"]["granted"], found["harp"]["never_granted"]) == (1, 2)


@pytest.mark.parametrize("times", ["0", "-1", "nan", "inf", "1e300", "1e-300"])
def test_what_jobs_cannot_arrive_by_is_refused(
    look: Look, lists: Callable[[str], Path], times: str
) -> None:
    path = lists("a,1,1000,,0,100,0\nb,1,1000,,1,101,1\n")
    ended = look("workload", path, "--machines", path.parent / "nodes.csv", f"--faster={times}")
    assert (ended.status, ended.out) == (2, "")
    assert f"jobs cannot arrive {float(times):g} times as fast. Next: " in ended.err


def test_a_workload_of_no_time_at_all_has_an_end(look: Look, lists: Callable[[str], Path]) -> None:
    found = driven(look, lists("a,1,1000,,0,9,0\nb,1,1000,,5e-324,9,1\n"), "harp")
    assert found["harp"]["granted"] == 2


def test_a_table_shows_the_policies_side_by_side(look: Look, lists: Callable[[str], Path]) -> None:
    path = lists("a,1,1000,,0,100,0\n")
    told = look("workload", path, "--machines", path.parent / "nodes.csv").out
    assert [line.split()[0] for line in told.splitlines()[1:]] == list(POLICIES)
    assert "allocated" in told.splitlines()[0]


class Recorded:
    """A pool whose workload is recorded: one server of two devices."""

    def __init__(self, path: Path) -> None:
        self.file = WorkloadFile(str(path))
        self.pool = Pool(1, 0.0)
        self.thread = ThreadPoolExecutor(1)
        self.leader = Leader(self.pool, self, self.thread, workload=self.file)
        self.requests = 0

    def commit(self, *_: object, **__: object) -> None:
        """Everything is stored."""

    async def run(self) -> None:
        running = asyncio.create_task(self.leader.run())
        try:
            await self._happen()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.thread.shutdown()
            self.file.close()

    async def _happen(self) -> None:
        handle = self.leader.handle
        await handle(TenantSet("ml", Quota()))
        register = agent.Register(address="gpu1:7443", labels={"rack": "r1"})
        for ordinal in range(2):
            register.devices.add(ordinal=ordinal, kind="gpu", model="A", memory=1 << 34)
        await handle(Connected("gpu1", register))
        sizes = {"one": Demand(), "two": Demand(count=2), "half": Demand(compute=500)}
        for name, demand in sizes.items():
            await handle(Asked("spiffe://x", name, name, "ml", demand, owner="spiffe://secret"))
        for name in ("one", "half", "two"):
            await handle(GivenBack("spiffe://x", f"-{name}", name, Closing.FORCE))
            await self._report()

    async def _report(self) -> None:
        """The server does as it was told."""
        book = self.pool.book
        said = agent.Report(term=1, revision=book.links["gpu1"].revision)
        await self.leader.handle(Reported("gpu1", said))


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    asyncio.run(Recorded(path).run())
    return path


def test_a_pool_records_what_arrives_is_granted_and_ends(recorded: Path) -> None:
    lines = [json.loads(line) for line in recorded.read_text().splitlines()]
    assert (lines[0]["type"], lines[0]["program"]) == ("process", "harp scheduler")
    assert [line["type"] for line in lines[-2:]] == ["end", "trace"]
    said = [(line["workload"], line.get("lease")) for line in lines[1:-2]]
    assert said == [
        ("machine", None),
        ("arrival", "one"),
        ("grant", "one"),
        ("arrival", "two"),
        ("arrival", "half"),
        ("grant", "half"),
        ("end", "one"),
        ("end", "half"),
        ("grant", "two"),
        ("end", "two"),
    ]
    times = [line["time"] for line in lines[1:-2]]
    assert times == sorted(times)
    assert "secret" not in recorded.read_text()


def test_what_was_recorded_is_driven_again(look: Look, recorded: Path, tmp_path: Path) -> None:
    ended = look("workload", recorded, "--json")
    found = {each["policy"]: each for each in json.loads(ended.out)["policies"]}
    assert list(found) == ["as recorded", *POLICIES]
    assert {each["granted"] for each in found.values()} == {3}
    # `two` has both devices in the end, whoever decides.
    assert {each["peak"] for each in found.values()} == {1.0}
    # In the container of traces it is the same workload.
    packed = tmp_path / "pool.htrace"
    assert look("convert", recorded, "-o", packed).status == 0
    again = {
        each["policy"]: each
        for each in json.loads(look("workload", packed, "--json").out)["policies"]
    }
    assert again == found


def test_what_is_held_of_a_machine_that_is_gone_does_not_count(look: Look, tmp_path: Path) -> None:
    def said(time: int, what: str, **fields: Any) -> dict[str, Any]:
        return {"type": "annotation", "workload": what, "time": time * 10**9, **fields}

    lines = []
    for name in ("m0", "m1"):
        device = {"kind": "gpu", "model": "A", "memory": 1}
        lines.append(said(0, "machine", name=name, devices=[device]))
    for time, lease, machine in ((0, "a", "m0"), (20, "b", "m1")):
        demand = demand_as_data(Demand())
        slices = [{"device": f"{machine}/0", "memory": 1, "compute": 1000}]
        lines.append(said(time, "arrival", lease=lease, demand=demand))
        lines.append(said(time, "grant", lease=lease, slices=slices))
    lines.insert(4, said(10, "gone", name="m0"))
    lines.append(said(40, "end", lease="b"))
    path = tmp_path / "gone.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = json.loads(look("workload", path, "--policy", "harp", "--json").out)["policies"]
    for each in found:
        assert each["peak"] == 1.0
        # One of two devices for 10 s, none of one for 10, that one for 20.
        assert each["allocated"] == pytest.approx((10 + 20) / (20 + 30))


def test_a_scheduler_that_was_killed_leaves_what_it_had_recorded(
    look: Look, recorded: Path
) -> None:
    text = recorded.read_text()
    recorded.write_text(text[: text.index('"two"', text.index('"grant"')) + 20])
    found = json.loads(look("workload", recorded, "--policy", "harp", "--json").out)
    assert found["jobs"] >= 1


def test_demands_are_read_as_they_were_written() -> None:
    demand = Demand(
        count=3,
        models=("A", "B"),
        memory=5,
        compute=250,
        labels=(("rack", "r1"),),
        same_server="require",
    )
    assert demand_of(json.loads(json.dumps(demand_as_data(demand)))) == demand
    assert demand_of(demand_as_data(Demand())) == Demand()


@pytest.mark.parametrize(
    "line",
    [
        '{"type":"annotation","workload":"arrival","time":"x","lease":"a"}',
        '{"type":"annotation","workload":"arrival","time":1,"lease":"a","demand":{"count":-1}}',
        '{"type":"annotation","workload":"machine","time":1,"name":"m","devices":3}',
        '{"type":"annotation","workload":"unknown","time":1}',
    ],
)
def test_what_is_no_workload_is_refused(look: Look, tmp_path: Path, line: str) -> None:
    path = tmp_path / "evil.jsonl"
    path.write_text(line + "\n")
    ended = look("workload", path)
    assert ended.status == 2
    assert ended.err.startswith(f"harp-replay: {path} is no workload: ")
    assert ended.err.count("\n") == 1


def test_a_policy_or_machines_that_are_not_there_are_told(
    look: Look, lists: Callable[[str], Path]
) -> None:
    path = lists("a,1,1000,,0,100,0\n")
    ended = look("workload", path, "--policy", "luck")
    assert (ended.status, "there is no policy luck" in ended.err) == (2, True)
    ended = look("workload", path)
    assert ended.status == 2
    assert "openb_node_list_gpu_node.csv is not there" in ended.err


def test_two_drives_of_one_workload_are_equal(lists: Callable[[str], Path]) -> None:
    rows = "".join(
        f"t{at},{1 + at % 2},{1000 if at % 2 else 300},,{at * 7 % 50},{at * 7 % 50 + 40},"
        f"{at * 7 % 50}\n"
        for at in range(60)
    )
    path = lists(rows)
    jobs = read(str(path), str(path.parent / "nodes.csv"), None)
    first, second = (Driver("harp", POLICIES["harp"], jobs).run() for _ in range(2))
    assert first == second
    assert first.granted == 60
