"""The build steps that pyproject.toml cannot say: cargo's products go into the package.

An editable installation copies nothing: a checkout runs what `make build` (cargo) built.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

ROOT = Path(__file__).parent.absolute()
sys.path.insert(0, str(ROOT / "client" / "src"))

from harp_client.native import LAYOUT  # noqa: E402


class BuildWithNativeParts(build_py):
    """Runs cargo and lays its products out inside harp_client."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self._build_native(Path(self.build_lib) / "harp_client" / "native")

    def _build_native(self, into: Path) -> None:
        cargo = shutil.which("cargo")
        if cargo is None:
            raise SystemExit(
                "harp-pool: building needs Rust (cargo). Next: install it from rustup.rs"
            )
        subprocess.run([cargo, "build", "--release", "--locked"], cwd=ROOT, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
        for part, product in LAYOUT.items():
            destination = into / part
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(target / product, destination)


class PlatformWheel(bdist_wheel):
    """The wheel fits one platform but, as no extension module is in it, any Python 3."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class NativeDistribution(Distribution):
    """Makes pip put the package among the platform's own (platlib)."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=NativeDistribution,
    cmdclass={"build_py": BuildWithNativeParts, "bdist_wheel": PlatformWheel},
)
