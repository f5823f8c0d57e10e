"""What `pip install .` makes: a wheel of this platform with the native parts inside the package."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from harp_client import __version__
from harp_client.native import LAYOUT, find

ROOT = Path(__file__).parents[2]

FAKE_CARGO = """#!/bin/sh
mkdir -p target/release
for product in {products}; do
    echo "$product" > target/release/$product
    chmod 755 target/release/$product
done
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of the real sources by a cargo that only leaves empty products."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("client", "proto/src/harp_api", "replay/src", "scheduler/src", "server/src"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    cargo = folder / "bin" / "cargo"
    cargo.parent.mkdir()
    cargo.write_text(FAKE_CARGO.format(products=" ".join(LAYOUT.values())))
    cargo.chmod(0o755)
    environ = {k: v for k, v in os.environ.items() if k != "CARGO_TARGET_DIR"}
    environ["PATH"] = f"{cargo.parent}:{environ['PATH']}"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_is_of_this_platform_and_any_python(wheel: Path) -> None:
    assert wheel.name.startswith(f"harp_pool-{__version__}-py3-none-linux_")


def test_wheel_holds_the_native_parts(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        names = archive.namelist()
    for part, product in LAYOUT.items():
        assert (tmp_path / "harp_client" / "native" / part).read_text() == f"{product}\n"
    assert "harp_server/agent.py" in names
    assert {"harp_replay/cli.py", "harp_replay/page.css", "harp_replay/page.js"} <= set(names)
    assert any(name.startswith("harp_scheduler/store/migrations/versions/r") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_package_finds_its_own_parts(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*command, "--disable-pip-version-check", "--quiet", str(wheel)], check=True)
    program = "from harp_client.native import find; p = find({}); print(p.root, p.missing())"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HARP_")}
    environ["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == f"{tmp_path}/harp_client/native []", done.stderr
    worker = tmp_path / "harp_client" / "native" / "bin" / "harp-worker"
    assert os.access(worker, os.X_OK)


def test_a_checkout_without_build_says_what_to_do(tmp_path: Path) -> None:
    from harp_client.errors import HarpError

    with pytest.raises(HarpError, match="not built yet") as error:
        find({"CARGO_TARGET_DIR": str(tmp_path)})
    assert error.value.next_step.startswith("make -C ")
