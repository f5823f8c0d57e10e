"""The committed Rust messages of the data path are what their .proto says."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_generated_messages_are_fresh():
    generator = ROOT / "crates/transport/codegen/Cargo.toml"
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "codegen"
    check = subprocess.run(
        ["cargo", "run", "-q", "--manifest-path", generator, "--", "--check"],
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert check.returncode == 0, check.stderr
