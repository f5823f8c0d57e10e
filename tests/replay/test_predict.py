"""`harp-replay predict`: the model against what follows by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harp_client.errors import HarpError
from harp_client.quantities import bit_rate, nanoseconds
from harp_replay.events import event
from harp_replay.network import START_TURNS, Model, Network, Recorded
from replay.made import Made, small

Look = Callable[..., Any]

MS = 1_000_000
HERE = Network(100_000)
"""What `Made` says that it was recorded over."""


def near(ns: float) -> Any:
    """Small calls have some bytes too."""
    return pytest.approx(ns, abs=5_000)


def modelled(made: Made, network: Network, recorded: Network = HERE, pace: float = 0) -> Model:
    events = [found for line in made.lines if (found := event(line)) is not None]
    return Model(network, recorded, pace).run(events)


def test_over_the_recorded_network_a_run_takes_what_it_took() -> None:
    model = modelled(small(), HERE)
    assert model.time == near(model.recorded)
    assert model.waited == near(model.recorded_waited)
    assert model.recorded_waited == 400_000


@pytest.mark.parametrize("trip_ms", [1, 10, 30])
def test_each_wait_costs_a_round_trip_more_and_other_calls_nothing(trip_ms: int) -> None:
    model = modelled(small(), Network(trip_ms * MS))
    assert model.time - model.recorded == near(2 * (trip_ms * MS - 100_000))


def test_a_nearer_server_is_no_faster_than_its_own_work() -> None:
    model = modelled(small(), Network(0))
    assert model.recorded - model.time == 2 * 100_000
    # Told a round trip that no answer can have had, it takes the shortest that one had.
    found = Recorded().count(
        [found for line in small().lines if (found := event(line)) is not None]
    )
    assert (found.told, found.round_trip) == (100_000, 100_000)
    far = small()
    for line in far.lines:
        if line["type"] == "session":
            line["round_trip_ns"] = 5 * MS
    found = Recorded().count([found for line in far.lines if (found := event(line)) is not None])
    assert found.round_trip == found.fastest == 202_000


def test_answers_that_were_asked_for_early_are_not_waited_for_twice() -> None:
    """Four answers are asked for at once, and then waited for: one round trip in all."""
    made = Made()
    sent = [made.call("cuMemcpyDtoHAsync_v2", answered=True) for _ in range(4)]
    made.now += 300_000
    for number in sent:
        made.add("reply", call=number, time=made.now, session=0, name="x", status=0, size=16)
        fields = {"thread": 1, "session": 0, "began": made.now - 100, "ended": made.now}
        made.add("wait", call=number, name="x", because="data", **fields)
        made.now += 100
    made.end()
    model = modelled(made, Network(10 * MS))
    assert model.time - model.recorded == pytest.approx(10 * MS - 100_000, abs=300)


def test_bytes_take_their_time_each_way() -> None:
    up = Made()
    up.upload("a", 10_000_000)
    up.waiting("cuCtxSynchronize", "data")
    slow = Network(100_000, 1.25)  # 10 Gbit/s
    model = modelled(up, slow)
    # What comes before the wait hides a little of it.
    assert model.time - model.recorded == pytest.approx(8 * MS, rel=0.01)
    down = Made()
    down.download("a", 10_000_000)
    model = modelled(down, slow)
    assert model.time - model.recorded == pytest.approx(8 * MS, rel=0.01)
    # Bytes that the recorded network took as long for are not counted again.
    model = modelled(down, slow, pace=10_000_000 / 102_000)
    assert model.time - model.recorded == pytest.approx(8 * MS - 102_000, rel=0.01)


def test_a_sender_waits_with_more_than_may_be_on_its_way() -> None:
    made = Made()
    for _ in range(4):
        made.upload("a", 16 << 20)
    made.end()
    model = modelled(made, Network(100_000, 0.125))  # 1 Gbit/s
    # All but the last 8 MiB have left.
    assert model.time == pytest.approx(((64 << 20) - (8 << 20)) / 0.125, rel=0.01)


def test_a_session_begins_with_several_round_trips_and_network_waits_are_the_models() -> None:
    made = Made()
    for because in ("start_up", "network"):
        began, made.now = made.now, made.now + MS
        fields = {"call": None, "name": "", "thread": 1, "session": 0}
        made.add("wait", began=began, ended=made.now, because=because, **fields)
    made.one_way("cuLaunchKernel")
    made.end()
    model = modelled(made, Network(10 * MS))
    assert model.time - model.recorded == START_TURNS * (10 * MS - 100_000) - MS


def test_threads_wait_each_for_themselves() -> None:
    made = Made()
    for thread in (1, 2):
        start = len(made.lines)
        made.now = 0
        for _ in range(thread):
            made.waiting("cuCtxSynchronize", "synchronise")
        for line in made.lines[start:]:
            if "thread" in line:
                line["thread"] = thread
    made.lines[4:] = sorted(made.lines[4:], key=lambda line: line.get("time", line.get("ended")))
    made.end()
    model = modelled(made, Network(10 * MS))
    assert model.time - model.recorded == near(2 * (10 * MS - 100_000))


def test_the_command_tells_each_round_trip(look: Look, untimed: Path) -> None:
    ended = look("predict", "--rtt", "1ms", "--rtt", "10ms", "--json", untimed)
    found = json.loads(ended.out)
    assert found["recorded_rtt_seconds"] == 100e-6
    assert [run["rtt_seconds"] for run in found["runs"]] == [0.001, 0.01]
    first, second = (run["seconds"] for run in found["runs"])
    assert second - first == pytest.approx(2 * 0.009, rel=1e-3)
    told = look("predict", "--rtt", "10ms", "--bandwidth", "1Gbit", untimed).out
    assert "at 10 ms and 1Gbit: 0.020 s, of which waiting 0.020 s in 2 waits" in told


def test_a_trace_without_waits_foretells_nothing(look: Look, tmp_path: Path) -> None:
    made = small()
    made.lines = [line for line in made.lines if line["type"] != "wait"]
    ended = look("predict", made.write(tmp_path / "server.jsonl"))
    assert ended.status == 2
    assert "does not say what the program waited for" in ended.err


def test_quantities_are_written_as_people_write_them(look: Look, untimed: Path) -> None:
    assert nanoseconds("0.2ms") == nanoseconds("200us") == nanoseconds("200 µs") == 200_000
    assert bit_rate("10Gbit") == bit_rate("10 Gbit/s") == 1e10
    for wrong in ("0Gbit", "fast", "10GiB"):
        with pytest.raises(HarpError):
            bit_rate(wrong)
    ended = look("predict", "--rtt", "soon", untimed)
    assert (ended.status, ended.err) == (
        2,
        "harp-replay: 'soon' is no round trip. Next: write it like 0.2ms or 150us\n",
    )
