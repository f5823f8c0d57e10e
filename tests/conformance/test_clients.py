"""Client libraries as users install them: CuPy, numba-cuda, cuda.core."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from clients.environment import clients_python
from conformance.columns import NATIVE, SOFT, Columns

SCRIPTS = Path(__file__).resolve().parents[1] / "clients"
EXAMPLES = SCRIPTS.parents[1] / "examples"

CLIENTS = {
    f"cupy-{group}": ("cupy_basics.py", group)
    for group in (
        "creation",
        "elementwise",
        "broadcasting",
        "reductions",
        "sorting",
        "kernels",
        "streams",
    )
} | {
    "numba": ("numba_basics.py",),
    "cuda-core": ("cuda_core_basics.py",),
    "cuda-core-objects": ("cuda_core_objects.py",),
    "cuda-bindings": ("cuda_bindings_basics.py",),
}

LONG = ("cupy-elementwise", "cupy-reductions")
"""Scripts that take as long as all others together."""


def cases() -> list[object]:
    """(name, column): every script in every column, the long ones in local mode when asked for."""
    full = pytest.mark.skipif(not os.environ.get("FULL"), reason="make test FULL=1 runs it")
    return [
        pytest.param(
            name,
            column,
            id=f"{name}-{column}",
            marks=[full] if column == "local" and name in LONG else [],
        )
        for name in CLIENTS
        for column in (*SOFT, *NATIVE)
    ]


@pytest.mark.parametrize("column", ["pool", "pool2"])
def test_cupy_on_two_devices(columns: Columns, column: str) -> None:
    """Arrays, kernels and streams of two devices, of one server or of two, as directly."""
    command = [clients_python(), SCRIPTS / "cupy_two_devices.py"]
    outcome = columns.run(column, command)
    assert outcome.status == 0, outcome.told()
    assert outcome.stdout == columns.run("direct", command).stdout, outcome.told()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "column"), cases())
def test_client(columns: Columns, name: str, column: str) -> None:
    """The script agrees with NumPy, and prints the same as it does directly."""
    script, *arguments = CLIENTS[name]
    command = [clients_python(), SCRIPTS / script, *arguments]
    outcome = columns.run(column, command)
    assert outcome.status == 0, outcome.told()
    if column != "direct" and column not in NATIVE:
        assert outcome.stdout == columns.run("direct", command).stdout, outcome.told()
    if column in ("native-local", "native-pool"):
        assert outcome.stdout == columns.run("native", command).stdout, outcome.told()


def test_demo(columns: Columns) -> None:
    """The demo's program shows that everything agrees with NumPy, on the pool of its own run."""
    command = [clients_python(), EXAMPLES / "cupy_demo.py"]
    outcome = columns.run("embedded", command, {"HARP_STATS": "1"})
    assert outcome.status == 0, outcome.told()
    assert "all results agree with NumPy" in outcome.stdout
    # Of CuPy's libraries only the PTX is sent: with all their machine code it would be 109 MiB.
    sent = re.search(r"([0-9.]+) MiB sent", outcome.stderr)
    assert sent is not None, outcome.told()
    assert 1 < float(sent[1]) < 30, outcome.told()
