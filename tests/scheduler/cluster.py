"""A real pool on this machine: schedulers, servers with soft GPUs, users; each a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harp_api.control.v1 import pool_pb2 as api
from harp_client import native
from harp_client.native import LAYOUT
from harp_client.scheduler import Scheduler
from harp_server.ca import Authority, save_user
from pool.standins import HARP, HARP_RUN

BOUND = 30.0
"""Seconds that anything here may take before a test gives up."""

PROGRAM = [sys.executable, str(Path(__file__).with_name("uses_a_device.py"))]
DEVICE_MEMORY = 256 << 20


class JoinCommand(NamedTuple):
    """What `harp token create` says."""

    address: str
    text: str


class Cluster:
    """Everything of one pool, in one folder."""

    def __init__(
        self, folder: Path, database: str = "", grace: float = 20.0, is_new: bool = False
    ) -> None:
        """`is_new`: the scheduler makes the authority, and everybody but its admin has to join."""
        self.folder = folder
        self.ca = folder / "ca"
        self.database = database or str(folder / "pool.db")
        self.grace = grace
        self.is_new = is_new
        self.started: dict[str, subprocess.Popen[str]] = {}
        self.programs: list[subprocess.Popen[str]] = []
        """All that `run` has started."""
        self.addresses: dict[str, str] = {}
        self.own_environ: dict[str, dict[str, str]] = {}
        """What only the part, or the programs of the host, of that name have in it."""

        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HARP_", "XDG_", "CUDA_", "CUPY_"))
        } | {
            "HARP_STATE_DIR": str(folder / "state"),
            "HARP_CACHE_DIR": str(folder / "cache"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "HARP_SOFT_MEMORY": str(DEVICE_MEMORY),
            "HARP_SOFT_THREADS": "1",
        }
        if is_new:
            return
        authority = Authority.create("lab")
        authority.save(self.ca)
        for user, tenant in (("admin", "system"), ("alice", "default"), ("bob", "default")):
            save_user(folder / user, authority.trusted_pem(), authority.issue_user(tenant, user))

    def start(self, name: str, command: Sequence[str], **environ: str) -> str:
        """Starts a process that says its address when it is ready."""
        ready_read, ready_write = os.pipe()
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started[name] = subprocess.Popen(
                [*HARP, *command, "--log-format", "json", "--ready-fd", str(ready_write)],
                env=self.environ | environ | self.own_environ.get(name, {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                text=True,
                pass_fds=[ready_write],
            )
        os.close(ready_write)
        with os.fdopen(ready_read) as ready:
            address = ready.readline().strip()
        assert address, f"{name} did not start:\n{self.log(name)}"
        self.addresses[name] = address
        return address

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def scheduler(self, name: str = "scheduler", *options: str) -> str:
        """Starts a scheduler, at its former address if it had one."""
        listen = self.addresses.get(name, "127.0.0.1:0")
        authority = ["--state", str(self.folder)] if self.is_new else ["--ca", str(self.ca)]
        command = ["scheduler", *authority, "--listen", listen, "--join-listen", "127.0.0.1:0"]
        command += ["--name", name, "--database", self.database, "--grace", str(self.grace)]
        return self.start(name, [*command, *options])

    def server(
        self, name: str, devices: int = 1, *options: str, schedulers: Sequence[str] = ()
    ) -> str:
        """Starts a server with soft GPUs, and waits until the scheduler has heard of it.

        `schedulers` are the addresses that it is given, if they are not those of the schedulers.
        """
        credentials = self.folder / "servers" / name
        if not credentials.exists():
            Authority.load(self.ca).issue_server(name).save(credentials)
        listen = self.addresses.get(name, "127.0.0.1:0")
        command = ["server", "--credentials", str(credentials), "--listen", listen, *options]
        for scheduler in schedulers or self.schedulers:
            command += ["--scheduler", scheduler]
        address = self.start(name, command, HARP_SOFT_DEVICES=str(devices))
        self.wait(lambda: any(s["connected"] for s in self.get("server", name)), f"{name} is known")
        return address

    @property
    def schedulers(self) -> list[str]:
        return [a for name, a in self.addresses.items() if name.startswith("scheduler")]

    def metrics(self, name: str, page: str = "metrics") -> tuple[int, str]:
        """What a part that was started with `--metrics` answers: status and text."""
        lines = [json.loads(line) for line in self.log(name).splitlines() if line.startswith("{")]
        address = next(line["address"] for line in reversed(lines) if line["event"] == "metrics")
        try:
            with urllib.request.urlopen(f"http://{address}/{page}", timeout=BOUND) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self.started.pop(name)
        process.send_signal(number)
        process.wait(BOUND)

    def environ_of(self, user: str) -> dict[str, str]:
        return self.environ | {
            "HARP_SCHEDULER": ",".join(self.schedulers),
            "HARP_CREDENTIALS": str(self.folder / user),
        }

    def harp(self, *words: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
        """Runs `harp`."""
        return subprocess.run(
            [*HARP, *words],
            env=self.environ_of(user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def token(self, *options: str, user: str = "admin") -> JoinCommand:
        """Makes a join token."""
        made = self.harp("token", "create", *options, user=user)
        assert made.returncode == 0, made.stderr
        command, token, _ = made.stdout.splitlines()
        return JoinCommand(command.split()[2], token)

    def join(
        self, token: JoinCommand, into: str, *options: str, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Joins with a token, into a folder of the pool's."""
        command = [*HARP, "join", token.address, "--token-file", "-", *options]
        return subprocess.run(
            [*command, "--into", str(self.folder / into)],
            env=self.environ | environ,
            input=token.text,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def get(self, kind: str, name: str = "", user: str = "admin") -> list[dict[str, Any]]:
        """The things of a kind."""
        plural = kind if kind == "queue" else f"{kind}s"
        done = self.harp("get", plural, "-o", "json", user=user)
        assert done.returncode == 0, done.stderr
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return [item for item in items if not name or name in (item.get("name"), item.get("id"))]

    def things(self) -> api.Things:
        """All that there is, asked without a command."""
        scheduler = Scheduler(self.schedulers, str(self.folder / "admin"))
        try:
            answer: api.Things = scheduler.call("Get", api.GetRequest())
            return answer
        finally:
            scheduler.close()

    def run(
        self, *options: str, program: Sequence[str] = PROGRAM, user: str = "alice", host: str = ""
    ) -> subprocess.Popen[str]:
        """Starts `harp-run`."""
        more = {"HARP_HOST": host} if host else {}
        running = subprocess.Popen(
            [*HARP_RUN, *options, "--", *program],
            env=self.environ_of(user) | more | self.own_environ.get(host, {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.programs.append(running)
        return running

    def wait(self, condition: Any, what: str, seconds: float = BOUND) -> None:
        """Polls until `condition` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            logs = "\n".join(self.log(name) for name in self.started)
            assert time.monotonic() < deadline, f"still not after {seconds} s: {what}\n{logs}"
            time.sleep(0.1)

    def close(self) -> None:
        for program in self.programs:
            if program.returncode is None:
                program.kill()
                program.communicate()
        for process in self.started.values():
            process.terminate()
        for process in self.started.values():
            process.wait(BOUND)


def native_with_worker(folder: Path, script: str) -> dict[str, str]:
    """An environment with native parts whose worker is a shell script; it knows $WORKER."""
    parts = native.find({})
    for part in LAYOUT:
        place = folder / "native" / part
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path(parts.root, part).resolve())
    worker = folder / "native" / "bin" / "harp-worker"
    worker.unlink()
    worker.write_text(f"#!/bin/sh\nWORKER={os.path.realpath(parts.worker)}\n{script}\n")
    worker.chmod(0o755)
    return {"HARP_NATIVE_DIR": str(folder / "native")}


def first_line(program: subprocess.Popen[str]) -> str:
    """What a program says first."""
    assert program.stdout is not None
    line = program.stdout.readline().strip()
    if not line:
        assert program.stderr is not None
        return f"nothing; stderr: {program.stderr.read()}"
    return line


def end(program: subprocess.Popen[str], seconds: float = BOUND) -> tuple[int, str, str]:
    """Lets a program end; its status, the rest of its output, and its stderr."""
    out, err = program.communicate(timeout=seconds)
    return program.returncode, out.strip(), err
