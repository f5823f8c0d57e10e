"""Lines of events that no recorder has written: what reads them reads or refuses them, in one line.

Each field of each kind of event, at any depth, is each of `ODD` in its turn.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from harp_replay.events import event
from replay.made import Made

Look = Callable[..., Any]
Lines = list[dict[str, Any]]
Where = tuple[str | int, ...]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


ODD: dict[str, Any] = {
    "null": None,
    "true": True,
    "negative": -1,
    "fraction": 1.5,
    "63 bits": 1 << 63,
    "64 bits": (1 << 64) - 1,
    "65 bits": 1 << 64,
    "4,300 digits": 10**4_300 - 1,
    "empty": "",
    "escape": "\x1b[31m</script>",
    "half a character": "half \ud800",
    "list": [],
    "lists": [[], {}, 1, "x"],
    "object": {},
    "handle": {"kind": [], "id": []},
    "address": {"address": [], "allocation": [], "bytes": [], "hex": "zz" * 8, "devices": [None]},
    "deep": nested(100),
}
"""What a field may be instead."""


def stream() -> Lines:
    """Each kind of event, with all fields that anything reads."""
    made = Made()
    handle = {"kind": "Context", "id": 1}
    made.one_way("cuDevicePrimaryCtxRetain", args={"pctx": handle, "dev": 0})
    made.one_way("harp_set_current", args={"context": handle})
    made.allocate(1000)
    made.upload("a")
    fill = {"dst": {"address": 1, "allocation": 0, "offset": 0}, "N": 3, "hStream": 0}
    made.one_way("cuMemsetD32Async", args=fill)
    box = {"width": 1, "height": 2, "depth": 3, "stream": 2}
    made.one_way("harp_copy_box_on_device", args=box)
    made.launch("scale", stream=3, took=5_000, demangled="scale<float>")
    made.download("b")
    made.leave(made.enter("cuTexObjectCreate"), 801)
    for line in made.lines:
        if line["type"] == "reply":
            line |= {"deferred": 0, "outs": {"code": 1, "at": 1 << 40, "time": 0.5}}
        elif line["type"] == "process":
            line |= {"payload": {"images": "full"}}
    made.add("push", time=1, session=0, kind="callback")
    made.add("loss", time=1, reasons=["no room"], blocks=1, bytes=2)
    made.add("snapshot", session=0, device=0, address=1, bytes=2)
    made.add("annotation", workload="gone", time=1, name="m")
    made.add("free", allocation=0, time=made.now)
    made.end()
    made.lines[-1]["manifest"] = {
        "program": "p",
        "started": "then",
        "counts": {"blobs": 1, "blob_bytes": 2},
    }
    return made.lines


def places(value: Any, path: Where = ()) -> Iterator[Where]:
    """Where there is a value in a value of JSON."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def with_odd(line: dict[str, Any], path: Where, odd: Any) -> dict[str, Any]:
    changed = copy.deepcopy(line)
    inner: Any = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return changed


TOLD = ("define", "process", "session", "annotation", "end", "trace")
"""What is said once, and whose fields are read one by one."""

COMMANDS = (
    ("info", "LINES"),
    ("info", "LINES", "--json"),
    ("stats", "LINES"),
    ("stats", "LINES", "--format", "csv"),
    ("stats", "LINES", "--format", "json"),
    ("report", "LINES", "-o", "OUT"),
    ("export", "LINES", "-o", "OUT"),
    ("export", "--chrome", "LINES", "-o", "OUT"),
    ("diff", "LINES", "LINES"),
    ("diff", "LINES", "LINES", "--json"),
    ("predict", "LINES", "--rtt", "1ms"),
    ("predict", "LINES", "--json"),
)


def is_event(line: dict[str, Any]) -> bool:
    """Whether a line is one; nothing else may be the matter with it than what `event` says."""
    try:
        event(line)
    except (KeyError, TypeError):
        return False
    return True


def mutants() -> Iterator[tuple[object, Lines]]:
    """Streams with odd fields, and whose they are.

    What is said once has one odd value in each of its lines. Other events are there as they were,
    and after that with each odd value that leaves them an event.
    """
    lines = stream()
    ends = [list(places(line)) for line in lines]
    for name, odd in ODD.items():
        for number in range(1, max(map(len, ends))):
            changed = [
                with_odd(line, paths[number], odd)
                if line["type"] in TOLD and number < len(paths)
                else line
                for line, paths in zip(lines, ends, strict=True)
            ]
            if changed != lines:
                yield (name, number), list(filter(is_event, changed))
    seen = set()
    for at, (line, paths) in enumerate(zip(lines, ends, strict=True)):
        for path in paths:
            field = (line["type"], line["type"] == "call" and line["name"], path)
            if line["type"] not in TOLD and field not in seen:
                seen.add(field)
                odd_ones = filter(is_event, (with_odd(line, path, odd) for odd in ODD.values()))
                yield field, [*lines[: at + 1], *odd_ones, *lines[at + 1 :]]


def write(path: Path, lines: Lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_odd_fields_are_read_or_refused_by_every_command(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    places = {"LINES": path, "OUT": tmp_path / "out"}
    count = 0
    for field, lines in mutants():
        write(path, lines)
        for words in COMMANDS:
            ended = look(*(places.get(word, word) for word in words))
            assert ended.status == 0, (field, words, ended)
            # CSV is for programs, which get names as they are.
            assert "\x1b" not in ended.out or "csv" in words, (field, words)
            count += 1
    assert count > 1_000


def test_a_line_that_is_no_event_is_told(look: Look, tmp_path: Path) -> None:
    lines = stream()
    calls = [at for at, line in enumerate(lines) if line["type"] == "call"]
    lines[calls[1]]["thread"] = -1
    path = write(tmp_path / "odd.jsonl", lines)
    for words in COMMANDS:
        ended = look(*({"LINES": path, "OUT": tmp_path / "out"}.get(word, word) for word in words))
        told = f"harp-replay: line {calls[1] + 1} of the events of {path} is no event. Next: "
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith(told)
        assert ended.err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize(
    "value",
    [
        "[" * 200 + "]" * 200,
        "[" * 100_000 + "]" * 100_000,
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 5_000,
    ],
    ids=["deep", "deeper", "nan", "infinite", "too large", "too long"],
)
def test_what_only_python_takes_for_json_is_refused(
    look: Look, tmp_path: Path, value: str, end: str
) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text(f'{{"type":"end","reason":"exit","more":{value}}}{end}')
    for words in (("info", path, "--json"), ("workload", path)):
        ended = look(*words)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith(f"harp-replay: line 1 of the events of {path} is no event. ")


def workload() -> Lines:
    """Two jobs for one machine: each kind of line, with all of its fields."""
    device = {"kind": "gpu", "model": "A", "memory": 1 << 30, "labels": {"link": "1"}}
    demand = {"count": 1, "compute": 500, "kind": "gpu", "memory": 5, "models": ["A"]}
    demand |= {"labels": {"rack": "r"}, "same_server": "require"}
    told: list[tuple[str, dict[str, Any]]] = [
        ("machine", {"name": "m", "labels": {"rack": "r"}, "devices": [device]}),
        ("arrival", {"lease": "a", "tenant": "ml", "priority": 1, "demand": demand}),
        ("arrival", {"lease": "b", "demand": demand}),
        ("grant", {"lease": "a", "slices": [{"device": "m/0", "memory": 5, "compute": 500}]}),
        ("end", {"lease": "a"}),
        ("gone", {"name": "m"}),
    ]
    return [
        {"type": "annotation", "workload": what, "time": at * 10**9, **fields}
        for at, (what, fields) in enumerate(told)
    ]


def test_odd_fields_of_a_workload_are_driven_or_refused(look: Look, tmp_path: Path) -> None:
    lines = workload()
    path = tmp_path / "odd.jsonl"
    statuses = Counter[int]()
    for at, line in enumerate(lines):
        for place, (name, odd) in product(places(line), ODD.items()):
            write(path, [*lines[:at], with_odd(line, place, odd), *lines[at + 1 :]])
            ended = look("workload", path, "--policy", "spread", "--json")
            assert_driven_or_refused(ended, (at, place, name))
            statuses[ended.status] += 1
    assert min(statuses[0], statuses[2]) > 100


ODD_CELLS = ("", "x", "-1", "nan", "inf", "1e300", "9" * 30, "9" * 5_000, "half \udcff")


def test_odd_cells_of_a_list_are_driven_or_refused(look: Look, tmp_path: Path) -> None:
    machines = ["sn,gpu,model,gpu_memory", "m,2,A,1000"]
    jobs = ["name,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time,scheduled_time"]
    jobs += ["a,1,500,A,0,9,0", "b,1,1000,,1,9,1"]
    paths = [tmp_path / "machines.csv", tmp_path / "jobs.csv"]
    for rows in (machines, jobs):
        last = rows[-1]
        cells = last.split(",")
        for at, odd in product(range(len(cells)), (*ODD_CELLS, None)):
            # None ends the row there.
            changed = cells[:at] if odd is None else [*cells[:at], odd, *cells[at + 1 :]]
            rows[-1] = ",".join(changed)
            for path, of in zip(paths, (machines, jobs), strict=True):
                path.write_text("\n".join(of) + "\n", errors="surrogateescape")
            words = ("--machines", paths[0], "--policy", "spread", "--json")
            ended = look("workload", paths[1], *words)
            assert_driven_or_refused(ended, (rows[0].split(",")[at], odd))
        rows[-1] = last


def assert_driven_or_refused(ended: Any, case: object) -> None:
    assert ended.status in (0, 2), (case, ended)
    assert ended.err.count("\n") == ended.status // 2, (case, ended)
    assert "NaN" not in ended.out, (case, ended)
