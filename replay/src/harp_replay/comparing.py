"""Two traces of a program, compared call by call: what differs, and what the first of it is."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from harp_replay.align import align
from harp_replay.canon import NOBODYS, POLLS, Canon, Step, digest
from harp_replay.events import Allocation, Call, Enter, Free, Leave, Reply, Told, events
from harp_replay.moved import shape
from harp_replay.results import result_name

SHOWN = 20
"""Differences that are kept and described; all are counted."""

NO_ANSWER = 0


def payload_policy(trace: str) -> Any:
    """How much of the data a trace has, by class; what is hashed and what is kept are alike."""
    for event in events(trace):
        if isinstance(event, Told) and event.kind == "process":
            policies = event.fields.get("payload")
            if not isinstance(policies, Mapping):
                return policies
            return {key: "hash" if each == "full" else each for key, each in policies.items()}
        if isinstance(event, Call):
            break
    return None


class Run:
    """One trace, as it is compared: 28 bytes for each call."""

    def __init__(self, trace: str, by_hash: bool) -> None:
        """Reads the trace. Raises HarpError."""
        self.trace = trace
        self.by_hash = by_hash
        self.api: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()
        self.kinds: list[array[int]] = []
        """Of each thread's calls what they are aligned by."""
        self.numbers: list[array[int]] = []
        self.contents: list[array[int]] = []
        self.answers: array[int] = array("Q")
        """By call number."""
        names: dict[int, str] = {}
        last: dict[int, Step] = {}
        for event, lane, content in steps(trace, by_hash):
            match event:
                case Enter():
                    self.api[event.name] += 1
                    names[event.number] = event.name
                case Leave():
                    name = names.pop(event.enter, None) if event.enter is not None else None
                    if name is not None and name not in POLLS and event.result:
                        self.failed[f"{name} → {result_name(event.result)}"] += 1
                case Call():
                    self.answers.append(NO_ANSWER)
                    if event.kernel is not None:
                        grid, block = shape(event) or ((), ())
                        self.kernels[f"{event.kernel} <<<{list(grid)}, {list(block)}>>>"] += 1
                    if isinstance(content, Step):
                        self._add(lane, content, last)
                case Reply():
                    if event.call is not None and event.call < len(self.answers):
                        self.answers[event.call] = _number(digest(content)) | 1

    def answer(self, number: int) -> int:
        """What a call was answered: a trace may number its calls as it likes."""
        return self.answers[number] if number < len(self.answers) else NO_ANSWER

    def _add(self, lane: int, step: Step, last: dict[int, Step]) -> None:
        while len(self.kinds) <= lane:
            self.kinds.append(array("Q"))
            self.numbers.append(array("Q"))
            self.contents.append(array("Q"))
        before = last.get(lane)
        if before is not None and step.kind in POLLS and before[1:] == step[1:]:
            self.numbers[lane][-1] = step.number
            return
        last[lane] = step
        self.kinds[lane].append(_number(digest(step.kind)))
        self.numbers[lane].append(step.number)
        self.contents[lane].append(_number(step.digest()))


def _number(eight: bytes) -> int:
    return int.from_bytes(eight, "little")


def steps(trace: str, by_hash: bool) -> Iterator[tuple[Any, int, Any]]:
    """The events that are compared; of calls and replies also what counts of them."""
    canon = Canon(by_hash)
    for event in events(trace):
        match event:
            case Allocation():
                canon.memory.allocate(event)
            case Free():
                canon.memory.free(event)
            case Call() if event.name in NOBODYS:
                yield event, 0, None
            case Call():
                lane, step = canon.step(event)
                yield event, lane, step
            case Reply():
                yield event, 0, canon.answer(event)
            case Enter() | Leave():
                yield event, 0, None


class Difference:
    """Calls that are only in one trace, or that differ: numbers of calls, -1 for none."""

    def __init__(self, kind: str, a: int, b: int) -> None:
        self.kind = kind
        self.a = a
        self.b = b
        self.told: dict[str, Any] = {}


def compare(a: Run, b: Run) -> tuple[Counter[str], list[Difference]]:
    """How many differences of each kind there are, and the first of them."""
    counts: Counter[str] = Counter()
    found: list[Difference] = []

    def note(kind: str, one: int, other: int) -> None:
        counts[kind] += 1
        found.append(Difference(kind, one, other))
        if len(found) > 2 * SHOWN:
            found.sort(key=_place)
            del found[SHOWN:]

    empty: array[int] = array("Q")
    for lane in range(max(len(a.kinds), len(b.kinds))):
        kinds_a = a.kinds[lane] if lane < len(a.kinds) else empty
        kinds_b = b.kinds[lane] if lane < len(b.kinds) else empty
        for part in align(kinds_a, kinds_b):
            if not part.together:
                for at in range(*part.a):
                    note("only in A", a.numbers[lane][at], -1)
                for at in range(*part.b):
                    note("only in B", -1, b.numbers[lane][at])
                continue
            for one, other in zip(range(*part.a), range(*part.b), strict=True):
                numbers = a.numbers[lane][one], b.numbers[lane][other]
                if a.contents[lane][one] != b.contents[lane][other]:
                    note("call", *numbers)
                if a.answer(numbers[0]) != b.answer(numbers[1]):
                    note("answer", *numbers)
    found.sort(key=_place)
    return counts, found[:SHOWN]


def _place(difference: Difference) -> tuple[int, int]:
    """In the order of the traces; calls go before their answers."""
    places = [number for number in (difference.a, difference.b) if number >= 0]
    return min(places), difference.kind == "answer"


def describe(a: Run, b: Run, differences: list[Difference]) -> None:
    """Reads both traces again, and says of the differences what they are."""
    sides = []
    for run, side in ((a, "a"), (b, "b")):
        wanted = {getattr(each, side) for each in differences}
        calls: dict[int, Step] = {}
        answers: dict[int, Mapping[str, Any]] = {}
        for event, _, content in steps(run.trace, run.by_hash) if wanted - {-1} else ():
            if isinstance(event, Call) and event.number in wanted and content is not None:
                calls[event.number] = content
            elif isinstance(event, Reply) and event.call is not None and event.call in wanted:
                answers[event.call] = content
        sides.append((calls, answers))
    for each in differences:
        step = sides[0][0].get(each.a) or sides[1][0].get(each.b)
        each.told = {"name": step.kind if step else "?", "fields": []}
        if each.kind in ("call", "answer"):
            contents: list[Mapping[str, Any]] = []
            for (calls, answers), number in zip(sides, (each.a, each.b), strict=True):
                found = calls.get(number) if each.kind == "call" else None
                contents.append(found.content if found else answers.get(number, {}))
            each.told["fields"] = list(_fields(*contents))


def _fields(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The values that differ, by name."""
    for name in sorted({*a, *b}):
        if a.get(name) != b.get(name):
            yield {"field": name, "a": a.get(name), "b": b.get(name)}
