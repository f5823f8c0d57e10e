"""What was uploaded once is not uploaded again: by the same tenant, and by no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.environment import clients_python
from harp_server.ca import save_user
from harp_server.content_cache import tenant_label
from pool.standins import (
    ASKING_NOTHING,
    BOUND,
    HARP_RUN,
    Server,
    processes_with,
    wait_until,
)

PROGRAM = [sys.executable, str(Path(__file__).with_name("uploading_program.py"))]
DEMO = Path(__file__).parents[2] / "examples" / "cupy_demo.py"

MIB = 1 << 20
SIZE = 3 * MIB + 70_000
"""Whole pieces and a rest."""

ALICE = "spiffe://lab/tenant/research/user/alice"


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """The stand-ins' environment with the real parts in their place."""
    return {k: v for k, v in environ.items() if k != "HARP_NATIVE_DIR"} | ASKING_NOTHING


class Kept:
    """A server, what it keeps, and programs that upload to it."""

    def __init__(self, start: Callable[..., Server], environ: dict[str, str], *options: str):
        self.server = start(*options)
        self.environ = environ
        self.folder = self.server.pool.server / "state" / "cache" / "tenants"

    def run(self, *command: object, user: Path | None = None, **variables: str) -> tuple[int, int]:
        """Runs a program to its end; the bytes that it sent, and those that it did not have to."""
        before = len(self.server.lines("session end"))
        words = [*HARP_RUN, "--server", self.server.address]
        words += ["--credentials", str(user or self.server.pool.user), "--"]
        done = subprocess.run(
            [*words, *map(str, command)],
            env=self.environ | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        wait_until(lambda: len(self.server.lines("session end")) > before, "the session's end")
        end = self.server.lines("session end")[before]
        return int(str(end["bytes_in"])), int(str(end["bytes_cached"]))

    def upload(
        self,
        seed: int,
        size: int = SIZE,
        times: int = 1,
        user: Path | None = None,
        **variables: str,
    ) -> tuple[int, int]:
        return self.run(*PROGRAM, seed, size, times, user=user, **variables)

    def start_waiting(self, size: int, times: int = 1) -> subprocess.Popen[bytes]:
        """Starts a program that has made its first copy, and waits for a line after each."""
        command = [*HARP_RUN, "--server", self.server.address]
        command += ["--credentials", str(self.server.pool.user), "--", *PROGRAM]
        program = subprocess.Popen(
            [*command, "1", str(size), str(times), "--wait"],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert program.stdout is not None
        assert program.stdout.readline() == b"there\n"
        return program

    def files(self, identity: str = ALICE) -> list[Path]:
        folder = self.folder / tenant_label(identity)
        found = folder.iterdir() if folder.exists() else iter(())
        return [file for file in found if file.name != "key" and not file.name.startswith("new-")]

    def holds(self, size: int, identity: str = ALICE) -> bool:
        return sum(file.stat().st_size for file in self.files(identity)) >= size

    def wait_for(self, size: int, identity: str = ALICE) -> None:
        """Waits until so many bytes of a tenant's have been written."""
        wait_until(lambda: self.holds(size, identity), f"{size} bytes are kept")


@pytest.fixture
def kept(start_server: Callable[..., Server], environ: dict[str, str]) -> Kept:
    return Kept(start_server, environ)


def test_the_second_start_of_a_program_uploads_next_to_nothing(kept: Kept) -> None:
    python = clients_python()
    first, _ = kept.run(python, DEMO, HARP_PTX="1")
    kept.wait_for(int(0.99 * first))
    second, spared = kept.run(python, DEMO, HARP_PTX="1")
    assert second <= 0.01 * first
    assert spared >= 0.98 * first


def test_a_payload_is_sent_once_by_a_tenant(kept: Kept) -> None:
    first, spared = kept.upload(1)
    assert first > SIZE
    assert spared == 0
    kept.wait_for(SIZE)
    second, spared = kept.upload(1)
    assert second < 10_000
    assert spared == SIZE
    other, _ = kept.upload(2)
    assert other > SIZE, "other bytes are sent"


def test_another_tenant_has_to_send_it_and_another_user_of_the_tenant_not(
    kept: Kept, tmp_path: Path
) -> None:
    authority = kept.server.pool.authority
    for tenant, name in (("other", "bob"), ("research", "carol")):
        root = authority.root.certificate_pem()
        save_user(tmp_path / name, root, authority.issue_user(tenant, name))
    kept.upload(1)
    kept.wait_for(SIZE)
    sent, spared = kept.upload(1, user=tmp_path / "bob")
    assert sent > SIZE
    assert spared == 0
    kept.wait_for(SIZE, "spiffe://lab/tenant/other/user/bob")
    sent, spared = kept.upload(1, user=tmp_path / "carol")
    assert sent < 10_000
    assert spared == SIZE
    ours, theirs = kept.files(), kept.files("spiffe://lab/tenant/other/user/bob")
    assert len(ours) == len(theirs) > 0
    assert not {file.name[:64] for file in ours} & {file.name[:64] for file in theirs}
    for file in [*ours, *theirs, kept.folder]:
        assert file.stat().st_mode & 0o077 == 0, "nobody else reads what is kept"


def test_what_is_sent_twice_in_a_session_is_sent_once(kept: Kept) -> None:
    program = kept.start_waiting(SIZE, 3)
    kept.wait_for(SIZE)
    stdout, _ = program.communicate(b"\n" * 3, timeout=BOUND)
    assert program.returncode == 0
    assert stdout.count(b"there") == 2, "and the first one before"
    wait_until(lambda: bool(kept.server.lines("session end")), "the session's end")
    end = kept.server.lines("session end")[0]
    assert SIZE < int(str(end["bytes_in"])) < SIZE + 10_000
    assert end["bytes_cached"] == 2 * SIZE
    # What lies in several places is known by one name.
    assert kept.upload(1, times=3)[1] == 3 * SIZE


def test_damaged_pieces_are_sent_again(kept: Kept) -> None:
    kept.upload(1)
    kept.wait_for(SIZE)
    for file in kept.files():
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    sent, spared = kept.upload(1)
    assert sent > SIZE
    assert spared == 0
    wait_until(lambda: len(kept.server.lines("cached piece damaged")) >= 4, "it is said")
    kept.wait_for(SIZE)
    sent, spared = kept.upload(1)
    assert sent < 10_000
    assert spared == SIZE


def test_pieces_that_are_cut_short_or_gone_are_sent_again(kept: Kept) -> None:
    kept.upload(1)
    kept.wait_for(SIZE)
    first, second, *_ = kept.files()
    first.write_bytes(b"")
    second.unlink()
    sent, spared = kept.upload(1)
    assert 0 < spared < SIZE
    assert sent + spared >= SIZE


def test_a_damaged_image_is_sent_again(kept: Kept) -> None:
    python = clients_python()
    first, _ = kept.run(python, DEMO, HARP_PTX="1")
    kept.wait_for(int(0.99 * first))
    for file in kept.files():
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    sent, _ = kept.run(python, DEMO, HARP_PTX="1")
    assert sent >= 0.98 * first


def test_what_is_kept_has_its_limits(
    start_server: Callable[..., Server], environ: dict[str, str]
) -> None:
    options = ("--blob-cache-size", "8MiB", "--blob-cache-tenant-size", "5MiB")
    kept = Kept(start_server, environ, *options)
    for seed in range(3):
        kept.upload(seed)
    kept.wait_for(SIZE)
    # The last one's are there, and the first one's make room.
    wait_until(lambda: kept.upload(2)[1] == SIZE, "the last one is kept")
    assert sum(file.stat().st_size for file in kept.files()) <= 5 * MIB
    sent, spared = kept.upload(0)
    assert sent + spared >= SIZE


def test_nothing_is_kept_where_nothing_is_to_be_kept(
    start_server: Callable[..., Server], environ: dict[str, str], kept: Kept
) -> None:
    for _ in range(2):
        assert kept.upload(1, HARP_DEDUP="0")[1] == 0
    assert not kept.files()
    without = Kept(start_server, environ, "--blob-cache-size", "0")
    for _ in range(2):
        assert without.upload(1)[1] == 0


def test_a_folder_that_cannot_be_written_fails_no_program(kept: Kept) -> None:
    kept.upload(1)
    kept.wait_for(SIZE)
    folder = kept.folder / tenant_label(ALICE)
    folder.chmod(0o500)
    sent, _ = kept.upload(2)
    assert sent > SIZE
    wait_until(lambda: bool(kept.server.lines("nothing is cached")), "it is said")
    assert kept.upload(1)[1] == SIZE, "what is there can be used"
    folder.chmod(0o700)
    kept.upload(2)
    kept.wait_for(2 * SIZE)


def test_programs_that_upload_the_same_at_the_same_time(kept: Kept) -> None:
    problems: list[BaseException] = []

    def upload(seed: int) -> None:
        try:
            command = [*HARP_RUN, "--server", kept.server.address]
            command += ["--credentials", str(kept.server.pool.user), "--", *PROGRAM]
            command += [str(seed), str(SIZE), "2"]
            subprocess.run(
                command, env=kept.environ, check=True, capture_output=True, timeout=3 * BOUND
            )
        except BaseException as problem:
            problems.append(problem)

    for _ in range(2):
        threads = [threading.Thread(target=upload, args=(i % 2,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not problems
    wait_until(lambda: len(kept.server.lines("session end")) == 8, "all ends are logged")
    assert kept.upload(1)[1] == SIZE


def test_a_worker_or_a_cache_that_is_killed_leaves_nothing_wrong(kept: Kept) -> None:
    program = kept.start_waiting(32 * MIB)
    worker = int(str(kept.server.lines("session start")[0]["worker"]))
    os.kill(worker, signal.SIGKILL)
    program.communicate(timeout=BOUND)
    sent, spared = kept.upload(1, 32 * MIB)
    assert sent + spared >= 32 * MIB

    (cache,) = processes_with("harp-cache", str(kept.server.pool.server))
    os.kill(cache, signal.SIGKILL)
    wait_until(lambda: bool(kept.server.lines("cache lost")), "it is said")
    kept.upload(1)
    wait_until(lambda: kept.upload(1, 32 * MIB)[1] > 0, "another one is started")


def test_embedded_pools_of_a_user_know_what_earlier_ones_were_sent(
    environ: dict[str, str], tmp_path: Path
) -> None:
    def upload() -> str:
        command = [*HARP_RUN, "--embedded", "--stats", "--", *PROGRAM, "1", str(SIZE)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "not sent again" not in upload()
    assert "3.1 MiB not sent again" in upload()
    assert list((tmp_path / "cache" / "tenants").iterdir()) == [
        tmp_path / "cache" / "tenants" / "local"
    ]
