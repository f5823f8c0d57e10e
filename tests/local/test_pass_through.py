"""Local mode: every call reaches the driver of its process as it was made, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harp_client import native
from harp_spec import facts
from local.evaluated import HERE, Calls, answers
from pool.standins import BOUND

NOT_SUPPORTED, NO_DEVICE, NOT_FOUND = 801, 100, 500
SYMBOL_NOT_FOUND, VERSION_NOT_SUFFICIENT = 1, 2
LAUNCH = (
    "cuda.cuLaunchKernel(*map(c_void_p, [1]), 2, 3, 4, 5, 6, 7, 8, *map(c_void_p, [9, 10, 11]))"
)


def test_arguments_arrive_at_the_first_call_and_later(calls: Calls) -> None:
    done = calls(LAUNCH, LAUNCH)
    assert done.stdout.splitlines() == ["1 2 3 4 5 6 7 8 9 10 11", "700"] * 2, done.stderr
    clamp = "cuda.cuTexRefSetMipmapLevelClamp(c_void_p(1), c_float(2.5), c_float(-0.25))"
    done = calls(clamp, clamp)
    assert done.stdout.splitlines() == ["1 2.50 -0.25", "701"] * 2, done.stderr


def test_threads_may_make_the_first_call_at_once(calls: Calls) -> None:
    done = calls("from_threads(16)", "cuda.cuInit(0)", options=("--stats", "--memory", "1MiB"))
    assert answers(done) == [{(0, 13990)}, 0]


def test_a_function_whose_types_are_not_known_is_the_drivers(calls: Calls) -> None:
    assert answers(calls("cuda.cuGLInit()", "version()")) == [702, (0, 13990)]


def test_what_the_driver_lacks_is_not_supported(calls: Calls) -> None:
    done = calls("cuda.cuCtxSynchronize()", "cuda.cuCtxSynchronize()", "proc('cuCtxSynchronize')")
    assert answers(done) == [
        NOT_SUPPORTED,
        NOT_SUPPORTED,
        (NOT_FOUND, SYMBOL_NOT_FOUND, 0),
    ]
    assert done.stderr.count("this driver has no cuCtxSynchronize") == 1


def test_addresses_are_entries_where_there_is_one(calls: Calls) -> None:
    """Also of a function that the driver has at another address than it exports."""
    ours = "proc({0!r}) == (0, 0, address({1!r}))"
    done = calls(
        ours.format("cuInit", "cuInit"),
        ours.format("cuLaunchKernel", "cuLaunchKernel"),
        ours.format("cuMemAlloc", "cuMemAlloc_v2"),
        "at(proc('cuInit')[2], c_int(0)), at(proc('cuInit')[2], c_int(1))",
    )
    assert answers(done) == [True, True, True, (0, 1)]


def test_what_is_newer_than_the_headers_is_the_drivers_own(calls: Calls) -> None:
    """A name that they do not know, and a newer variant of one that they do."""
    done = calls(
        "proc('cuFromTheFuture')[:2]",
        "at(proc('cuFromTheFuture', 13800)[2], c_int(41))",
        "at(proc('cuMemAlloc', 13800)[2], c_int(41))",
    )
    assert answers(done) == [(NOT_FOUND, VERSION_NOT_SUFFICIENT), 42, 42]


def test_the_soft_gpu_hands_out_entries_too(calls: Calls) -> None:
    names = ("cuMemAlloc", "cuGetProcAddress", "cuCtxGetCurrent")
    exports = ("cuMemAlloc_v2", "cuGetProcAddress_v2", "cuCtxGetCurrent")
    same = (f"proc({n!r})[2] == address({e!r})" for n, e in zip(names, exports, strict=True))
    twin = "proc('cuLaunchKernel', flags=2)[2] == address('cuLaunchKernel_ptsz')"
    assert answers(calls(*same, twin, libcuda="soft")) == [True] * 4


def test_every_name_in_every_version_is_answered_as_directly(calls: Calls) -> None:
    """The same codes, statuses and symbols, of which local mode has its own."""
    known = facts.proc_addresses()
    names = sorted({row.base for row in known} | {"cuMemAlloc_v2", "cuNoSuchCall", ""})
    versions = sorted({row.version for row in known} | {1000, 13000})
    asked = f"procs({names}, {versions})"
    local, direct = (
        answers(calls(asked, libcuda="soft", way=way))[0] for way in ("local", "direct")
    )
    assert isinstance(direct, list)
    found = [name for *_, code, _, name in direct if code == 0]
    assert len(found) > 10_000
    assert all(found), "each address is that of the symbol that the loader finds"
    assert local == direct


def test_programs_get_the_interposer_and_it_the_driver(calls: Calls, driver: Path) -> None:
    interposer = str(Path(native.find().interposer).resolve())
    before, after = answers(calls("libraries()", "version() and libraries()"))
    assert isinstance(before, list)
    assert isinstance(after, list)
    assert interposer in before
    assert set(after) - set(before) == {str(driver)}


def test_without_a_driver_programs_are_told_so(tmp_path: Path, environ: dict[str, str]) -> None:
    """One that went away after `harp-run` looked: CUDA's own error, texts and addresses as ever."""
    gone = tmp_path / "libcuda.so.1"
    native.preload(native.find().interposer, environ)
    environ["HARP_LIBCUDA"] = str(gone)
    name = (
        "cuda.cuGetErrorName(100, ctypes.byref(text := ctypes.c_char_p())), text.value",
        "proc('cuInit')[2] == address('cuInit')",
    )
    command = [sys.executable, str(HERE / "calls.py"), "cuda.cuInit(0)", "version()[0]", *name]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    assert answers(done) == [NO_DEVICE, NO_DEVICE, (0, b"CUDA_ERROR_NO_DEVICE"), True]
    assert done.stderr.count("harp: ") == 1
    assert f"cannot load {gone}" in done.stderr
    assert "--libcuda PATH" in done.stderr


def test_the_interposer_is_no_driver(calls: Calls) -> None:
    done = calls("cuda.cuInit(0)", libcuda=native.find().interposer)
    assert answers(done) == [NO_DEVICE]
    assert "is HARP's own interposer and no driver" in done.stderr
