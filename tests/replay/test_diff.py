"""`harp-replay diff` finds what differs, and nothing that differs in every run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harp_replay.align import align
from replay.made import Made, small

Look = Callable[..., Any]
Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def compare(look: Look, tmp_path: Path) -> Compare:
    def compare(a: Made, b: Made) -> dict[str, Any]:
        files = [made.write(tmp_path / f"{name}.jsonl") for name, made in (("a", a), ("b", b))]
        ended = look("diff", *files, "--json")
        found: dict[str, Any] = json.loads(ended.out)
        assert ended.status == bool(
            found["different"] or found["api_calls"] or found["failed"] or found["kernels"]
        )
        people = look("diff", *files)
        assert people.status == ended.status
        assert (people.out == "no difference\n") == (ended.status == 0)
        return found

    return compare


def changed(made: Made, change: Callable[[dict[str, Any]], None]) -> Made:
    """Every line of a trace, changed."""
    made.lines = json.loads(json.dumps(made.lines))
    for line in made.lines:
        change(line)
    return made


def test_times_ids_and_addresses_do_not_count(compare: Compare) -> None:
    def other_run(line: dict[str, Any]) -> None:
        for key in ("time", "began", "ended"):
            if key in line:
                line[key] = line[key] * 3 + 17
        if "ticket" in line:
            line["ticket"] += 1000
        if line["type"] == "process":
            line |= {"pid": 9999, "started": "2027-01-01T00:00:00Z"}
        if line["type"] == "allocation":
            line["address"] += 1 << 40
        stream = line.get("args", {}).get("stream")
        if isinstance(stream, dict):
            stream["id"] += 5

    found = compare(small(), changed(small(took=5), other_run))
    assert found["different"] == 0


def test_addresses_among_parameters_do_not_count_and_offsets_do(compare: Compare) -> None:
    def program(base: int, offset: int) -> Made:
        made = Made()
        made.allocate(1 << 16)
        for line in made.lines:
            if line["type"] == "allocation":
                line["address"] = base
        made.launch("k")
        params = (base + offset).to_bytes(8, "little") + (7).to_bytes(8, "little")
        for line in made.lines:
            if line.get("kernel"):
                line["args"]["params"] = {"bytes": 16, "hex": params.hex()}
        made.end()
        return made

    assert compare(program(0x7000_0000, 64), program(0x9999_0000, 64))["different"] == 0
    found = compare(program(0x7000_0000, 64), program(0x9999_0000, 72))
    assert found["different"] == 1
    (field,) = found["first"]["fields"]
    assert field["field"] == "params"
    assert field["a"][0] == {"in": 0, "offset": 64}


def test_a_call_too_many_is_found_and_the_others_still_belong_together(compare: Compare) -> None:
    a, b = small(), Made()
    b.allocate(1000)
    for content in "aab":
        b.upload(content)
    b.launch("vector_add", stream=3)
    b.launch("intruder")
    for _ in range(2):
        b.launch("vector_add", stream=3)
    b.launch("scale<float>")
    b.download("c")
    b.leave(b.enter("cuTexObjectCreate"), 801)
    b.end()
    found = compare(a, b)
    assert found["by_kind"] == {"only in B": 1}
    assert found["first"]["name"] == "cuLaunchKernel intruder"
    assert (found["first"]["a"], found["first"]["b"]) == (None, 5)
    assert found["api_calls"] == {"cuLaunchKernel": [4, 5]}
    assert list(found["kernels"]) == ["intruder <<<[4, 1, 1], [128, 1, 1]>>>"]


def test_other_data_is_found_where_both_have_hashes(compare: Compare) -> None:
    def other_data(line: dict[str, Any]) -> None:
        if line.get("payload", {}).get("hash") == "b" * 64:
            line["payload"]["hash"] = "f" * 64

    found = compare(small(), changed(small(), other_data))
    assert found["by_kind"] == {"call": 1}
    assert found["payloads"] == [{"a": 3, "b": 3, "of": "call", "name": "cuMemcpyHtoD_v2"}]

    def other_answer(line: dict[str, Any]) -> None:
        if line.get("payload", {}).get("hash") == "c" * 64:
            line["payload"]["hash"] = "f" * 64

    found = compare(small(), changed(small(), other_answer))
    assert found["by_kind"] == {"answer": 1}
    assert found["first"]["name"] == "cuMemcpyDtoH_v2"


def test_of_data_only_sizes_count_where_one_trace_has_no_hashes(compare: Compare) -> None:
    def without(line: dict[str, Any]) -> None:
        if "payload" in line:
            line["payload"] = {"policy": "shape", "bytes": line["payload"]["bytes"]}
        if line["type"] == "process":
            line["payload"] = {"uploads": "shape"}

    found = compare(small(), changed(small(), without))
    assert (found["different"], found["by_hash"]) == (0, False)


def test_another_result_and_another_shape_are_found(compare: Compare) -> None:
    def change(line: dict[str, Any]) -> None:
        if line.get("result") == 801:
            line["result"] = 1
        if line.get("kernel") == "scale<float>":
            line["args"]["grid"] = [8, 1, 1]

    found = compare(small(), changed(small(), change))
    assert found["failed"] == {
        "cuTexObjectCreate → CUDA_ERROR_INVALID_VALUE": [0, 1],
        "cuTexObjectCreate → CUDA_ERROR_NOT_SUPPORTED": [1, 0],
    }
    assert [field["field"] for field in found["first"]["fields"]] == ["grid"]
    assert sorted(found["kernels"].values()) == [[0, 1], [1, 0]]


def test_how_often_a_program_polls_does_not_count(compare: Compare) -> None:
    def polling(times: int) -> Made:
        made = Made()
        for _ in range(times):
            made.waiting("cuEventQuery", "data", args={"hEvent": {"kind": "Event", "id": 4}})
        made.launch("k")
        made.end()
        return made

    assert compare(polling(3), polling(50))["different"] == 0


def test_threads_may_take_turns_in_another_order(compare: Compare) -> None:
    def program(order: str) -> Made:
        made = Made()
        for thread in order:
            made.launch(f"kernel_{thread}", stream=int(thread))
            for line in made.lines[-3:]:
                line["thread"] = int(thread)
        made.end()
        return made

    assert compare(program("121212"), program("112212"))["different"] == 0
    assert compare(program("121212"), program("11212"))["by_kind"] == {"only in A": 1}


def test_long_traces_that_are_wholly_different_are_told_in_part(compare: Compare) -> None:
    a, b = Made(), Made()
    for _ in range(400):
        a.launch("a")
        b.launch("b")
    a.end()
    b.end()
    found = compare(a, b)
    assert found["by_kind"] == {"only in A": 400, "only in B": 400}
    assert len(found["differences"]) == 20
    assert found["first"]["name"] == "cuLaunchKernel a"


@pytest.mark.parametrize("seed", range(20))
def test_alignment_covers_both_sequences_and_pairs_equals(seed: int) -> None:
    chance = random.Random(seed)
    a = [chance.randrange(6) for _ in range(chance.randrange(120))]
    b = list(a)
    for _ in range(chance.randrange(8)):
        at = chance.randrange(len(b) + 1)
        if chance.random() < 0.5:
            b[at : at + chance.randrange(5)] = []
        else:
            b[at:at] = [chance.randrange(9) for _ in range(chance.randrange(5))]
    window = chance.choice([3, 10, 1000])
    i = j = 0
    for part in align(a, b, window):
        assert (part.a[0], part.b[0]) == (i, j)
        i, j = part.a[1], part.b[1]
        if part.together:
            assert a[slice(*part.a)] == b[slice(*part.b)]
    assert (i, j) == (len(a), len(b))
