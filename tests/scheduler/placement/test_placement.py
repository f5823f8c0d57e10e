"""Placement, case by case."""

from dataclasses import replace

import pytest

from harp_scheduler.core.placement.engine import Placement
from harp_scheduler.core.placement.model import (
    ConflictError,
    Demand,
    Device,
    HostShare,
    Machine,
    Placed,
    Refusal,
    Slice,
)
from harp_scheduler.core.placement.workload import Workload, typical_of

GIB = 1 << 30


def server(
    name: str, count: int = 4, model: str = "A100", memory: int = 80, **labels: str
) -> Machine:
    devices = (Device(f"{name}/{n}", name, "gpu", model, memory * GIB) for n in range(count))
    return Machine(name, tuple(devices), labels)


def pool(*machines: Machine, usual: tuple[Demand, ...] = ()) -> Placement:
    placement = Placement(typical_of(usual))
    for machine in machines:
        placement.update(machine)
    return placement


def lease(placement: Placement, demand: Demand) -> list[str]:
    """Takes what a demand gets. Returns its devices."""
    found = placement.place(demand)
    assert isinstance(found, Placed), found
    placement.take(found)
    return [part.device for part in found.slices]


def refused(placement: Placement, demand: Demand) -> str:
    found = placement.place(demand)
    assert isinstance(found, Refusal), found
    return found.reason


def test_a_slice_has_the_share_of_memory_that_it_has_of_compute() -> None:
    found = pool(server("a")).place(Demand(compute=250))
    assert found == Placed((Slice("a/0", 20 * GIB, 250),))


def test_a_slice_has_the_memory_that_is_asked_for() -> None:
    found = pool(server("a")).place(Demand(compute=250, memory=7 * GIB))
    assert found == Placed((Slice("a/0", 7 * GIB, 250),))


def test_machines_are_taken_in_the_order_of_their_names() -> None:
    assert lease(pool(server("b"), server("a"), server("c")), Demand()) == ["a/0"]


def test_without_a_workload_the_tightest_device_is_taken() -> None:
    placement = pool(server("a", 2), server("b", 2))
    lease(placement, Demand(only=frozenset({"b/1"}), compute=400))
    assert lease(placement, Demand(compute=500)) == ["b/1"]


def test_of_devices_that_suit_equally_well_the_tightest_is_taken() -> None:
    large, small = (
        Device(f"a/{model}", "a", "gpu", model, memory * GIB)
        for model, memory in (("H200", 141), ("L4", 24))
    )
    assert lease(pool(Machine("a", (large, small))), Demand(memory=8 * GIB)) == ["a/L4"]


def test_machines_are_kept_whole_for_those_who_need_them_whole() -> None:
    machines = server("a", 4), server("b", 5)
    usual = (Demand(), Demand(), Demand(count=4))
    assert lease(pool(*machines, usual=usual), Demand()) == ["b/0"]
    assert lease(pool(*machines), Demand()) == ["a/0"]


def test_a_device_is_not_left_with_a_scrap_that_few_can_use() -> None:
    usual = (Demand(compute=700),) * 9 + (Demand(compute=300),)
    for known, device in ((usual, "a/1"), ((), "a/0")):
        placement = pool(server("a", 2), usual=known)
        lease(placement, Demand(compute=300, only=frozenset({"a/0"})))
        assert lease(placement, Demand(compute=300)) == [device]


def test_a_gang_is_on_one_server_where_one_has_room() -> None:
    placement = pool(server("a", 2), server("b", 3), server("c", 4))
    assert lease(placement, Demand(count=3)) == ["b/0", "b/1", "b/2"]


def linked(name: str, *groups: str) -> Machine:
    """A server whose devices are of these NVLink groups."""
    whole = server(name, len(groups))
    devices = zip(whole.devices, groups, strict=True)
    return replace(
        whole,
        devices=tuple(
            replace(device, labels={"nvlink-group": group} if group else {})
            for device, group in devices
        ),
    )


def test_a_gang_is_of_one_nvlink_group_where_one_has_room() -> None:
    placement = pool(linked("a", "", "x", "y", "x", "y", "y"))
    assert lease(placement, Demand(count=2)) == ["a/1", "a/3"], "the smallest that has room"
    assert lease(placement, Demand(count=2)) == ["a/2", "a/4"]
    # None has room for two now.
    assert lease(placement, Demand(count=2)) == ["a/0", "a/5"]


def test_a_gang_that_no_nvlink_group_has_room_for_is_placed_all_the_same() -> None:
    placement = pool(linked("a", "x", "x", "y", "y"))
    assert lease(placement, Demand(count=3)) == ["a/0", "a/1", "a/2"]


def test_a_gang_is_spread_over_as_few_servers_as_possible() -> None:
    placement = pool(server("a", 1), server("b", 2), server("c", 4), server("d", 3))
    assert lease(placement, Demand(count=6)) == ["c/0", "c/1", "c/2", "c/3", "b/0", "b/1"]


def test_a_gang_that_must_be_together_is_not_spread() -> None:
    placement = pool(server("a", 2), server("b", 2))
    demand = Demand(count=3, same_server="require")
    assert refused(placement, demand) == "4 fit, 3 asked for together"


def test_host_resources_are_of_the_server_that_has_the_devices() -> None:
    device = Device("a/0", "a", "gpu", "A100", 80 * GIB)
    placement = pool(Machine("a", (device,), cpu_milli=4000, host_memory=8 * GIB))
    found = placement.place(Demand(compute=500, cpu_milli=3000, host_memory=GIB))
    assert found == Placed((Slice("a/0", 40 * GIB, 500),), HostShare("a", 3000, GIB))
    placement.take(found)
    again = Demand(compute=500, cpu_milli=3000)
    assert refused(placement, again) == "1 device: CPU or memory of the server"
    placement.give_back(found)
    assert isinstance(placement.place(again), Placed)


def test_labels_are_a_devices_own_or_its_servers() -> None:
    own = Device("b/1", "b", "gpu", "A100", 80 * GIB, {"rack": "r1"})
    mixed = Machine("b", (*server("b", 1).devices, own), {"rack": "r2"})
    placement = pool(server("a", rack="r2"), mixed)
    demand = Demand(labels=(("rack", "r1"),))
    assert lease(placement, demand) == ["b/1"]
    assert refused(placement, demand) == "5 devices: labels; 1: taken"


def test_labels_that_change_are_seen() -> None:
    placement = pool(server("a", rack="r1"), server("b", rack="r2"))
    demand = Demand(labels=(("rack", "r2"),))
    assert lease(placement, demand) == ["b/0"]
    placement.update(server("b", rack="r1"))
    placement.update(server("a", rack="r2"))
    assert lease(placement, demand) == ["a/0"]


def test_a_refusal_counts_every_device_where_it_fails_first() -> None:
    fpga = Machine("f", (Device("f/0", "f", "fpga", "U50", 8 * GIB),))
    placement = pool(server("a", 3), server("b", 2, "L4", 24), fpga, server("c", 5))
    placement.set_usable("a/0", "cordoned")
    placement.set_usable("c/1", "faulty")
    lease(placement, Demand(only=frozenset({"a/1"})))
    lease(placement, Demand(only=frozenset({"a/2"}), memory=60 * GIB, compute=200))
    for slot in (0, 2, 3, 4):
        lease(placement, Demand(only=frozenset({f"c/{slot}"}), memory=GIB, compute=700))
    assert (
        refused(placement, Demand(models=("A100",), memory=30 * GIB, compute=500))
        == "1 device: kind; 2: model; 1: cordoned; 1: faulty; 1: taken; 1: memory; 4: compute"
    )


def test_a_pool_without_devices_says_so() -> None:
    assert refused(Placement(), Demand()) == "there are no devices"


def test_a_device_that_is_not_usable_gets_nothing_new_and_keeps_what_it_has() -> None:
    placement = pool(server("a", 1))
    found = placement.place(Demand(compute=500))
    assert isinstance(found, Placed)
    placement.take(found)
    placement.set_usable("a/0", "cordoned")
    assert refused(placement, Demand(compute=100)) == "1 device: cordoned"
    placement.give_back(found)
    placement.set_usable("a/0")
    assert placement.left("a/0") == (80 * GIB, 1000)
    assert lease(placement, Demand()) == ["a/0"]


def test_what_is_taken_outlives_its_machine() -> None:
    placement = pool(server("a", 1))
    found = placement.place(Demand(compute=600))
    assert isinstance(found, Placed)
    placement.take(found)
    placement.remove("a")
    assert refused(placement, Demand(compute=100)) == "there are no devices"
    placement.update(server("a", 1))
    assert placement.left("a/0") == (32 * GIB, 400)
    placement.give_back(found)
    assert placement.left("a/0") == (80 * GIB, 1000)


def test_leases_can_be_taken_up_before_their_server_reports() -> None:
    placement = Placement()
    placement.take(Placed((Slice("a/0", 20 * GIB, 700),)))
    placement.update(server("a", 1))
    assert refused(placement, Demand(compute=500)) == "1 device: compute"


@pytest.mark.parametrize(
    "second",
    [
        Placed((Slice("a/1", 0, 1000), Slice("a/0", 0, 500))),
        Placed((Slice("a/1", 0, 100), Slice("a/0", 81 * GIB, 100))),
        Placed((Slice("a/1", 0, 100),), HostShare("a", 1, 0)),
    ],
    ids=["compute", "memory", "host"],
)
def test_taking_what_is_not_free_takes_nothing(second: Placed) -> None:
    placement = pool(server("a", 2))
    placement.take(Placed((Slice("a/0", GIB, 600),)))
    with pytest.raises(ConflictError, match="is not free"):
        placement.take(second)
    assert placement.left("a/1") == (80 * GIB, 1000)
    assert placement.left("a/0") == (79 * GIB, 400)


def test_giving_back_what_is_not_taken_gives_nothing_back() -> None:
    placement = pool(server("a", 2))
    held = Placed((Slice("a/0", GIB, 600),))
    placement.take(held)
    with pytest.raises(ConflictError, match="is not taken"):
        placement.give_back(Placed((*held.slices, Slice("a/1", GIB, 100))))
    assert placement.left("a/0") == (79 * GIB, 400)
    with pytest.raises(ConflictError, match="is not taken"):
        placement.give_back(Placed((Slice("a/0", GIB, 500),)))


def test_what_is_taken_stays_taken_where_a_device_becomes_smaller() -> None:
    placement = pool(server("a", 1))
    held = Placed((Slice("a/0", 60 * GIB, 600),))
    placement.take(held)
    placement.update(server("a", 1, memory=40))
    assert placement.left("a/0") == (-20 * GIB, 400)
    assert refused(placement, Demand(compute=100)) == "1 device: memory"
    with pytest.raises(ConflictError, match="is not taken"):
        placement.give_back(Placed((*held.slices, *held.slices)))
    assert placement.left("a/0") == (-20 * GIB, 400)
    placement.give_back(held)
    assert placement.left("a/0") == (40 * GIB, 1000)


def test_two_machines_cannot_have_one_device() -> None:
    placement = pool(server("a", 1))
    with pytest.raises(ConflictError, match="a/0 is a's already"):
        placement.update(Machine("b", server("a", 1).devices))
    assert lease(placement, Demand()) == ["a/0"]


def test_scores_survive_that_what_no_machine_has_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harp_scheduler.core.placement.machines.STANDINGS_LEAST", 8)
    usual = (Demand(compute=130), Demand(compute=300), Demand(count=2))
    placement = pool(server("a"), server("b"), usual=usual)
    fresh = pool(server("a"), server("b"), usual=usual)
    taken = []
    for turn in range(60):
        demand = Demand(compute=50 + 10 * (turn % 7))
        found = placement.place(demand)
        assert isinstance(found, Placed)
        placement.take(found)
        taken.append(found)
        if turn > 12:
            placement.give_back(taken.pop(0))
    for found in taken:
        fresh.take(found)
    for demand in (*usual, Demand(compute=90)):
        assert placement.scores(demand) == fresh.scores(demand)
        assert placement.place(demand) == fresh.place(demand)


def test_a_workload_that_changes_changes_the_scores() -> None:
    placement = pool(server("a", 1), server("b", 2), usual=(Demand(),))
    assert lease(placement, Demand(compute=500)) == ["a/0"]
    before = placement.scores(Demand(compute=500))
    placement.set_workload(typical_of([Demand(compute=500)]))
    assert placement.scores(Demand(compute=500)) != before


def test_old_arrivals_fade() -> None:
    workload = Workload(half_life=10)
    for _ in range(1000):
        workload.observe(Demand())
    for _ in range(10):
        workload.observe(Demand(compute=500))
    shares = {size.compute: share for size, share in workload.typical()}
    assert shares == {500: pytest.approx(0.5), 1000: pytest.approx(0.5)}


def test_a_workload_is_of_sizes_of_devices() -> None:
    workload = Workload()
    workload.observe(Demand(labels=(("rack", "r1"),), avoid=frozenset({"a"})))
    workload.observe(Demand(only=frozenset({"b"})))
    workload.observe(Demand(count=0, cpu_milli=1000))
    assert workload.typical() == ((Demand(), 1.0),)


@pytest.mark.parametrize(
    "fields", [{"count": -1}, {"compute": 0}, {"compute": 1001}, {"memory": -1}, {"count": 0}]
)
def test_impossible_demands_cannot_be_made(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"cannot be|nothing negative|asks for something"):
        Demand(**fields)
