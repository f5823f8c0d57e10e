"""Every fault of the catalogue, brought about: one line, the right code, nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import catalogue
from faults.catalogue import DEVICE, FAULTS, fault
from faults.stage import DAY, Seen, Stage, stock_server
from harp_client.credentials import CLOCK_SKEW
from pool.standins import BOUND, HARP, HARP_RUN, Pool, wait_until

CODES = {
    "CUDA_ERROR_OUT_OF_MEMORY": 2,
    "CUDA_ERROR_DEVICE_UNAVAILABLE": 46,
    "CUDA_ERROR_NO_DEVICE": 100,
    "CUDA_ERROR_INVALID_IMAGE": 200,
    "CUDA_ERROR_NO_BINARY_FOR_GPU": 209,
    "CUDA_ERROR_INVALID_PTX": 218,
    "CUDA_ERROR_ILLEGAL_ADDRESS": 700,
    "CUDA_ERROR_ASSERT": 710,
    "CUDA_ERROR_MISALIGNED_ADDRESS": 716,
    "CUDA_ERROR_LAUNCH_FAILED": 719,
    "CUDA_ERROR_NOT_SUPPORTED": 801,
}


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return "{}:{}".format(*free.getsockname())


def no_server(stage: Stage) -> Seen:
    return stage.run(closed_port(), "once")


def silent_server(stage: Stage) -> Seen:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        return stage.run(address, "once", environ={"HARP_CONNECT_TIMEOUT": "1"})


def server_clock(stage: Stage) -> Seen:
    return stage.run(stage.server().address, "once", environ=stage.clock(-30 * DAY))


def server_expired(stage: Stage) -> Seen:
    return stage.run(stage.server().address, "once", environ=stage.clock(3 * DAY))


def client_expired(stage: Stage) -> Seen:
    return stage.run(stage.server().address, "once", user=stage.user(-9 * DAY, days=2))


def client_not_yet_valid(stage: Stage) -> Seen:
    return stage.run(stage.server().address, "once", user=stage.user(2 * DAY))


def clocks_differ(stage: Stage) -> Seen:
    begins = CLOCK_SKEW.total_seconds() + 4 * 3600
    user = stage.user(int(begins))
    return stage.run(stage.server().address, "once", user=user, environ=stage.clock(6 * 3600))


def wrong_authority(stage: Stage) -> Seen:
    return stage.run(stage.server().address, "once", user=Pool(stage.folder, "other").user)


def stranger(stage: Stage) -> Seen:
    user = Pool(stage.folder, "other").user
    (user / "ca.pem").write_bytes((stage.pool.user / "ca.pem").read_bytes())
    return stage.run(stage.server().address, "once", user=user)


def wrong_name(stage: Stage) -> Seen:
    return stage.run(stage.server().address, "once", options=("--server-name", "elsewhere"))


def version(stage: Stage) -> Seen:
    with stock_server(stage.pool, 1, 9) as address:
        minor = stage.run(address, "once")
    assert "1.9" in minor.lines[0]
    with stock_server(stage.pool, 3, 0) as address:
        major = stage.run(address, "once")
    assert "3.0" in major.lines[0]
    return minor


def full(stage: Stage) -> Seen:
    # A connection that ends with bytes unread is reset, and its session kept as long as this.
    server = stage.server("--max-sessions", "1", "--grace", "2")
    first = stage.start(server.address)
    refused = stage.run(server.address, "once")
    first.process.kill()
    first.process.communicate()
    wait_until(lambda: stage.run(server.address, "once").status == 0, "there is room again")
    return refused


def malformed_pem(stage: Stage) -> Seen:
    certificate = stage.pool.user / "client.pem"
    certificate.write_bytes(certificate.read_bytes()[:200])
    return stage.run(stage.server().address, "once")


def no_credentials(stage: Stage) -> Seen:
    (stage.pool.user / "client.key").unlink()
    missing = stage.run(closed_port(), "once")
    (stage.pool.user / "client.key").mkdir()
    unreadable = stage.run(closed_port(), "once")
    assert fault("no_credentials").matches(unreadable.lines[0])
    return missing


def open_key(stage: Stage) -> Seen:
    (stage.pool.user / "client.key").chmod(0o644)
    return stage.run(stage.server().address, "once")


def no_such_device(stage: Stage) -> Seen:
    address = stage.server().address
    twice = stage.run(f"{address}/0+0", "once")
    assert fault("no_such_device").matches(twice.lines[0])
    return stage.run(f"{address}/2", "once")


def one_of_two_lost(stage: Stage) -> Seen:
    first, second = stage.server(), stage.server()
    working = stage.start(f"{first.address},{second.address}")
    first.process.kill()
    return working.end()


def ended_by(stage: Stage, number: signal.Signals, *options: str) -> Seen:
    server = stage.server(*options)
    working = stage.start(server.address)
    server.process.send_signal(number)
    return working.end()


def server_killed(stage: Stage) -> Seen:
    stopped = ended_by(stage, signal.SIGTERM, "--drain", "0")
    expect("server_killed", stopped)
    killed = ended_by(stage, signal.SIGKILL)
    # One that starts at the same address knows nothing of the session, and serves new ones.
    port = stage.servers[-1].address
    again = stage.server("--listen", port)
    assert stage.run(again.address, "once").status == 0
    return killed


def worker_killed(stage: Stage) -> Seen:
    server = stage.server()
    bystander = stage.start(server.address)
    for count, number in enumerate((signal.SIGSEGV, signal.SIGKILL), 2):
        working = stage.start(server.address)
        wait_until(lambda n=count: len(server.lines("session start")) == n, "it is let in")
        worker = int(str(server.lines("session start")[-1]["worker"]))
        wait_until(lambda p=worker, n=number: not alive(p, n), "it is dead")
        seen = working.end()
        expect("worker_killed", seen)
    causes = [str(line["cause"]) for line in server.lines("session end")]
    assert "signal 11" in causes[0]
    assert "signal 9" in causes[1]
    assert bystander.process.poll() is None
    bystander.process.kill()
    bystander.process.communicate()
    return seen


def alive(process: int, number: signal.Signals) -> bool:
    """Sends a signal, if there is anybody to send it to. A first SIGSEGV that no instruction has
    caused is lost on a Rust program."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


def sticky(kernel: str) -> Callable[[Stage], Seen]:
    """A kernel's fault sticks, and is nobody else's."""

    def bring_about(stage: Stage) -> Seen:
        server = stage.server()
        bystander = stage.start(server.address)
        seen = stage.run(server.address, "good", kernel, "allocate", "good")
        assert seen.status == 0, seen
        assert len(seen.calls) >= 3
        assert len({code for _, code in seen.calls}) == 1, seen
        assert bystander.process.poll() is None
        bystander.process.kill()
        bystander.process.communicate()
        told = [str(line["text"]) for line in server.lines("output")]
        assert any(f"kernel `{kernel}`" in text for text in told), told
        return seen

    return bring_about


def script(stage: Stage, text: str, **environ: str) -> Seen:
    """A program of the driver API in a few lines."""
    path = stage.folder / "script.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n" + text)
    server = stage.server(**environ)
    command = stage.command(server.address, stage.pool.user)
    command[-2:] = [str(path)]
    done = subprocess.run(
        command, env=stage.environ, capture_output=True, text=True, timeout=4 * BOUND
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [line.split() for line in done.stdout.splitlines()]
    return Seen(done.stderr.splitlines(), [(n, int(c)) for n, c in calls], done.returncode)


def out_of_memory(stage: Stage) -> Seen:
    return script(
        stage,
        """
from probe import *
program = Driver(); program.start()
def take(size):
    address = ctypes.c_uint64()
    code = program.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
    return code, address
code, most = take(48 << 20); assert code == 0
assert take(48 << 20)[0] == 2
assert program.launch("good") == 0 and program.wait() == 0, "it is not sticky"
program.must("cuMemFree_v2", most)
code, again = take(48 << 20); assert code == 0, "after a free it works again"
""",
        HARP_SOFT_MEMORY="64MiB",
    )


def unsupported(stage: Stage) -> Seen:
    return script(
        stage,
        """
from probe import *
program = Driver(); program.start()
for _ in range(3):
    program.call("cuStreamBeginCapture_v2", None, 0)
found, status = ctypes.c_void_p(1), ctypes.c_int()
code = program.cuda.cuGetProcAddress_v2(
    b"cuStreamBeginCapture", ctypes.byref(found), 12000, ctypes.c_uint64(0), ctypes.byref(status))
assert not found.value and status.value == 1, (code, found, status)
""",
    )


def machine_code(stage: Stage) -> Seen:
    return script(
        stage,
        """
from probe import *
program = Driver(); program.start()
cubin = bytearray(64)
cubin[:8] = b"\\x7fELF\\2\\1\\1\\x41"
cubin[48:52] = (0x5a04).to_bytes(4, "little")
program.call("cuModuleLoadData", ctypes.byref(ctypes.c_void_p()), bytes(cubin))
""",
    )


def bad_image(stage: Stage) -> Seen:
    return script(
        stage,
        """
from probe import *
program = Driver(); program.start()
image = b"\\x50\\xed\\x55\\xba\\1\\0\\x10\\0" + b"\\xff" * 8 + bytes(64)
program.call("cuModuleLoadData", ctypes.byref(ctypes.c_void_p()), image)
""",
    )


def bad_ptx(stage: Stage) -> Seen:
    return script(
        stage,
        """
from probe import *
program = Driver(); program.start()
log = ctypes.create_string_buffer(4096)
names = (ctypes.c_int * 2)(5, 6)
values = (ctypes.c_void_p * 2)(ctypes.cast(log, ctypes.c_void_p), 4096)
wrong = (HEADER + ".visible .entry k() { frobnicate.u32 %r1; ret; }").encode()
program.call("cuModuleLoadDataEx", ctypes.byref(ctypes.c_void_p()), wrong, 2, names, values)
assert log.value == b"" or b"line" in log.value, log.value
""",
    )


def harp_server(stage: Stage, *options: str) -> Seen:
    done = subprocess.run(
        [*HARP, "server", "--credentials", str(stage.pool.server), *options],
        env=stage.environ,
        capture_output=True,
        text=True,
        timeout=2 * BOUND,
    )
    return Seen(done.stderr.splitlines(), [], done.returncode)


def port_in_use(stage: Stage) -> Seen:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return harp_server(stage, "--listen", "{}:{}".format(*taken.getsockname()))


def server_pem(stage: Stage) -> Seen:
    (stage.pool.server / "server.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    return harp_server(stage, "--listen", "127.0.0.1:0")


def state_damaged(stage: Stage) -> Seen:
    (stage.pool.server / "state").mkdir()
    (stage.pool.server / "state" / "leases.json").write_text('{"term": 1, "high')
    return harp_server(stage, "--listen", "127.0.0.1:0", "--scheduler", "127.0.0.1:9")


def disk_full(stage: Stage) -> Seen:
    """The log goes where there never is room."""
    log = stage.folder / "server-0.log"
    log.symlink_to("/dev/full")
    server = stage.server()
    for _ in range(3):
        assert stage.run(server.address, "once").status == 0
    seen = stage.run(server.address, "once")
    server.stop()
    return seen


def local(stage: Stage, libcuda: Path | str, text: str = "") -> Seen:
    """A program of the driver API in a few lines, with a driver in its own process."""
    path = stage.folder / "script.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n" + text)
    done = subprocess.run(
        [*HARP_RUN, "--local", "--libcuda", str(libcuda), "--", sys.executable, str(path)],
        env=stage.environ,
        capture_output=True,
        text=True,
        timeout=4 * BOUND,
    )
    calls = [line.split() for line in done.stdout.splitlines()]
    return Seen(done.stderr.splitlines(), [(n, int(c)) for n, c in calls], done.returncode)


def small_driver(stage: Stage) -> Path:
    library = stage.folder / "libcuda.so.1"
    source = Path(__file__).parents[1] / "local" / "driver.c"
    command = ["cc", "-std=gnu17", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


def no_driver(stage: Stage) -> Seen:
    seen = local(stage, stage.folder)
    assert fault("no_driver").matches(seen.lines[0])
    return local(stage, stage.folder / "missing")


def driver_lost(stage: Stage) -> Seen:
    driver = small_driver(stage)
    text = "import os; os.unlink({!r})\nfrom probe import *\nDriver().call('cuInit', 0)\n"
    return local(stage, driver, text.format(str(driver)))


def driver_lacks(stage: Stage) -> Seen:
    text = "from probe import *\nprogram = Driver()\n" + 3 * "program.call('cuCtxSynchronize')\n"
    return local(stage, small_driver(stage), text)


def trace_exists(stage: Stage) -> Seen:
    return stage.run("nowhere:1", "once", options=("--trace", str(stage.folder)))


def recorder_gone(stage: Stage) -> Seen:
    environ = {"HARP_TRACE_SOCKET": str(stage.folder / "recorder")}
    return stage.run(stage.server().address, "once", environ=environ)


SCENARIOS: dict[str, Callable[[Stage], Seen]] = {
    function.__name__: function
    for function in (
        no_server,
        silent_server,
        server_clock,
        server_expired,
        client_expired,
        client_not_yet_valid,
        clocks_differ,
        wrong_authority,
        stranger,
        wrong_name,
        version,
        full,
        malformed_pem,
        no_credentials,
        open_key,
        no_such_device,
        server_killed,
        worker_killed,
        one_of_two_lost,
        out_of_memory,
        unsupported,
        machine_code,
        bad_image,
        bad_ptx,
        port_in_use,
        server_pem,
        state_damaged,
        disk_full,
        no_driver,
        driver_lost,
        driver_lacks,
        trace_exists,
        recorder_gone,
    )
} | {
    kernel: sticky(kernel) for kernel in ("illegal", "misaligned", "assertion", "trap", "overflow")
}

ALSO_BY_RUNTIME = ("no_server", "server_killed", "illegal", "assertion")


def expect(key: str, seen: Seen) -> None:
    """What was seen is what the catalogue says."""
    wanted = fault(key)
    assert not any("Traceback" in line or "panicked" in line for line in seen.lines), seen
    if wanted.line:
        assert len(seen.lines) == 1, seen
        assert wanted.matches(seen.lines[0]), f"{seen.lines[0]}\nis not\n{wanted.line}"
    else:
        assert seen.lines == [], seen
    if wanted.code in CODES:
        assert {code for _, code in seen.calls} == {CODES[wanted.code]}, seen
        assert seen.status in (0, 3), "the program's own"
    elif wanted.code.startswith("exit status"):
        assert seen.status == int(wanted.code.split()[-1]), seen
    else:
        assert seen.status == 0, seen
        assert seen.calls == [], seen


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(tmp_path, getattr(request, "param", "driver"))
    yield stage
    stage.close()


@pytest.mark.parametrize("key", [fault.key for fault in FAULTS])
def test_fault(stage: Stage, key: str) -> None:
    expect(key, SCENARIOS[key](stage))


@pytest.mark.parametrize("stage", ["runtime"], indirect=True)
@pytest.mark.parametrize("key", ALSO_BY_RUNTIME)
def test_fault_through_the_runtime(stage: Stage, key: str) -> None:
    """cudart passes the code on: its errors have the same numbers."""
    expect(key, SCENARIOS[key](stage))


def test_neighbouring_versions_work_together(stage: Stage) -> None:
    """One minor version on: welcomed, and then told only that it describes no devices."""
    with stock_server(stage.pool, 1, 1) as address:
        seen = stage.run(address, "once")
    assert "of the protocol" not in seen.lines[0]


def test_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "faults.md"
    assert page.read_text() == catalogue.page()


def test_every_code_of_the_device_is_known() -> None:
    assert all(entry.code in CODES for entry in FAULTS if entry.section == DEVICE)
