"""The Python messages and stubs of the control plane, made by protoc: package ``harp_api``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harp_spec.render import Output

#: Where the ``.proto`` files lie. The Python package has another name: PyPI's ``harp`` is others'.
PROTO = Path(__file__).resolve().parents[3] / "harp" / "control" / "v1"
PACKAGE = "harp_api/control/v1"
TARGET = "proto/src"


def outputs() -> Iterator[Output]:
    files = sorted(path.name for path in PROTO.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PACKAGE}={PROTO}"]
        command += [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        subprocess.run([*command, *(f"{PACKAGE}/{name}" for name in files)], check=True)
        for path in sorted(Path(folder).rglob("*.py*")):
            yield Output(f"{TARGET}/{path.relative_to(folder)}", path.read_text())
    for package in ("harp_api", "harp_api/control", PACKAGE):
        yield Output(f"{TARGET}/{package}/__init__.py", "")
