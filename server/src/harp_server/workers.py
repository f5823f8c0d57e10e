"""Workers: one native process per session, some started ahead and waiting."""

import asyncio
import functools
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harp_client.errors import HarpError
from harp_server.channel import Message
from harp_server.logs import Log
from harp_server.process import END_SECONDS, KILL_SECONDS, OnLine, Process, end_all, how_it_ended

LINES_MAX = 200
"""Lines that one worker may write to the log: a client can make a driver say much."""

FAULTY_AFTER = 3
"""Idle workers that die one after the other before it is the device that counts as faulty."""

READY_SECONDS = 20.0
"""How long a worker may take to load its libcuda before it counts as stuck."""


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How a worker is started."""

    program: str
    libcuda: str
    root_certificate: str
    jail: str
    environ: dict[str, str]

    def line(self, control_fd: int) -> Sequence[str]:
        return [
            self.program,
            "--control-fd",
            str(control_fd),
            "--libcuda",
            self.libcuda,
            "--ca",
            self.root_certificate,
            "--jail",
            self.jail,
        ]


class Worker:
    """One worker process: starting, then ready, then serving its one session, then gone."""

    def __init__(self, command: WorkerCommand, on_line: OnLine) -> None:
        self.ready: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._on_event: Callable[[Message], None] | None = None
        self._on_line = on_line
        self._early_lines: deque[str] = deque(maxlen=20)
        self._lines_left = LINES_MAX
        self.process = Process(command.line, command.environ, self._message, self._line)
        self.process.exited.add_done_callback(self._exited)

    def serve(self, assignment: Message, client: int, on_event: Callable[[Message], None]) -> None:
        """Hands the client's socket over; `on_event` gets what the worker then reports.

        Raises OSError when the worker has just died.
        """
        self._on_event = on_event
        self.process.send(assignment, client)

    def _message(self, message: Message, descriptor: int | None) -> None:
        if descriptor is not None:
            os.close(descriptor)
        if message.get("event") == "ready":
            if not self.ready.done():
                self.ready.set_result(message)
                while self._early_lines:
                    self._on_line(self._early_lines.popleft())
        elif self._on_event is not None:
            self._on_event(message)

    def _line(self, text: str) -> None:
        """Before it is ready, what a worker writes is the reason why it will not be."""
        self._lines_left -= 1
        if self._lines_left == 0:
            text = f"(more than {LINES_MAX} lines: the rest is not logged)"
        if self._lines_left < 0:
            return
        if self.ready.done():
            self._on_line(text)
        else:
            self._early_lines.append(text)

    def _exited(self, exited: "asyncio.Future[int]") -> None:
        if not self.ready.done():
            words = ": ".join([how_it_ended(exited.result()), *list(self._early_lines)[-1:]])
            self.ready.set_exception(HarpError(f"the worker {words}"))
            self.ready.exception()  # told by whoever waits; nobody waiting is no error


class IdleWorkers:
    """Keeps `count` workers started ahead of need."""

    def __init__(
        self,
        command: WorkerCommand,
        count: int,
        log: Log,
        on_health: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_health` is told why workers do not start any more, and "" when one does again."""
        self._command = command
        self._on_health = on_health
        self._is_faulty = False
        self._count = count
        self._log = log
        self._workers: deque[Worker] = deque()
        self._ending: set[asyncio.Task[int]] = set()
        self._refill_soon: asyncio.TimerHandle | None = None
        self._failures = 0
        # Until one worker has been ready, `probe` tells what is wrong, once.
        self._proven = False
        self._closed = False

    def fill(self) -> None:
        """Starts workers until `count` are idle. After failures it waits before it tries again."""
        self._refill_soon = None
        while not self._closed and len(self._workers) < self._count:
            worker = self._start()
            if worker is None:
                return
            self._workers.append(worker)
            worker.process.exited.add_done_callback(functools.partial(self._lost, worker))
            worker.ready.add_done_callback(self._is_ready)

    def _is_ready(self, ready: "asyncio.Future[Message]") -> None:
        if self._is_faulty and not ready.cancelled() and ready.exception() is None:
            self._is_faulty = False
            self._on_health("")

    async def take(self) -> Worker:
        """A ready worker, for the caller to use and to end. Raises HarpError when none starts."""
        while True:
            worker = self._workers.popleft() if self._workers else self._start()
            self.fill()
            if worker is None:
                raise HarpError(f"cannot start {self._command.program}")
            try:
                await asyncio.wait_for(asyncio.shield(worker.ready), READY_SECONDS)
            except TimeoutError:
                self._end(worker, 0)
                raise HarpError(f"the worker was not ready in {READY_SECONDS:.0f} s") from None
            if worker.process.alive:
                self._failures = 0
                return worker

    async def probe(self) -> Message:
        """Waits until the first idle worker is ready, and returns what it says then.

        Raises HarpError with the reason if it fails, TimeoutError if it takes too long.
        """
        if not self._workers:
            worker = self._start(raising=True)
            assert worker is not None
            self._workers.append(worker)
        worker = self._workers[0]
        ready = await asyncio.wait_for(asyncio.shield(worker.ready), READY_SECONDS)
        self._proven = True
        self.fill()
        return ready

    def replace(self) -> None:
        """Ends the idle workers, and starts others: the roots that they were to trust have
        changed."""
        for worker in list(self._workers):
            self._workers.remove(worker)
            self._end(worker)
        self.fill()

    def _end(self, worker: Worker, seconds: float = END_SECONDS) -> None:
        """Ends a worker; nobody waits for that: it may be stuck in its driver."""
        ending = asyncio.create_task(worker.process.end(seconds))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Ends the idle workers."""
        self._closed = True
        if self._refill_soon is not None:
            self._refill_soon.cancel()
        await end_all([worker.process for worker in self._workers])
        if self._ending:
            await asyncio.wait(self._ending, timeout=KILL_SECONDS)

    def _start(self, raising: bool = False) -> Worker | None:
        try:
            return Worker(self._command, functools.partial(self._log.output, "worker"))
        except OSError as error:
            self._failures += 1
            if raising:
                raise HarpError(
                    f"cannot execute {self._command.program}: {error.strerror}"
                ) from error
            self._log.error("worker not started", program=self._command.program, cause=str(error))
            return None

    def _lost(self, worker: Worker, exited: "asyncio.Future[int]") -> None:
        """An idle worker died before it was used."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        if self._closed:
            return
        self._failures += 1
        if self._proven:
            failed = worker.ready.exception()
            cause = str(failed) if failed else how_it_ended(exited.result())
            self._log.error("idle worker lost", pid=worker.process.pid, cause=cause)
            if self._failures >= FAULTY_AFTER:
                self._is_faulty = True
                self._on_health(f"workers do not start: {cause}. Next: harp doctor --server")
        if self._refill_soon is None:
            delay = min(0.1 * 2 ** min(self._failures, 9), 30.0)
            self._refill_soon = asyncio.get_running_loop().call_later(delay, self.fill)
