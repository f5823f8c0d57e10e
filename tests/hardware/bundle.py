"""Puts what a machine with a GPU needs for `run.py` into one folder, built here.

Such a machine often has NVIDIA's driver and Python, and neither Rust nor a CUDA compiler. The
folder holds the stripped native parts, the Python packages, the test programs whose runtime is
linked statically (or that use the driver alone), the client scripts, CuPy's own tests, the
measuring client of `make bench` with its baseline, what these take from the other tests, and the
probe.

    python tests/hardware/bundle.py FOLDER
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "client" / "src")]

from clients.suites import cupy, execute  # noqa: E402
from clients.toolkit import CACHE  # noqa: E402
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
    for package in ("client/src/harp_client", "server/src/harp_server", "proto/src/harp_api"):
        shutil.copytree(
            CHECKOUT / package,
            into / "python" / Path(package).name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for module in ("conformance/outcome.py", "pool/standins.py", "programs/two_servers.py"):
        target = into / "python" / module
        target.parent.mkdir()
        shutil.copy(CHECKOUT / "tests" / module, target)
    for program in build.programs().values():
        for variant in set(VARIANTS).intersection(program.variants):
            target = into / "programs" / program.name / variant
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["strip", "-o", target, build.build(program.name, variant)], check=True)
    clients = into / "python" / "clients"
    shutil.copytree(CHECKOUT / "tests" / "clients", clients, ignore=_only_needed)
    for script in ("run.py", "suites.py"):
        shutil.copy(CHECKOUT / "tests" / "hardware" / script, into)
    probe = CHECKOUT / "tests" / "hardware" / "probe"
    shutil.copytree(probe, into / "probe", ignore=_only_needed)
    _suites(into / ".cache" / "suites")
    _bench(into / "bench")


def _suites(into: Path) -> None:
    """CuPy's own tests and the pytest that runs them, where `clients.suites` finds them made."""
    for folder in (cupy.source(), execute.harness()):
        # The machine's Python is another: what is compiled is its own affair.
        away = shutil.ignore_patterns("__pycache__", "*.so", "cffi*", "*.libs", "test_data")
        shutil.copytree(folder, into / folder.relative_to(CACHE / "suites"), ignore=away)


def _bench(into: Path) -> None:
    """The measuring client and the baseline, built, with what drives them."""
    sys.path.insert(0, str(CHECKOUT / "bench"))
    import driven

    into.mkdir(parents=True)
    for module in ("driven.py", "measure.py", "sockets.py", "hardware.py"):
        shutil.copy(CHECKOUT / "bench" / module, into)
    (into / "out").mkdir()
    for product in driven.build_client():
        shutil.copy(product, into / "out")
    strip = ["strip", "-o", into / "out" / "harp-baseline", driven.build_baseline()]
    subprocess.run(strip, check=True)


def _only_needed(folder: str, names: list[str]) -> set[str]:
    """Leaves out the results of other runs and what Python makes of its modules."""
    return {name for name in names if name in ("__pycache__", "results", "expected")}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    bundle(Path(sys.argv[1]))
