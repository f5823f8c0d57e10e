"""`harp record`: a program that runs already is recorded on its server, from then on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harp_client.native import find
from scheduler.cluster import Cluster, end, first_line


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    cluster.scheduler()
    cluster.server("gpu1", 1)
    yield cluster
    cluster.close()


def test_a_running_program_is_recorded_from_then_on(cluster: Cluster) -> None:
    program = cluster.run("--gpus", "1")
    assert first_line(program) == "using 1"
    cluster.wait(lambda: bool(cluster.get("session")), "its session is known")
    name = cluster.get("session")[0]["name"]

    for refused, status, cause in (
        (cluster.harp("record", "nothing"), 3, "there is no session nothing"),
        (cluster.harp("record", name, user="bob"), 4, "is not operator of tenant default"),
        (cluster.harp("record", name, "--payload", "everything"), 2, "no payload policy"),
    ):
        assert refused.returncode == status
        assert cause in refused.stderr

    done = cluster.harp("record", name[:8])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}: recorded on gpu1")
    trace = cluster.folder / "servers" / "gpu1" / "state" / "traces" / "default" / f"{name}.htrace"
    cluster.wait(trace.exists, "the trace has begun")
    again = cluster.harp("record", name)
    assert again.returncode == 0  # the server says that it is being recorded
    cluster.wait(lambda: "it is being recorded" in cluster.log("gpu1"), "the server has heard it")
    assert end(program)[:2] == (0, "ended")
    cluster.wait((trace / "MANIFEST.json").exists, "the trace is finished")

    said = subprocess.run(
        [find({}).trace, "events", str(trace)], capture_output=True, text=True, timeout=60
    )
    events = [json.loads(line) for line in said.stdout.splitlines()]
    process = next(each for each in events if each["type"] == "process")
    assert process["from_start"] is False
    names = {each["name"] for each in events if each["type"] == "call"}
    assert "cuCtxSynchronize" in names
    audit = cluster.harp("audit", "list").stdout
    assert any("record" in line and name in line for line in audit.splitlines()), audit
