"""The command `harp`: help with examples everywhere, and the authority as the README shows it."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from google.protobuf.message import Message

from harp_api.control.v1 import pool_pb2 as api
from harp_client import cli
from harp_client.cli import COMMANDS, status_of
from harp_client.commands import admin, get, leases, record
from harp_server.commands import first_failure
from pool.standins import BOUND, HARP, Pool


def harp(
    environ: dict[str, str], *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARP, *arguments], env=environ, cwd=cwd, capture_output=True, text=True, timeout=BOUND
    )


@pytest.mark.parametrize("command", ["", *sorted(COMMANDS)])
def test_help_has_examples(environ: dict[str, str], command: str) -> None:
    done = harp(environ, *filter(None, [command]), "--help")
    assert done.returncode == 0
    assert "Examples:" in done.stdout


def test_version(environ: dict[str, str]) -> None:
    assert harp(environ, "--version").stdout.startswith("harp ")


def test_usage_errors_are_status_2(environ: dict[str, str]) -> None:
    assert harp(environ, "nonsense").returncode == 2
    assert harp(environ, "server").returncode == 2


@pytest.mark.parametrize(
    "command",
    [
        *(
            f"{command} {number}"
            for number in ("nan", "inf", "-inf")
            for command in (
                "server --credentials none --drain",
                "server --credentials none --grace",
                "scheduler --state none --grace",
                "doctor --events",
                "top --scheduler none:1 --interval",
            )
        ),
        "create tenant all --devices 4294967296",
        "attach web1 --priority 2147483648",
        "audit list --after 18446744073709551616",
    ],
)
def test_numbers_that_cannot_be_used_are_usage_errors(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["harp", *command.split()])
    assert status_of(cli.harp, "harp") == 2
    said = capsys.readouterr().err.replace("'-n' / ", "")
    assert f"Invalid value for '{command.split()[-2]}'" in said


@pytest.mark.parametrize(
    "command",
    [
        "scheduler --state none --member-life 0",
        "scheduler --state none --user-life 9999999999999d",
        "ca rotate none --after 9999999999999d",
    ],
)
def test_lives_that_no_certificate_has_are_usage_errors(
    environ: dict[str, str], tmp_path: Path, command: str
) -> None:
    done = harp(environ, *command.split(), cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_a_timeout_that_is_none_is_told_before_anything_is_attached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    pool = SimpleNamespace(call=lambda name, _: called.append(name) or api.Lease())
    monkeypatch.setattr(leases, "connect", lambda **_: pool)
    monkeypatch.setattr(sys, "argv", ["harp", "attach", "web1", "--timeout", "soon"])
    assert status_of(cli.harp, "harp") == 2
    assert called == []


@pytest.mark.parametrize(
    "command",
    [
        "ca create FILE/ca",
        "restore backup --state FILE/state",
        "ca show FILE/ca.pem",
        "scheduler --state FILE/state",
    ],
)
def test_files_that_cannot_be_used_are_told_without_a_traceback(
    environ: dict[str, str], tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").touch()
    done = harp(environ, *command.replace("FILE", str(tmp_path / "file")).split())
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert f"{tmp_path}/file/" in done.stderr.splitlines()[-1]


def test_what_harp_run_cannot_do_is_a_usage_error_of_harp(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("no table")
    environ = environ | {"HARP_CONFIG": str(tmp_path / "config.toml")}
    for command in ("context list", "get devices"):
        done = harp(environ, *command.split())
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        ("--listen nowhere", "'nowhere' is not HOST:PORT. Next: write it like"),
        ("--listen 127.0.0.1:0 --join-listen x:y", "'x:y' is not HOST:PORT. Next: write it like"),
        (
            "--database postgresql://u:word@h:port/x",
            "'postgresql://***@h:port/x' is not the URL of a",
        ),
    ],
)
def test_addresses_of_a_scheduler_that_are_none(
    environ: dict[str, str], tmp_path: Path, command: str, cause: str
) -> None:
    done = harp(environ, "scheduler", "--state", str(tmp_path / "state"), *command.split())
    assert done.stderr.startswith(f"harp: {cause}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("key", ["server", "credentials", "scheduler"])
def test_a_context_that_says_something_else_than_words(
    environ: dict[str, str], tmp_path: Path, key: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[contexts.mine]\n{key} = 5\n")
    done = harp(environ | {"HARP_CONFIG": str(path)}, "get", "devices", "--context", "mine")
    assert done.stderr == (
        f"harp: {path}: {key} = 5 of context mine is no text. Next: put it in quotes\n"
    )
    assert done.returncode == 2


EVIL = "\x1b[2Jgone"
SESSION = api.Session(name=EVIL, server="gpu1", tenant=EVIL)


@pytest.mark.parametrize(
    ("module", "command", "answer"),
    [
        (admin, "uncordon gpu1/0", api.Things(devices=[api.Accelerator(fault=EVIL)])),
        (record, "record 5d41", SESSION),
        (get, "get sessions -o name", api.Things(sessions=[SESSION])),
        (get, "get sessions", api.Things(sessions=[SESSION])),
        (get, "describe session 5d41", api.Things(sessions=[SESSION])),
        (leases, "start work", api.Lease(name="work", state="Pending", reason=EVIL)),
    ],
)
def test_what_servers_say_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: ModuleType,
    command: str,
    answer: Message,
) -> None:
    pool = SimpleNamespace(call=lambda *_: answer)
    monkeypatch.setattr(module, "connect", lambda **_: pool)
    monkeypatch.setattr(sys, "argv", ["harp", *command.split()])
    assert status_of(cli.harp, "harp") == 0
    said = "".join(capsys.readouterr())
    assert "2Jgone" in said
    assert "\x1b" not in said


def test_the_readmes_authority(environ: dict[str, str], tmp_path: Path) -> None:
    for line in (
        "ca create pool-ca --pool lab",
        "ca server pool-ca gpu1",
        "ca user pool-ca alice --tenant ml",
    ):
        done = harp(environ, *line.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.glob("pool-ca/**/*") if p.is_file()}
    assert names == {
        "pool-ca/ca.key",
        "pool-ca/ca.pem",
        "pool-ca/servers/gpu1/agent.key",
        "pool-ca/servers/gpu1/agent.pem",
        "pool-ca/servers/gpu1/ca.pem",
        "pool-ca/servers/gpu1/server.key",
        "pool-ca/servers/gpu1/server.pem",
        "pool-ca/users/alice/ca.pem",
        "pool-ca/users/alice/client.key",
        "pool-ca/users/alice/client.pem",
    }
    shown = harp(environ, "ca", "show", "pool-ca/users/alice/client.pem", cwd=tmp_path).stdout
    assert "spiffe://lab/tenant/ml/user/alice" in shown


def test_the_authority_never_overwrites(environ: dict[str, str], tmp_path: Path) -> None:
    lines = ("ca create pool-ca", "ca server pool-ca gpu1", "ca user pool-ca alice")
    for line in lines:
        assert harp(environ, *line.split(), cwd=tmp_path).returncode == 0
    for line in lines:
        again = harp(environ, *line.split(), cwd=tmp_path)
        assert again.returncode == 1
        assert len(again.stderr.splitlines()) == 1
        assert "Next: " in again.stderr


def test_who_is_given_credentials_during_a_rotation_trusts_both_roots(
    environ: dict[str, str], tmp_path: Path
) -> None:
    lines = ("ca create pool-ca", "ca rotate pool-ca", "ca server pool-ca gpu1")
    for line in (*lines, "ca user pool-ca alice"):
        assert harp(environ, *line.split(), cwd=tmp_path).returncode == 0
    ca = tmp_path / "pool-ca"
    both = (ca / "ca.pem").read_text() + (ca / "trusted.pem").read_text()
    assert both.count("BEGIN CERTIFICATE") == 2
    for folder in (ca / "servers" / "gpu1", ca / "users" / "alice"):
        assert (folder / "ca.pem").read_text() == both


def test_credentials_without_an_authority(environ: dict[str, str], tmp_path: Path) -> None:
    done = harp(environ, "ca", "user", "nowhere", "alice", cwd=tmp_path)
    assert done.returncode == 1
    assert "harp ca create nowhere" in done.stderr


def test_settings_show_what_is_set(environ: dict[str, str]) -> None:
    shown = harp(environ | {"HARP_SERVER": "gpu1:7443"}, "settings").stdout
    assert "HARP_SERVER = gpu1:7443\n" in shown


def test_doctor_finds_what_is_wrong(environ: dict[str, str], native_dir: Path) -> None:
    """The stand-ins have no device to offer, and one part is taken away."""
    (native_dir / "softgpu" / "libcuda.so.1").unlink()
    done = harp(environ, "doctor", "-o", "json")
    assert done.returncode == 1
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["versions"]["ok"]
    assert not findings["native parts"]["ok"]
    assert "softgpu/libcuda.so.1" in findings["native parts"]["text"]
    assert not findings["embedded pool"]["ok"]
    text = harp(environ, "doctor").stdout
    assert "FAIL  native parts" in text


def test_a_server_does_not_outlive_what_holds_its_leases() -> None:
    async def told(
        asking: Coroutine[None, None, int], work: Coroutine[None, None, None]
    ) -> str | None:
        asked, linked = asyncio.create_task(asking), asyncio.create_task(work)
        async with asyncio.timeout(BOUND):
            return await first_failure(asked, [linked])

    async def for_ever() -> None:
        await asyncio.sleep(3600)

    async def fails() -> None:
        raise RuntimeError("broken")

    assert asyncio.run(told(asyncio.sleep(3600, 0), fails())) == "RuntimeError('broken')"
    assert asyncio.run(told(asyncio.sleep(0, signal.SIGTERM), for_ever())) is None


BROKEN = """
from harp_client.cli import main
from harp_server import inventory, scheduler_link

async def take(*_):
    return scheduler_link.Inventory("gpu1:7443", [], {})

async def run(_):
    raise RuntimeError("broken")

inventory.take, scheduler_link.SchedulerLink.run = take, run
main()
"""


def test_a_server_whose_link_fails_ends_with_one_line(
    environ: dict[str, str], pool: Pool, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", BROKEN, "server", "--listen", "127.0.0.1:0"]
    command += ["--credentials", str(pool.server), "--scheduler", "127.0.0.1:1"]
    command += ["--log-level", "error", "--log-format", "json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    log, line = done.stderr.splitlines()
    assert (done.returncode, json.loads(log)["event"]) == (1, "server failed")
    assert line.startswith("harp: the server failed: RuntimeError('broken'). Next: ")


def test_light_start() -> None:
    """harp-run imports nothing of the command line or of the server on its way to the program."""
    heavy = {"click", "rich", "structlog", "cryptography", "grpc", "asyncio", "harp_server"}
    program = "import sys, harp_client.run, harp_client.pool; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not heavy & set(loaded.stdout.split())


def test_a_scheduler_without_its_packages_says_how_to_get_them(
    environ: dict[str, str], tmp_path: Path
) -> None:
    program = (
        "import sys; sys.modules['sqlalchemy'] = None; from harp_client.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "scheduler", "--state", str(tmp_path / "pool")],
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "harp: a scheduler needs the package sqlalchemy, which is not installed. "
        "Next: pip install 'harp-pool[scheduler]'\n"
    )
