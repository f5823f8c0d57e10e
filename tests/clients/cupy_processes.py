"""CuPy in processes of every kind: `cupy_processes.py MODE`. Prints what it finds, line by line."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
import time

import cupy
import numpy

WORDS = 100_000


def work(seed: int) -> float:
    """A sum that only a working device finds."""
    numbers = cupy.arange(WORDS, dtype=cupy.int64) * seed + 1
    return float(numbers.sum())


def expected(seed: int) -> float:
    return float((numpy.arange(WORDS, dtype=numpy.int64) * seed + 1).sum())


def report(seed: int, connection: object) -> None:
    """In a child: sends the sum, or the error as CuPy words it."""
    try:
        connection.send(work(seed))  # type: ignore[attr-defined]
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")  # type: ignore[attr-defined]


def ask_child(method: str, seed: int) -> object:
    context = multiprocessing.get_context(method)
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=report, args=(seed, sending))
    child.start()
    answer = receiving.recv()
    child.join()
    assert child.exitcode == 0, child.exitcode
    return answer


def fork_before() -> None:
    """Importing CuPy is no use of CUDA: what is forked then has a session of its own."""
    assert ask_child("fork", 2) == expected(2)
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(work, (3, 4))) == [expected(3), expected(4)]
    assert work(5) == expected(5)


def fork_after() -> None:
    """A child of a process that has used CUDA is told so, and its parent works on."""
    kept = cupy.arange(WORDS)
    print(ask_child("fork", 2))
    child = os.fork()
    if child == 0:
        del kept  # frees device memory, in vain and in silence
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert float(kept.sum()) == WORDS * (WORDS - 1) / 2
    assert work(3) == expected(3)


def afresh() -> None:
    """Children of spawn and forkserver begin anew, whatever the parent did."""
    assert work(1) == expected(1)
    for method in ("spawn", "forkserver"):
        assert ask_child(method, 2) == expected(2)
    assert work(5) == expected(5)


def interrupted() -> None:
    """Ctrl-C in the middle of a wait and of a copy is a KeyboardInterrupt when that is over."""
    slow = cupy.RawKernel(
        r"""extern "C" __global__ void slow(long long rounds, long long *out) {
            long long sum = 0;
            for (long long i = 0; i < rounds; ++i) sum += i ^ (sum >> 3);
            *out = sum;
        }""",
        "slow",
    )
    out = cupy.zeros(1, dtype=cupy.int64)
    large = numpy.zeros(16 << 20, dtype=numpy.uint8)
    work(1)

    def interrupt() -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    for place in ("synchronise", "copy"):
        thread = threading.Thread(target=interrupt)
        try:
            thread.start()
            slow((1,), (1,), (numpy.int64(200_000), out))
            if place == "synchronise":
                cupy.cuda.Device().synchronize()
            else:
                for _ in range(20):
                    cupy.asarray(large).get()
            thread.join()
            print(place, "not interrupted")
        except KeyboardInterrupt:
            print(place, "interrupted")
        thread.join()
        assert work(2) == expected(2)


def leave() -> None:
    """`os._exit` in the middle of work, from a thread that is not the main one."""
    numbers = cupy.arange(WORDS)
    threading.Thread(target=lambda: os._exit(12)).start()
    while True:
        numbers = numbers + 1


if __name__ == "__main__":
    {
        function.__name__: function
        for function in (fork_before, fork_after, afresh, interrupted, leave)
    }[sys.argv[1]]()
    print("ok")
