"""Replays of traces that nobody has recorded: each ends, and says what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harp_client import native
from programs import build
from replay.stage import LONGEST, Replayed, Stage, calls_of, lines_of

SEED = int(os.environ.get("HOSTILE_SEED", "1"))
MUTANTS = int(os.environ.get("HOSTILE_TRACES", "16"))
PATIENCE = ("--timeout", "1")
GOLDEN = Path(__file__).parent / "golden" / "v1.1" / "timed_add.htrace"


def record_functions(stage: Stage) -> list[dict[str, Any]]:
    """A program whose streams wait for its functions, and it for its streams."""
    program = build.programs()["host_callback"]
    return stage.events(stage.record(build.build(program.name, program.variants[0])))


def numbers_in(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where there are numbers in a value of JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers_in(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers_in(inner, (*path, index))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path


def mutate(events: list[dict[str, Any]], chance: random.Random) -> list[dict[str, Any]]:
    """The events with one to three changes: of order, of number, of what they say."""
    changed: list[dict[str, Any]] = json.loads(json.dumps(events))
    # The last event says how the trace ends.
    for _ in range(chance.randrange(1, 4)):
        at = chance.choice(
            [i for i, each in enumerate(changed[:-1]) if each["type"] in ("call", "reply", "push")]
        )
        event = changed.pop(at)
        match chance.choice(["drop", "double", "move", "number"]):
            case "double":
                changed[at:at] = [event, event]
            case "move":
                to = chance.randrange(max(1, at - 50), min(len(changed) - 1, at + 50))
                changed.insert(to, event)
            case "number":
                paths = [path for path in numbers_in(event) if path[-1] not in ("number", "id")]
                path = chance.choice(paths)
                inner: Any = event
                for key in path[:-1]:
                    inner = inner[key]
                old = inner[path[-1]]
                inner[path[-1]] = chance.choice([1, old + 1, old ^ 1 << chance.randrange(20)])
                changed.insert(at, event)
    return changed


def test_mutated_traces_end_with_a_word(stage: Stage) -> None:
    events = record_functions(stage)
    refused = 0
    for number in range(MUTANTS):
        mutant = mutate(events, random.Random(f"{SEED} {number}"))
        done = stage.replay(stage.assemble(mutant, f"mutant{number}"), *PATIENCE)
        assert_ends_with_a_word(done, (SEED, number))
        refused += done.status == 2
    assert refused > MUTANTS / 4


def assert_ends_with_a_word(done: Replayed, case: object) -> None:
    """Either there is a result, or one line with a cause and a next step."""
    assert done.status in (0, 1, 2, 6), (case, done)
    assert (done.told.count("\n"), " Next: " in done.told) == (
        (1, True) if done.status in (2, 6) else (0, False)
    ), (case, done)


def test_enormous_numbers_end_with_a_word(stage: Stage) -> None:
    """Each number of each call in its turn: addresses, sizes, ids."""
    statuses = []
    events = stage.events(GOLDEN)
    for call in (event for event in events if event["type"] == "call"):
        for path in numbers_in(call["args"]):
            inner: Any = call["args"]
            for key in path[:-1]:
                inner = inner[key]
            kept, inner[path[-1]] = inner[path[-1]], 1 << 63
            with contextlib.suppress(subprocess.CalledProcessError):  # it has 32 bits
                done = stage.replay(stage.assemble(events, f"enormous{len(statuses)}"), *PATIENCE)
                assert_ends_with_a_word(done, (call, path))
                statuses.append(done.status)
            inner[path[-1]] = kept
    assert {1, 2, 6} <= set(statuses)


def without_content(trace: Path) -> None:
    upload_of(trace).unlink()


def with_another_content(trace: Path) -> None:
    flip_in_the_middle(upload_of(trace))


def with_other_calls(trace: Path) -> None:
    flip_in_the_middle(trace / "calls.zst")


def of_a_later_format(trace: Path) -> None:
    manifest = trace / "MANIFEST.json"
    fields = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(fields | {"min_reader": 9}))


def from_the_middle(trace: Path) -> None:
    """As a server records it that has been told to in the middle of a session."""
    events = lines_of("events", trace, "--full")
    (process,) = (event for event in events if event["type"] == "process")
    process["from_start"] = False
    lines = trace.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(event) + "\n" for event in events))
    shutil.rmtree(trace)
    command = [native.find().trace, "assemble", lines, "--out", trace]
    subprocess.run(command, check=True, timeout=LONGEST)


def upload_of(trace: Path) -> Path:
    """The file with the first thing that the program sent."""
    events = lines_of("events", trace)
    name = calls_of(events, "cuMemcpyHtoD_v2")[0]["payload"]["hash"]
    return trace / "blobs" / name[:2] / name


def flip_in_the_middle(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_content, ": the trace does not hold this content. "),
        (with_another_content, " at byte 0: the content has another hash than its name. "),
        (with_other_calls, "calls.zst at byte 0: the frame does not decompress: "),
        (from_the_middle, "the trace lacks the beginning of its session. "),
        (of_a_later_format, " needs a reader of version 9; this one has version 2. "),
    ],
)
def test_a_damaged_trace_is_not_replayed(
    stage: Stage, damage: Callable[[Path], None], told: str
) -> None:
    trace = shutil.copytree(GOLDEN, stage.folder / "damaged.htrace")
    damage(trace)
    done = stage.replay(trace)
    assert_ends_with_a_word(done, damage)
    assert (done.status, done.result) == (2, {})
    assert told in done.told


def test_functions_that_cannot_have_been_reached_are_refused(stage: Stage) -> None:
    """One returns after the next one of its stream is reached: no device ever gets there."""
    events = record_functions(stage)
    streams = {
        call["args"]["callback"]: call["args"]["stream"]
        for call in calls_of(events, "cuLaunchHostFunc")
    }
    told = [event for event in events if event["type"] in ("push", "reply")]
    stream_of = [streams.get(event.get("callback")) for event in told]
    # Two one after the other, between which nobody has heard that the stream is done.
    first, second = next(
        two
        for two, of in zip(pairwise(told), pairwise(stream_of), strict=True)
        if isinstance(of[0], dict) and of[0] == of[1]
    )
    (returns,) = (
        call
        for call in calls_of(events, "harp_callback_done")
        if call["args"]["callback"] == first["callback"]
    )
    events.remove(returns)
    events.insert(events.index(second) + 1, returns)
    done = stage.replay(stage.assemble(events))
    assert done.status == 2
    assert "a host function is reached before that of call" in done.told


@pytest.mark.parametrize("name", ["cuLaunchHostFunc", "harp_callback_done"])
def test_functions_are_queued_once_and_return_once(stage: Stage, name: str) -> None:
    events = record_functions(stage)
    call = calls_of(events, name)[3]
    events.insert(events.index(call) + 1, call)
    done = stage.replay(stage.assemble(events))
    assert done.status == 2
    assert f"call {call['number'] + 1}: " in done.told


def test_a_kernel_that_never_ends_is_not_waited_for(stage: Stage) -> None:
    events = stage.events(stage.record("linked"))
    links, follows = (
        [each for each in calls_of(events, "cuLaunchKernel") if each["kernel"] == kernel]
        for kernel in ("link", "follow")
    )
    # What the chain begins with leads to itself, and is followed 2^32 times.
    first = links[1]["args"]["params"]
    first["hex"] = 2 * first["hex"][:16]
    (follow,) = follows
    params = follow["args"]["params"]
    params["hex"] = params["hex"][:32] + "00000000"
    fetch = calls_of(events, "cuMemcpyDtoH_v2")[0]
    done = stage.replay(stage.assemble(events), *PATIENCE)
    assert done.status == 6
    waits = f"the replay waits for call {fetch['number']} (cuMemcpyDtoH_v2) to be answered"
    assert f"the device has said nothing for 1 s, and {waits}" in done.told
    assert "with --to, or wait longer with --timeout SECONDS" in done.told
