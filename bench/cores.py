"""On which cores the two ends of a connection run.

Left alone, a kernel puts both on one core or each on its own as it pleases, and changes its mind
within a run: the same exchange then takes up to twice as long, which says nothing about either side
of a comparison."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def apart(near: Iterable[int], far: Iterable[int]) -> Iterator[None]:
    """Keeps the threads of two groups of processes each on half of the cores, for the block.

    Nothing happens where there is one core. Threads that start meanwhile stay where their creators
    are.

    Raises: OSError if a process has ended or is somebody else's.
    """
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    groups = ((list(near), cores[:half]), (list(far), cores[half:]))
    for processes, share in groups:
        _keep_on(processes, share or cores)
    try:
        yield
    finally:
        for processes, _ in groups:
            with suppress(ProcessLookupError, FileNotFoundError):
                _keep_on(processes, cores)


def _keep_on(processes: Iterable[int], cores: list[int]) -> None:
    """Theirs, and of what they have started: `harp-run` stays beside its program."""
    for process in processes:
        for thread in Path(f"/proc/{process}/task").iterdir():
            # A thread may end between the two.
            with suppress(ProcessLookupError, FileNotFoundError):
                os.sched_setaffinity(int(thread.name), cores)
                _keep_on(map(int, (thread / "children").read_text().split()), cores)
