"""Puts what a machine with a GPU needs for `run.py` into one folder, built here.

Such a machine often has NVIDIA's driver and Python, and neither Rust nor a CUDA compiler. The
folder holds the stripped native parts, the Python packages, the test programs whose runtime is
linked statically (or that use the driver alone), the client scripts, what `run.py` takes from the
other tests, and the probe.

    python tests/hardware/bundle.py FOLDER
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "client" / "src")]

from harp_client.native import LAYOUT  # noqa: E402
from programs import build  # noqa: E402

VARIANTS = ("static-12.9", "static-13.0", "dlopen")


def bundle(into: Path) -> None:
    """Fills the folder anew."""
    shutil.rmtree(into, ignore_errors=True)
    for part, product in LAYOUT.items():
        target = into / "native" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        source = CHECKOUT / "target" / "release" / product
        subprocess.run(["strip", "--strip-unneeded", "-o", target, source], check=True)
    for package in ("client/src/harp_client", "server/src/harp_server"):
        shutil.copytree(
            CHECKOUT / package,
            into / "python" / Path(package).name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for module in ("conformance/outcome.py", "pool/standins.py"):
        target = into / "python" / module
        target.parent.mkdir()
        shutil.copy(CHECKOUT / "tests" / module, target)
    for program in build.programs().values():
        for variant in set(VARIANTS).intersection(program.variants):
            target = into / "programs" / program.name / variant
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["strip", "-o", target, build.build(program.name, variant)], check=True)
    shutil.copytree(CHECKOUT / "tests" / "clients", into / "clients", ignore=_only_scripts)
    shutil.copy(CHECKOUT / "tests" / "hardware" / "run.py", into)
    probe = CHECKOUT / "tests" / "hardware" / "probe"
    shutil.copytree(probe, into / "probe", ignore=_only_scripts)


def _only_scripts(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not name.endswith(".py")}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bundle(Path(sys.argv[1]))
