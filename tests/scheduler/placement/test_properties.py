"""Whatever happens to a pool, placement keeps its promises."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harp_scheduler.core.placement import machines
from harp_scheduler.core.placement.engine import Placement
from harp_scheduler.core.placement.model import WHOLE, Demand, Device, Machine, Placed, Refusal
from harp_scheduler.core.placement.workload import Typical, typical_of
from scheduler.placement.oracle import State

GIB = 1 << 30
KINDS = st.sampled_from(("gpu",) * 9 + ("fpga",))
MODELS = (("L4", 24), ("A100", 80))

EXAMPLES = int(os.environ.get("PLACEMENT_EXAMPLES", "50"))

checked = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def machine(draw: Callable[..., Any], name: str) -> Machine:
    devices = []
    for slot in range(draw(st.sampled_from((2, 4, 1, 3, 0)))):
        model, memory = draw(st.sampled_from(MODELS))
        kind = draw(KINDS)
        labels = draw(st.sampled_from(({}, {}, {"link": "a"}, {"link": "b"})))
        devices.append(Device(f"{name}/{slot}", name, kind, model, memory * GIB, labels))
    rack = draw(st.sampled_from(("r1", "r2")))
    cpu = draw(st.sampled_from((0, 4000, 16000)))
    return Machine(name, tuple(devices), {"rack": rack}, cpu, 64 * GIB)


pools = st.integers(1, 4).flatmap(
    lambda count: st.tuples(*(machine(f"s{number}") for number in range(count)))
)

sizes = st.builds(
    Demand,
    kind=KINDS,
    count=st.sampled_from((1, 1, 1, 2, 3, 5)),
    models=st.sampled_from(((), (), (), ("L4",), ("A100",), ("A100", "L4"))),
    memory=st.sampled_from((0, 0, 8 * GIB, 20 * GIB, 40 * GIB)),
    compute=st.sampled_from((WHOLE, WHOLE, 500, 330, 250, 100)),
    cpu_milli=st.sampled_from((0, 0, 0, 0, 0, 0, 2000, 8000)),
    same_server=st.sampled_from(("prefer", "require")),
)

names = st.frozensets(st.sampled_from(("s0", "s1", "s0/0", "s1/1", "s2/0", "s3/2")), max_size=2)

demands = st.builds(
    lambda size, labels, avoid, only: replace(size, labels=labels, avoid=avoid, only=only),
    sizes,
    st.sampled_from(((), (), (), (("rack", "r1"),), (("link", "a"),))),
    st.one_of(st.just(frozenset()), names),
    st.one_of(st.none(), st.none(), names),
)

host_demands = st.builds(Demand, count=st.just(0), cpu_milli=st.sampled_from((500, 3000)))

typicals = st.one_of(st.lists(sizes, min_size=2, max_size=6), st.just([])).map(typical_of)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), st.one_of(demands, demands, sizes, host_demands)),
        st.tuples(st.just("lease"), demands),
        st.tuples(st.just("end"), st.integers(0, 9)),
        st.tuples(st.just("hold"), st.sampled_from(("s0/0", "s1/1", "s2/0"))),
        st.tuples(st.just("release"), st.sampled_from(("s0/0", "s1/1", "s2/0"))),
        st.tuples(st.just("away"), st.sampled_from(("s0", "s1"))),
    ),
    max_size=12,
)


def engine_of(state: State, *, backwards: bool = False) -> Placement:
    """An engine that has just learned of everything."""
    placement = Placement(state.typical)
    for placed in state.taken:
        placement.take(placed)
    for each in sorted(state.machines.values(), key=lambda each: each.name, reverse=backwards):
        placement.update(each)
    for device, reason in state.unusable.items():
        placement.set_usable(device, reason)
    return placement


def play(pool: tuple[Machine, ...], state: State, story: list[tuple[str, object]]) -> Placement:
    """Lets things happen, to the engine and to the state."""
    placement = Placement(state.typical)
    for each in pool:
        placement.update(each)
        state.machines[each.name] = each
    known = {device.id for each in pool for device in each.devices}
    for what, about in story:
        match what, about:
            case "lease", Demand():
                found = placement.place(about)
                if isinstance(found, Placed):
                    placement.take(found)
                    state.taken.append(found)
            case "end", int():
                if state.taken:
                    placement.give_back(state.taken.pop(about % len(state.taken)))
            case "hold", str():
                if about in known:
                    placement.set_usable(about, "cordoned")
                    state.unusable[about] = "cordoned"
            case "release", str():
                if about in known:
                    placement.set_usable(about)
                    state.unusable.pop(about, None)
            case "away", str():
                # It goes and comes back: its leases stay, what was said of its devices does not.
                if about in state.machines:
                    placement.remove(about)
                    placement.update(state.machines[about])
                    for device in state.machines[about].devices:
                        state.unusable.pop(device.id, None)
    return placement


@checked
@given(pools, typicals, steps)
def test_nothing_is_given_twice(
    pool: tuple[Machine, ...], typical: Typical, story: list[tuple[str, object]]
) -> None:
    state = State(typical)
    placement = play(pool, state, story)
    for each in pool:
        for left in state.left(each):
            assert left.memory >= 0
            assert left.compute >= 0
            assert placement.left(left.device.id) == (left.memory, left.compute)
        assert min(state.host_left(each)) >= 0


@checked
@given(pools, typicals, steps)
def test_giving_everything_back_leaves_nothing_taken(
    pool: tuple[Machine, ...], typical: Typical, story: list[tuple[str, object]]
) -> None:
    state = State(typical)
    placement = play(pool, state, story)
    for placed in state.taken:
        placement.give_back(placed)
    for each in pool:
        for device in each.devices:
            assert placement.left(device.id) == (device.memory, WHOLE)


@checked
@given(pools, typicals, steps, demands)
def test_what_it_answers_does_not_depend_on_how_things_came_to_be(
    pool: tuple[Machine, ...],
    typical: Typical,
    story: list[tuple[str, object]],
    demand: Demand,
) -> None:
    state = State(typical)
    found = play(pool, state, story).place(demand)
    assert found == engine_of(state).place(demand)
    assert found == engine_of(state, backwards=True).place(demand)


@checked
@given(pools, typicals, steps, demands)
def test_a_demand_is_met_wholly_or_refused_for_a_reason(
    pool: tuple[Machine, ...],
    typical: Typical,
    story: list[tuple[str, object]],
    demand: Demand,
) -> None:
    state = State(typical)
    found = play(pool, state, story).place(demand)
    if isinstance(found, Refusal):
        assert not state.can_place(demand)
        devices = sum(len(each.devices) for each in pool)
        assert found.fitting + sum(count for _, count in found.filtered) == devices
        assert found.reason
        return
    assert state.can_place(demand)
    assert len(found.slices) == len({part.device for part in found.slices}) == demand.count
    homes: Counter[str] = Counter()
    for each in pool:
        for slot in state.fitting(demand, each):
            if each.devices[slot].id in {part.device for part in found.slices}:
                homes[each.name] += 1
    assert homes.total() == demand.count
    assert len(homes) == (
        1 if any(state.holds_all(demand, each) for each in pool) else state.fewest_servers(demand)
    )


@settings(checked, max_examples=4 * EXAMPLES)
@given(
    pools, typicals, steps, st.one_of(sizes, sizes, demands, host_demands), st.sampled_from((1, 99))
)
def test_kept_scores_are_those_worked_out_from_scratch(
    pool: tuple[Machine, ...],
    typical: Typical,
    story: list[tuple[str, object]],
    demand: Demand,
    standings_least: int,
) -> None:
    with mock.patch.object(machines, "STANDINGS_LEAST", standings_least):
        compare_scores(pool, typical, story, demand)


def compare_scores(
    pool: tuple[Machine, ...],
    typical: Typical,
    story: list[tuple[str, object]],
    demand: Demand,
) -> None:
    state = State(typical)
    placement = play(pool, state, story)
    # Twice: so that some scores are known, and some of them are to be brought up to date.
    for _ in range(2):
        ranks = {
            each.name: state.rank(demand, each) for each in pool if state.holds_all(demand, each)
        }
        assert placement.scores(demand) == {name: -rank[0] for name, rank in ranks.items()}
        found = placement.place(demand)
        if not ranks:
            return
        winner = min(ranks, key=lambda name: (ranks[name], name))
        assert isinstance(found, Placed)
        if demand.count == 0:
            assert found.host is not None
            assert found.host.server == winner
        else:
            devices = [device.id for device in state.machines[winner].devices]
            slots = [devices.index(part.device) for part in found.slices]
            assert -state.score(demand, state.machines[winner], slots) == ranks[winner][0]
        placement.take(found)
        state.taken.append(found)
