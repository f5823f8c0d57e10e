"""`harp-run --local`: which driver it takes, and what it refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harp_client import local_driver, native
from pool.standins import BOUND, HARP_RUN, environment


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARP_RUN, *arguments], env=environ, capture_output=True, text=True, timeout=BOUND
    )


def library(folder: Path, elf_class: bytes = b"\x02") -> str:
    """A file that begins like a library of this or another machine."""
    folder.mkdir(parents=True)
    path = folder / "libcuda.so.1"
    path.write_bytes(b"\x7fELF" + elf_class + b"\x01" + bytes(12) + b"\x3e\x00")
    return str(path)


def test_the_loaders_order_without_stubs_and_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_driver, "FOLDERS", (str(tmp_path / "usual"),))
    usual = library(tmp_path / "usual")
    cached = library(tmp_path / "cached")
    other_machine = library(tmp_path / "lib32", elf_class=b"\x01")
    named = library(tmp_path / "named")
    stub = library(tmp_path / "toolkit" / "stubs")
    ours = library(tmp_path / "native" / "interposer")
    worker = tmp_path / "native" / "bin" / "harp-worker"
    worker.parent.mkdir()
    worker.touch()
    cache = tmp_path / "ld.so.cache"
    cache.write_bytes(b"\0".join(p.encode() for p in ("glibc", other_machine, stub, cached, "")))
    folders = [str(Path(path).parent) for path in (ours, stub, named)]
    environ = {"LD_LIBRARY_PATH": ":".join([*folders, str(tmp_path / "nowhere")])}
    assert list(local_driver.machines_own(environ, str(cache))) == [named, cached, usual]
    assert list(local_driver.machines_own({}, str(tmp_path / "no-cache"))) == [usual]


def test_a_machine_without_a_driver(environ: dict[str, str]) -> None:
    if next(local_driver.machines_own(environ), None) is not None:
        pytest.skip("this machine has a driver of its own; one without shows this")
    done = run(environ, "--local", "--", "true")
    assert done.returncode == 125
    assert "no driver of its own" in done.stderr
    assert "--libcuda PATH" in done.stderr
    assert "--libcuda soft" in done.stderr


@pytest.mark.parametrize(
    ("name", "part"), [("missing", "No such file"), ("text", "not a library"), (".", "directory")]
)
def test_what_is_no_driver(environ: dict[str, str], tmp_path: Path, name: str, part: str) -> None:
    (tmp_path / "text").write_text("a page of text that is longer than the head of a library")
    done = run(environ, "--local", "--libcuda", str(tmp_path / name), "--", "true")
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1
    assert part in done.stderr


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--local", "--server", "gpu1:7443"], "--local uses no pool"),
        (["--local", "--scheduler", "pool:7440"], "--local uses no pool"),
        (["--local", "--context", "lab"], "--local uses no pool"),
        (["--local", "--gpus", "2"], "--gpus is not for --local"),
        (["--local", "--compute", "50%"], "--compute is not for --local"),
        (["--local", "--lease", "training"], "--lease is not for --local"),
        (["--local", "--embedded"], "--embedded is not for --local"),
        (["--local", "--direct"], "--direct is not for --local"),
        (["--local", "--device", "soft"], "--libcuda"),
        (["--local", "--sync"], "CUDA_LAUNCH_BLOCKING"),
        (["--libcuda", "soft"], "--libcuda is for local mode"),
    ],
)
def test_options_for_a_pool_are_refused(
    environ: dict[str, str], options: list[str], part: str
) -> None:
    done = run(environ, *options, "--", "true")
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) == 1
    assert part in done.stderr


def test_the_environment_names_a_driver_for_local_runs_alone(environ: dict[str, str]) -> None:
    environ["HARP_LIBCUDA"] = "soft"
    show = "import os; print(os.environ.get('HARP_LIBCUDA'))"
    local = run(environ, "--local", "--", sys.executable, "-c", show)
    assert local.stdout.strip() == native.find(environ).softgpu
    direct = run(environ, "--direct", "--", sys.executable, "-c", show)
    assert direct.stdout.strip() == "None"


def test_a_program_that_uses_no_cuda_loads_no_driver(environ: dict[str, str]) -> None:
    cat = shutil.which("cat")
    assert cat is not None
    done = run(environ, "--local", "--libcuda", "soft", "--", cat, "/proc/self/maps")
    assert done.returncode == 0
    assert "interposer" in done.stdout
    assert "softgpu" not in done.stdout
