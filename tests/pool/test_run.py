"""`harp-run`: exit statuses, signals, the terminal, what it sets, and what it leaves behind."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harp_client import run as harp_run
from pool.standins import BOUND, HARP_RUN, Pool, Server, processes_with, wait_until

SHOW = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARP_RUN, *arguments], env=environ, capture_output=True, text=True, timeout=BOUND
    )


def shown(environ: dict[str, str], *options: str) -> dict[str, str]:
    """The environment that a program sees under harp-run."""
    done = run(environ, *options, "--", sys.executable, "-c", SHOW)
    assert done.returncode == 0, done.stderr
    seen: dict[str, str] = json.loads(done.stdout)[0]
    return seen


@pytest.fixture(params=["embedded", "direct"])
def way(request: pytest.FixtureRequest) -> str:
    """Both ways to run a program without a configured pool."""
    return f"--{request.param}"


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_status_is_the_programs(environ: dict[str, str], way: str, status: int) -> None:
    assert run(environ, way, "--", "sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_death_by_signal_is_128_plus_signal(
    environ: dict[str, str], way: str, number: signal.Signals
) -> None:
    done = run(environ, way, "--", "sh", "-c", f"kill -{int(number)} $$")
    assert done.returncode == 128 + number


@pytest.mark.parametrize(
    ("name", "status", "part"),
    [
        ("/nowhere/program", 127, "not found"),
        ("no-such-program-anywhere", 127, "not found"),
        ("{tmp}/plain.txt", 126, "Permission denied"),
        ("{tmp}/garbage", 126, "not a program"),
        ("{tmp}/lost", 127, "interpreter"),
    ],
)
def test_programs_that_cannot_run(
    environ: dict[str, str], tmp_path: Path, name: str, status: int, part: str
) -> None:
    (tmp_path / "plain.txt").write_text("text")
    (tmp_path / "garbage").write_text("\1\2\3")
    (tmp_path / "lost").write_text("#!/nowhere/sh\n")
    for file in ("garbage", "lost"):
        (tmp_path / file).chmod(0o755)
    done = run(environ, "--direct", "--", name.format(tmp=tmp_path))
    assert done.returncode == status
    assert_one_line(done.stderr, part)


def assert_one_line(text: str, *parts: str) -> None:
    assert len(text.splitlines()) == 1, text
    assert text.startswith("harp-run: ")
    assert "Next: " in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no program"),
        (["--"], "no program"),
        (["--nonsense", "--", "true"], "nonsense"),
        (["--server", "gpu1", "--", "true"], "HOST:PORT"),
        (["--server", "gpu1:7443", "--credentials", "/nowhere", "--", "true"], "/nowhere/ca.pem"),
        (["--server", "gpu1:7443", "--", "true"], "harp ca user"),
        (["--credentials", "/nowhere", "--", "true"], "--server"),
        (["--context", "lab", "--", "true"], "no context 'lab'"),
        (["--direct", "--server", "gpu1:7443", "--", "true"], "--direct"),
        (["--embedded", "--device", "/nowhere/libcuda.so.1", "--", "true"], "did not start"),
        (["--profile", "half", "--gpus", "1", "--", "true"], "--size NAME"),
        (["--profile=half", "--", "true"], "--size NAME"),
        (["--direct", "--profile", "--", "true"], "--local --libcuda soft"),
        (["--direct", "--trace", "out.htrace", "--", "true"], "--local --libcuda soft"),
        (["--trace", "/", "--", "true"], "/ exists"),
        (["--trace", "/nowhere/out.htrace", "--", "true"], "name another folder"),
        (["--trace", "out.htrace", "--trace-payload", "all", "--", "true"], "images=full"),
        (["--trace-payload", "full", "--", "true"], "--trace OUT"),
        (["--trace-max", "8GiB", "--", "true"], "--trace OUT"),
        (["--trace", "out.htrace", "--trace-max", "8 apples", "--", "true"], "8GiB or 512M"),
        (["--trace", "out.htrace", "--trace-max", "8K", "--", "true"], "1MiB or more"),
    ],
)
def test_own_failures_are_125_with_cause_and_next_step(
    environ: dict[str, str], arguments: list[str], part: str
) -> None:
    done = run(environ, *arguments)
    assert done.returncode == 125
    assert_one_line(done.stderr.splitlines()[-1], part)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/etc/x"), "/etc/x: Permission denied"),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
        (ValueError("two\nlines"), "ValueError: two lines. Next: report this"),
    ],
)
def test_no_failure_of_its_own_has_a_status_of_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(sys, "argv", ["harp-run", "--", "true"])
    monkeypatch.setattr(harp_run, "_run", fail)
    with pytest.raises(SystemExit) as ended:
        harp_run.main()
    assert ended.value.code == 125
    assert capsys.readouterr().err == f"harp-run: {told}\n"


def recorder_that(native_dir: Path, tells: str) -> None:
    """Has `harp-run --trace` start a recorder that hears of the program's end, and then `tells`."""
    recorder = native_dir / "bin" / "harp-trace"
    recorder.write_text(f"#!/bin/sh\necho ready\ncat >/dev/null\n{tells}\n")
    recorder.chmod(0o755)


def test_the_status_is_the_programs_though_nobody_reads_what_is_told(
    environ: dict[str, str], native_dir: Path, tmp_path: Path
) -> None:
    recorder_that(native_dir, "true")
    reader, stderr = os.pipe()
    os.close(reader)
    words = ["--embedded", "--trace", str(tmp_path / "out.htrace"), "--", "sh", "-c", "exit 7"]
    try:
        done = subprocess.run([*HARP_RUN, *words], env=environ, stderr=stderr, timeout=BOUND)
    finally:
        os.close(stderr)
    assert done.returncode == 7


def test_the_status_is_the_programs_though_its_recorder_is_killed(
    environ: dict[str, str], native_dir: Path, tmp_path: Path
) -> None:
    recorder_that(native_dir, """printf '{"type":"tra'; kill -KILL $$""")
    out = str(tmp_path / "out.htrace")
    done = run(environ, "--embedded", "--trace", out, "--", "sh", "-c", "exit 7")
    told = "harp-run: the recorder was ended before it had said what it has recorded\n"
    assert (done.returncode, done.stderr) == (7, told)


def test_everything_after_the_separator_is_untouched(environ: dict[str, str]) -> None:
    words = ["--stats", "--", "-v", "", "a b", "*", "--server=x"]
    for separator in (["--"], []):
        done = run(environ, "--direct", *separator, sys.executable, "-c", SHOW, *words)
        assert json.loads(done.stdout)[1] == words


def test_help_and_version(environ: dict[str, str]) -> None:
    assert "Examples:" in run(environ, "--help").stdout
    assert run(environ, "--version").stdout.startswith("harp-run ")


def test_streams_pass_through(environ: dict[str, str], way: str) -> None:
    done = subprocess.run(
        [*HARP_RUN, way, "--", "sh", "-c", "cat; echo problem >&2"],
        env=environ,
        input=b"in\0put",
        capture_output=True,
        timeout=BOUND,
    )
    assert (done.stdout, done.stderr) == (b"in\0put", b"problem\n")


def test_embedded_pool_is_named_to_the_program(environ: dict[str, str], native_dir: Path) -> None:
    seen = shown(environ | {"LD_LIBRARY_PATH": "/somewhere", "LD_PRELOAD": ""}, "--stats", "--sync")
    interposer = native_dir / "interposer" / "libcuda.so.1"
    assert seen["LD_PRELOAD"] == str(interposer)
    assert seen["LD_LIBRARY_PATH"] == f"{interposer.parent}:/somewhere"
    assert seen["HARP_SERVER"].startswith("127.0.0.1:")
    assert seen["HARP_SERVER_NAME"] == "harp-server"
    assert seen["CUPY_COMPILE_WITH_PTX"] == "1"
    assert (seen["HARP_STATS"], seen["HARP_SYNC"]) == ("1", "1")
    credentials = Path(seen["HARP_CREDENTIALS"])
    assert credentials.is_relative_to(environ["HARP_STATE_DIR"])
    assert not credentials.exists(), "the throw-away credentials are gone after the run"


def test_a_choice_of_ptx_is_kept(environ: dict[str, str]) -> None:
    assert shown(environ | {"CUPY_COMPILE_WITH_PTX": "0"})["CUPY_COMPILE_WITH_PTX"] == "0"
    assert "CUPY_COMPILE_WITH_PTX" not in shown(environ, "--no-ptx")
    assert "CUPY_COMPILE_WITH_PTX" not in shown(environ | {"HARP_PTX": "0"})


def test_embedded_pool_serves_the_one_user(environ: dict[str, str]) -> None:
    """A stock TLS client with the credentials that the program is given gets a session."""
    client = """
import os, socket, ssl
folder = os.environ["HARP_CREDENTIALS"]
context = ssl.create_default_context(cafile=folder + "/ca.pem")
context.load_cert_chain(folder + "/client.pem", folder + "/client.key")
host, _, port = os.environ["HARP_SERVER"].rpartition(":")
raw = socket.create_connection((host, int(port)))
with context.wrap_socket(raw, server_hostname=os.environ["HARP_SERVER_NAME"]) as stream:
    stream.sendall(b"hello\\n")
    print(stream.version(), stream.recv(6))
"""
    done = run(environ, "--", sys.executable, "-c", client)
    assert done.stdout == "TLSv1.3 b'hello\\n'\n", done.stderr


def test_running_server_by_flag_environment_and_file(
    environ: dict[str, str], pool: Pool, tmp_path: Path
) -> None:
    flags = ("--server", "flag:1", "--credentials", str(pool.user))
    variables = {"HARP_SERVER": "variable:2", "HARP_CREDENTIALS": str(pool.user)}
    config = tmp_path / "config" / "harp" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'current = "lab"\n[contexts.lab]\nserver = "file:3"\ncredentials = "{pool.user}"\n'
        f'ptx = true\n[contexts.other]\nserver = "file:4"\ncredentials = "{pool.user}"\n'
        'server_name = "other-server"\n'
    )
    assert shown(environ | variables, *flags)["HARP_SERVER"] == "flag:1"
    assert shown(environ | variables)["HARP_SERVER"] == "variable:2"
    lab = shown(environ)
    assert (lab["HARP_SERVER"], lab["CUPY_COMPILE_WITH_PTX"]) == ("file:3", "1")
    other = shown(environ, "--context", "other")
    assert (other["HARP_SERVER"], other["HARP_SERVER_NAME"]) == ("file:4", "other-server")
    assert "CUPY_COMPILE_WITH_PTX" not in other
    assert shown(environ, "--embedded")["HARP_SERVER"].startswith("127.0.0.1:")
    config.write_text("current = [")
    assert run(environ, "--", "true").returncode == 125


def test_the_programs_folder_is_not_searched_for_modules(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "asyncio.py").write_text("raise RuntimeError('the wrong asyncio')")
    command = [str(Path(sys.executable).parent / "harp-run"), "--embedded", "--", "true"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_default_credentials_folder(environ: dict[str, str], pool: Pool, tmp_path: Path) -> None:
    default = tmp_path / "config" / "harp" / "credentials"
    default.parent.mkdir(parents=True)
    pool.user.rename(default)
    assert shown(environ, "--server", "gpu1:7443")["HARP_CREDENTIALS"] == str(default)


def test_nested_runs_do_not_stack(environ: dict[str, str], native_dir: Path) -> None:
    inner = [*HARP_RUN, "--direct", "--", sys.executable, "-c", SHOW]
    done = run(environ, "--embedded", "--", *inner)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["LD_PRELOAD"] == str(native_dir / "softgpu" / "libcuda.so.1")


TALKER = """
import signal, sys, time
def told(number, _frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(9)
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGWINCH", "SIGCONT"):
    signal.signal(getattr(signal, name), told)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@contextlib.contextmanager
def talking(environ: dict[str, str], *options: str) -> Iterator["subprocess.Popen[str]"]:
    """harp-run with a program that prints the signals it gets."""
    command = [*HARP_RUN, *options, "--", sys.executable, "-c", TALKER]
    # A group of its own, as a shell makes one for a job: the kernel does not stop orphaned groups.
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_signals_are_passed_on(environ: dict[str, str], way: str) -> None:
    with talking(environ, way) as process:
        assert process.stdout is not None
        for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGWINCH", "SIGTERM"):
            process.send_signal(getattr(signal, name))
            assert process.stdout.readline() == f"{name}\n"
        assert process.wait(BOUND) == 9


def state_of(pid: int) -> str:
    return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]


def test_stop_and_continue(environ: dict[str, str]) -> None:
    with talking(environ, "--direct") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTSTP)
        wait_until(lambda: state_of(process.pid) == "T", "harp-run stops with its program")
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "SIGCONT\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"


class Terminal:
    """harp-run as the foreground job of a pseudo-terminal."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(HARP_RUN[0], [*HARP_RUN, *arguments], environ)
        self.text = ""

    def read_until(self, part: str) -> None:
        deadline = time.monotonic() + BOUND
        while part not in self.text:
            assert select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0], (
                self.text
            )
            self.text += os.read(self.fd, 4096).decode()

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_the_terminals_interrupt_arrives_once(environ: dict[str, str], way: str) -> None:
    terminal = Terminal(environ, way, "--", sys.executable, "-c", TALKER)
    terminal.read_until("ready")
    terminal.type(b"\x03")
    terminal.read_until("SIGINT")
    time.sleep(0.3)  # a second one, if harp-run sent it too, would have come by now
    os.kill(terminal.pid, signal.SIGTERM)
    terminal.read_until("SIGTERM")
    assert terminal.text.count("SIGINT") == 1
    assert terminal.status() == 9
    os.close(terminal.fd)


def test_the_program_owns_the_terminal(environ: dict[str, str]) -> None:
    ask = (
        "import os; assert os.isatty(0); print('got', input('? '), os.get_terminal_size(1).columns)"
    )
    terminal = Terminal(environ, "--embedded", "--", sys.executable, "-c", ask)
    terminal.read_until("? ")
    terminal.type(b"typed\n")
    terminal.read_until("got typed")
    assert terminal.status() == 0
    os.close(terminal.fd)


def leftovers(environ: dict[str, str]) -> list[object]:
    state = Path(environ["HARP_STATE_DIR"])
    return [*processes_with(environ["HARP_STATE_DIR"]), *state.glob("pool-*")]


@pytest.fixture
def child_script(tmp_path: Path) -> Path:
    """A program with a child of its own, both of which would run for long."""
    script = tmp_path / "parent.sh"
    script.write_text("#!/bin/sh\nsleep 600 &\necho ready\nsleep 600\n")
    script.chmod(0o755)
    return script


def test_kill_9_of_harp_run_leaves_nothing(environ: dict[str, str], child_script: Path) -> None:
    command = [*HARP_RUN, "--embedded", "--", str(child_script)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert leftovers(environ)
    process.kill()
    process.communicate()
    wait_until(lambda: not leftovers(environ), f"nothing is left of {leftovers(environ)}", 10)


def test_kill_9_of_the_program_leaves_nothing(environ: dict[str, str]) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = run(environ, "--embedded", "--", sys.executable, "-c", program)
    assert done.returncode == 137
    assert not leftovers(environ)


def test_kill_9_of_the_pool_leaves_nothing(environ: dict[str, str], native_dir: Path) -> None:
    with talking(environ, "--embedded") as process:
        (agent,) = processes_with(environ["HARP_STATE_DIR"], "harp_server.embedded\0--lifeline-fd")
        os.kill(agent, signal.SIGKILL)
        wait_until(lambda: not processes_with(str(native_dir / "bin")), "workers are gone", 10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 9
    assert not leftovers(environ)


def test_what_a_killed_pool_left_is_removed_by_the_next(environ: dict[str, str]) -> None:
    stale = Path(environ["HARP_STATE_DIR"]) / "pool-1-dead"
    (stale / "credentials").mkdir(parents=True)
    assert run(environ, "--embedded", "--", "true").returncode == 0
    assert not stale.exists()


def test_a_background_child_keeps_its_life_after_an_orderly_end(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """Only a killed harp-run takes everything with it; a program may leave a daemon behind."""
    done = run(environ, "--embedded", "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!")
    pid = int(done.stdout)
    try:
        assert state_of(pid) in "SRD"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_sessions_of_a_run_are_logged_when_verbose(
    environ: dict[str, str], start_server: Callable[..., Server]
) -> None:
    done = run(environ, "--embedded", "-v", "--", "true")
    assert "harp-run: set CUPY_COMPILE_WITH_PTX=1" in done.stderr
    assert "harp-run: pool server 127.0.0.1:" in done.stderr
