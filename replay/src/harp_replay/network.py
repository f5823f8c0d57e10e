"""A recorded run under another network, computed from what in it depended on what.

What the program does between two calls takes as long as it took. A call that waits for nothing
costs its bytes. An answer comes when its call has arrived, the server has done what it took then,
and the bytes have come back. A wait ends when its answer is there, or at once where it was before.

What is not modelled: programs that poll (they poll longer), devices that programs share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harp_replay.events import Call, Enter, Event, Leave, Reply, Told, Wait, round_trip_ns

START_TURNS = 3
"""Round trips until a session has begun: TCP, TLS, hello and welcome."""

IN_FLIGHT = 8 << 20
"""A sender keeps so many bytes that are not acknowledged, and waits with more."""

LARGE = 256 << 10
"""Answers of so many bytes say how fast bytes came back."""

UNLIMITED = float("inf")


class Network(NamedTuple):
    """A way to a server and back."""

    round_trip: float
    """In ns."""
    bandwidth: float = UNLIMITED
    """In bytes for each ns, each way."""

    def carried(self, size: float) -> float:
        """How long so many bytes take, in ns."""
        return size / self.pace

    @property
    def pace(self) -> float:
        """Bytes for each ns that a connection gets through: what is in flight is bounded."""
        if self.round_trip <= 0:
            return self.bandwidth
        return min(self.bandwidth, IN_FLIGHT / self.round_trip)


@dataclass(slots=True)
class Recorded:
    """What a trace says of the network that it was recorded over."""

    told: int | None = None
    """The round trip that the session was told, in ns."""
    fastest: int | None = None
    """The shortest time from a call to its answer, in ns."""
    pace: float = 0.0
    """The most bytes that came back in a ns."""
    _sent: dict[int, int] = field(default_factory=dict)

    def count(self, events: Iterable[Event]) -> Recorded:
        """Reads events; itself."""
        for event in events:
            self.take(event)
        return self

    def take(self, event: Event) -> None:
        """Reads one event."""
        match event:
            case Told(kind="session"):
                trip = round_trip_ns(event.fields)
                if trip is not None:
                    self.told = trip if self.told is None else max(trip, self.told)
            case Call() if event.ticket is not None:
                self._sent[event.number] = event.time
            case Reply() if event.call is not None:
                sent = self._sent.pop(event.call, None)
                if sent is not None and event.time >= sent:
                    took = event.time - sent
                    self.fastest = took if self.fastest is None else min(took, self.fastest)
                    if event.size >= LARGE:
                        self.pace = max(self.pace, event.size / max(took, 1))

    @property
    def round_trip(self) -> float:
        """The round trip, in ns: what the session was told, or less if an answer came sooner."""
        known = [each for each in (self.told, self.fastest) if each is not None]
        return float(min(known, default=0))


@dataclass(slots=True)
class Thread:
    """A thread of the program: how much later it is than it was."""

    later: float = 0.0
    last: float = 0.0


class Answer(NamedTuple):
    """When an answer comes, as recorded and in the model."""

    recorded: int
    modelled: float


class Model:
    """A run, event by event, under another network. Times are ns since the trace began."""

    def __init__(self, network: Network, recorded: Network, recorded_pace: float = 0.0) -> None:
        """`recorded_pace`: bytes for each ns that came back in the recording, 0 if not known."""
        self.network = network
        self._recorded = recorded
        self._recorded_pace = recorded_pace or UNLIMITED
        self._threads: dict[int, Thread] = {}
        self._upward = 0.0
        """Until when bytes are on their way up."""
        self._downward = 0.0
        self._sent: dict[int, tuple[int, float]] = {}
        self._answers: dict[int, Answer] = {}
        self.recorded = 0.0
        """How long the run took."""
        self.answers = 0
        self.waits = 0
        self.waited = 0.0
        """What the waits of the model take, in ns."""
        self.recorded_waited = 0.0

    @property
    def time(self) -> float:
        """How long the run takes."""
        later = max((thread.last for thread in self._threads.values()), default=0.0)
        return max(later, 0.0)

    def run(self, events: Iterable[Event]) -> Model:
        """Runs the events; itself."""
        for event in events:
            self.take(event)
        return self

    def take(self, event: Event) -> None:
        """Runs one event."""
        match event:
            case Enter() | Leave():
                self._pass(event.thread, event.time)
            case Call():
                self._call(event)
            case Reply():
                self._reply(event)
            case Wait():
                self._wait(event)

    def _pass(self, number: int, time: int) -> float:
        """A thread is where it was at a recorded time; when that is."""
        thread = self._threads.get(number)
        if thread is None:
            thread = self._threads[number] = Thread(self._least_later())
        self.recorded = max(self.recorded, time)
        thread.last = max(thread.last, time + thread.later)
        return thread.last

    def _least_later(self) -> float:
        """A thread that begins is as late as the others, who have begun it."""
        return max((thread.later for thread in self._threads.values()), default=0.0)

    def _call(self, call: Call) -> None:
        now = self._pass(call.thread, call.time)
        self._upward = max(now, self._upward) + self.network.carried(call.size)
        if call.ticket is not None:
            arrived = self._upward + self.network.round_trip / 2
            self._sent[call.number] = (call.time, arrived)
        # Who has more on its way than may be waits until there is less.
        ahead = self._upward - self.network.carried(IN_FLIGHT)
        self._delay(call.thread, ahead - now)

    def _delay(self, number: int, by: float) -> None:
        if by > 0:
            thread = self._threads[number]
            thread.later += by
            thread.last += by

    def _reply(self, reply: Reply) -> None:
        self.answers += 1
        if reply.call is None or reply.call not in self._sent:
            return
        sent, arrived = self._sent.pop(reply.call)
        took = max(0.0, reply.time - sent - self._recorded.round_trip)
        carried = min(took, reply.size / self._recorded_pace)
        done = arrived + took - carried
        began = max(done, self._downward)
        self._downward = began + max(carried, self.network.carried(reply.size))
        answer = Answer(reply.time, self._downward + self.network.round_trip / 2)
        self._answers[reply.call] = answer

    def _wait(self, wait: Wait) -> None:
        began = self._pass(wait.thread, wait.began)
        self.recorded = max(self.recorded, wait.ended)
        lasted = max(0, wait.ended - wait.began)
        answer = None if wait.call is None else self._answers.pop(wait.call, None)
        if answer is not None:
            woken = max(0, wait.ended - max(wait.began, answer.recorded))
            ended = max(began, answer.modelled) + woken
        elif wait.because == "network":
            ended = began  # the model has its own
        else:
            turns = START_TURNS if wait.because == "start_up" else 1
            more = turns * (self.network.round_trip - self._recorded.round_trip)
            ended = began + max(0.0, lasted + more)
        thread = self._threads[wait.thread]
        thread.later += ended - began - lasted
        thread.last = ended
        self.waits += 1
        self.waited += ended - began
        self.recorded_waited += lasted


def foretold(
    events: Iterable[Event], networks: Sequence[Network], recorded: Network, pace: float
) -> list[Model]:
    """The run over each of `networks`, in one pass over its events; `pace` as for `Model`."""
    models = [Model(network, recorded, pace) for network in networks]
    for event in events:
        for model in models:
            model.take(event)
    return models
