"""Whether `harp-run` asks client libraries for PTX: only where the server's device is soft."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from pool.standins import BOUND, HARP_RUN, Pool

LIBRARY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int cuInit(unsigned flags) {
    FILE *asked = fopen(getenv("ASKED"), "a");
    fprintf(asked, "%s %s\n", getenv("HARP_SERVER"), getenv("HARP_CONNECT_TIMEOUT"));
    fclose(asked);
    fprintf(stderr, "this is not for the person at the terminal\n");
    if (getenv("HANGS")) pause();
    return getenv("NAME") ? 0 : 100;
}
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char *name, int size, int device) {
    return strncpy(name, getenv("NAME"), size), 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = 1 << 30, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { return *value = 8, 0; }
"""
SOFT, OTHER = "HARP Soft GPU", "NVIDIA H100 80GB HBM3"


class Asking:
    """`harp-run -v` with a driver that notes who asks, before a program that shows a variable."""

    def __init__(self, environ: dict[str, str], native_dir: Path, pool: Pool, place: Path) -> None:
        source = place / "driver.c"
        source.write_text(LIBRARY)
        library = native_dir / "interposer" / "libcuda.so.1"
        command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
        subprocess.run([*command, "-o", str(library), str(source)], check=True)
        self.asked = place / "asked"
        self.asked.touch()
        self.environ = environ | {"ASKED": str(self.asked)}
        self.options = ["--credentials", str(pool.user), "-v"]

    def run(
        self, name: str | None, *options: str, server: str = "gpu1:1", **variables: str
    ) -> tuple[str, str]:
        """(what the program sees of CUPY_COMPILE_WITH_PTX, what harp-run says)."""
        environ = self.environ | ({"NAME": name} if name else {}) | variables
        command = [*HARP_RUN, *self.options, "--server", server, *options, "--"]
        command += ["sh", "-c", "echo ${CUPY_COMPILE_WITH_PTX-unset}"]
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=3 * BOUND
        )
        assert done.returncode == 0, done.stderr
        assert "not for the person" not in done.stderr
        return done.stdout.strip(), done.stderr

    def count(self) -> int:
        """How often a server was asked."""
        return len(self.asked.read_text().splitlines())


@pytest.fixture
def asking(environ: dict[str, str], native_dir: Path, pool: Pool, tmp_path: Path) -> Asking:
    return Asking(environ, native_dir, pool, tmp_path)


def test_a_soft_server_is_asked_once(asking: Asking) -> None:
    seen, said = asking.run(SOFT)
    assert seen == "1"
    assert "harp-run: set CUPY_COMPILE_WITH_PTX=1: a soft GPU executes PTX" in said
    assert asking.asked.read_text() == "gpu1:1 2.0\n"
    # The second time it is known, even where the server now keeps its answer to itself.
    assert asking.run(None)[0] == "1"
    assert asking.count() == 1


def test_a_real_gpu_changes_nothing(asking: Asking) -> None:
    seen, said = asking.run(OTHER)
    assert (seen, asking.count()) == ("unset", 1)
    assert "PTX" not in said
    assert asking.run(OTHER)[0] == "unset"
    assert asking.count() == 1


def test_the_answer_is_one_servers_and_grows_old(asking: Asking) -> None:
    assert asking.run(SOFT)[0] == "1"
    assert asking.run(OTHER, server="gpu2:1")[0] == "unset"
    assert asking.run(OTHER, "--server-name", "another")[0] == "unset"
    assert asking.run(SOFT)[0] == "1"
    assert asking.count() == 4, "the third has replaced the first's answer"
    state = Path(asking.environ["HARP_STATE_DIR"])
    old = time.time() - 7200
    for place in state.glob("server-*"):
        os.utime(place, (old, old))
    assert asking.run(OTHER)[0] == "unset"
    assert asking.count() == 5


def test_a_choice_needs_no_question(asking: Asking, tmp_path: Path) -> None:
    assert asking.run(OTHER, "--ptx")[0] == "1"
    assert asking.run(SOFT, "--no-ptx")[0] == "unset"
    assert asking.run(SOFT, HARP_PTX="0")[0] == "unset"
    assert asking.run(SOFT, CUPY_COMPILE_WITH_PTX="0")[0] == "0"
    assert asking.count() == 0


def test_a_server_that_does_not_answer_keeps_nobody_from_starting(asking: Asking) -> None:
    for variables in ({}, {"HANGS": "1"}):
        seen, said = asking.run(None, **variables)
        assert seen == "unset"
        assert "not known yet; --ptx if it is a soft GPU" in said
    assert asking.run(SOFT)[0] == "1", "no answer is not remembered"


def test_asking_waits_no_longer_than_connecting_may(asking: Asking) -> None:
    for limit in ("0.5", "30", "nonsense"):
        asking.run(None, HARP_CONNECT_TIMEOUT=limit, HANGS="1")
    assert [line.split()[1] for line in asking.asked.read_text().splitlines()] == [
        "0.5",
        "2.0",
        "2.0",
    ]
