"""One native child of the agent: started with its control channel, watched, ended in time."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence

from harp_client.errors import printable
from harp_server.channel import Channel, Message, OnMessage

END_SECONDS = 2.0
"""What a child gets to end by itself."""

KILL_SECONDS = 10.0
"""What those that were killed get to be gone, when the agent is to end: their memory may be large,
but a driver may also never let go of them."""

LINE_MAX = 2000

OnLine = Callable[[str], None]


class _Lines:
    """What a child writes on its stderr, line by line.

    It gets a pipe and never the agent's own stderr: that may be a regular file, which a jailed
    process must not write to, and what a process under a client's influence says is only text.
    """

    def __init__(self, on_line: OnLine) -> None:
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)
        self._on_line = on_line
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read, self._readable)

    def started(self) -> None:
        """The child has its end; none is needed here."""
        os.close(self.write)

    def close(self) -> None:
        """Passes on what is left and closes."""
        if self._read >= 0:
            while self._readable():
                pass
        if self._read >= 0:
            self._end()

    def _readable(self) -> bool:
        """Passes on what can be read; says whether there may be more."""
        try:
            piece = os.read(self._read, 65536)
        except BlockingIOError:
            return False
        if not piece:
            self._end()
            return False
        *lines, self._partial = (self._partial + piece).split(b"\n")
        if len(self._partial) > LINE_MAX:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._say(line)
        return True

    def _say(self, line: bytes) -> None:
        if text := printable(line[:LINE_MAX].decode(errors="replace")).strip():
            self._on_line(text)

    def _end(self) -> None:
        self._loop.remove_reader(self._read)
        os.close(self._read)
        self._read = -1
        self._say(self._partial)


def allow_files(wanted: int) -> int:
    """Lets this process have so many files open, where the system's own limit is not lower. Returns
    how many it may have. Children begin with the same."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return wanted
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return wanted


class Process:
    """A running child. Children also set PR_SET_PDEATHSIG themselves: none outlives the agent.

    Each child leads a session of its own: Ctrl-C in the server's terminal reaches the agent alone,
    so that sessions can be drained, and Linux's autogroups (sched(7)) give each worker an equal
    share of the processor, however many threads it has.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        environ: Mapping[str, str],
        on_message: OnMessage,
        on_line: OnLine,
        *,
        inherit: Sequence[int] = (),
    ) -> None:
        """Starts `command(control_fd)`. Raises OSError when it cannot be executed."""
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        with contextlib.ExitStack() as failed:
            self._channel = Channel(on_message, self._channel_closed)
            failed.callback(self._channel.close)
            with self._channel.child_end:
                self._lines = _Lines(on_line)
                try:
                    self._child = subprocess.Popen(
                        list(command(self._channel.child_end.fileno())),
                        env=dict(environ),
                        pass_fds=[self._channel.child_end.fileno(), *inherit],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=self._lines.write,
                        start_new_session=True,
                    )
                finally:
                    self._lines.started()
            failed.callback(self._child.wait)
            failed.callback(self._child.kill)
            self.pid = self._child.pid
            self._pidfd = os.pidfd_open(self.pid)
            failed.pop_all()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def alive(self) -> bool:
        return not self.exited.done()

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Sends to the child. Raises OSError when it is gone."""
        self._channel.send(message, descriptor)

    def signal(self, number: int) -> None:
        """Signals the child if it still lives."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):  # it has just died
                signal.pidfd_send_signal(self._pidfd, number)

    async def end(self, seconds: float = END_SECONDS) -> int:
        """Asks the child to end, kills it after `seconds`; returns its exit status."""
        self._channel.close()
        self.signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(asyncio.shield(self.exited), seconds)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await self.exited

    def _channel_closed(self, fault: str) -> None:
        if fault:
            self.signal(signal.SIGKILL)

    def _reap(self) -> None:
        status = self._child.wait()
        self._loop.remove_reader(self._pidfd)
        # Whatever its last words do here, those who wait for its end must hear of that.
        with contextlib.ExitStack() as ending:
            ending.callback(os.close, self._pidfd)
            ending.callback(self.exited.set_result, status)
            ending.callback(self._lines.close)
            self._channel.drain()


async def end_all(processes: Iterable[Process]) -> list[Process]:
    """Ends children; returns those that cannot even be killed, because a driver holds them."""
    ends = {asyncio.create_task(process.end()): process for process in processes}
    if not ends:
        return []
    _, pending = await asyncio.wait(ends, timeout=END_SECONDS + KILL_SECONDS)
    return [ends[task] for task in pending]


def how_it_ended(status: int) -> str:
    """A child's exit status in words."""
    if status < 0:
        return f"killed by signal {-status} ({signal.strsignal(-status)})"
    return f"ended with status {status}"
