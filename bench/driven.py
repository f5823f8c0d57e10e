"""The programs that `make bench` drives: each reads commands and answers with lines of numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
OUT = CHECKOUT / "bench" / "out"
sys.path.insert(0, str(CHECKOUT / "tests"))

from clients.toolkit import toolkit  # noqa: E402

HARP_RUN = [str(Path(sys.executable).parent / "harp-run")]


class Driven:
    """A running program that is told what to measure."""

    def __init__(self, command: list[object], environ: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, *command: object) -> list[float]:
        """Gives one command and returns the numbers of its answer."""
        self.tell(*command)
        return self.said(str(command[0]))

    def tell(self, *command: object) -> None:
        """Gives one command, whose answer is taken later (`said`)."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, command)) + "\n")
        self.process.stdin.flush()

    def said(self, asked: str = "start") -> list[float]:
        """The numbers of the next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        try:
            return [float(word) for word in line.split()]
        except ValueError:
            raise RuntimeError(f"{asked}: {line.strip()}") from None

    def close(self) -> None:
        """Ends the program; it ends by itself when its input does."""
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


def ask_all(programs: Sequence[Driven], *command: object) -> list[float]:
    """The sums of the answers of programs that are given one command at the same time."""
    for program in programs:
        program.tell(*command)
    return [sum(program.said(str(command[0]))) for program in programs]


def build_client() -> list[Path]:
    """Compiles the measuring client and its kernels; returns its command line."""
    OUT.mkdir(exist_ok=True)
    tree = toolkit()
    client, kernels = OUT / "client", OUT / "kernels.ptx"
    sources = CHECKOUT / "tests" / "programs"
    compiler = ["g++", "-std=c++17", "-O2", "-I", sources, "-I", tree / "include"]
    _run([*compiler, CHECKOUT / "bench/client.cpp", "-ldl", "-pthread", "-o", client])
    nvcc = [tree / "bin/nvcc", "-arch=compute_75", "--ptx"]
    _run([*nvcc, CHECKOUT / "bench/kernels.cu", "-o", kernels])
    return [client, kernels]


def build_baseline() -> Path:
    """Builds the raw sockets' program with cargo; returns its path."""
    _run(["cargo", "build", "--release", "--locked", "--quiet", "-p", "harp-baseline"])
    return target_folder() / "harp-baseline"


def build_slow_driver(library: Path) -> None:
    """Compiles `slow_driver.c` as `library`, with the soft GPU, which comes to lie beside it, for
    all that it does not do."""
    folder = library.parent
    folder.mkdir()
    # A library that is found by the same name as the interposer would be taken for it.
    name, soft = b"libcuda.so.1\0", (target_folder() / "libharp_softgpu.so").read_bytes()
    assert soft.count(name) == 1
    (folder / "libsoft.so.1").write_bytes(soft.replace(name, b"libsoft.so.1\0"))
    compiler = ["gcc", "-std=gnu17", "-O2", "-shared", "-fPIC", CHECKOUT / "bench/slow_driver.c"]
    rest = ["-Wl,--no-as-needed,-rpath,$ORIGIN", "-L", folder, "-l:libsoft.so.1"]
    _run([*compiler, *rest, "-o", library])


def target_folder() -> Path:
    """Where cargo leaves what it builds for release."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or CHECKOUT / "target") / "release"


def _run(command: list[object]) -> None:
    subprocess.run([str(word) for word in command], check=True, cwd=CHECKOUT)
