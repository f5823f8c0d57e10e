"""Builds the CUDA programs of this folder, each in the variants that users build.

A program is a `.cu` file, a folder of `.cu` files (relocatable device code, linked by nvcc), or a
`.cpp` file that uses the driver API alone. A line `// nvcc: ...` in a `.cu` file adds compiler
options. A variant of the first two names how the CUDA runtime is linked and its release, such as
`static-13.0` or `shared-12.9`; of the last, how the driver is found: `dlopen` or `linked`. Results
are kept in `.cache/programs` by the content of their sources.

    python tests/programs/build.py                        # everything
    python tests/programs/build.py vector_add static-13.0 # prints the path of the program
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from clients import toolkit  # noqa: E402

RUNTIME_VARIANTS = tuple(
    f"{linkage}-{release}" for release in toolkit.RUNTIMES for linkage in ("static", "shared")
)
DRIVER_VARIANTS = ("dlopen", "linked")
SYSTEM_LIBRARIES = ("-lpthread", "-ldl", "-lrt")

OLD_SECONDS = 7 * 86_400
"""What was built of other sources, longer ago than this, is removed."""


class BuildError(Exception):
    """A compiler refused a program; the text is what it printed."""


@dataclass(frozen=True)
class Program:
    name: str
    sources: tuple[Path, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        return DRIVER_VARIANTS if self.sources[0].suffix == ".cpp" else RUNTIME_VARIANTS

    @property
    def options(self) -> list[str]:
        """What the program's text asks of nvcc, or the architecture that nvcc takes by default."""
        asked = re.findall(r"^// nvcc: (.*)$", self.sources[-1].read_text(), re.MULTILINE)
        options = " ".join(asked).split()
        return options if any("arch" in option for option in options) else ["-arch=sm_75", *options]

    @property
    def relocatable(self) -> bool:
        return len(self.sources) > 1

    def place(self) -> Path:
        """The folder of this program's results, named by the content they are built from."""
        digest = hashlib.sha256(Path(__file__).read_bytes())
        for path in (
            *self.sources,
            *sorted(self.sources[0].parent.glob("*.h")),
            *sorted(HERE.glob("*.h")),
        ):
            digest.update(path.read_bytes())
        return toolkit.CACHE / "programs" / f"{self.name}-{digest.hexdigest()[:12]}"


def programs() -> dict[str, Program]:
    """Every program of this folder by name."""
    found = {
        path.stem: Program(path.stem, (path,)) for path in [*HERE.glob("*.cu"), *HERE.glob("*.cpp")]
    }
    for folder in {path.parent for path in HERE.glob("*/*.cu")}:
        found[folder.name] = Program(folder.name, tuple(sorted(folder.glob("*.cu"))))
    return dict(sorted(found.items()))


def build(name: str, variant: str) -> Path:
    """Builds one program in one variant unless that was done before; returns the executable."""
    program = programs()[name]
    place = program.place()
    binary = place / variant
    with toolkit.only_one(f"program-{name}"):
        if binary.exists():
            return binary
        for old in place.parent.glob(f"{name}-????????????"):
            # Another checkout may still use what is young.
            if old != place and time.time() - old.stat().st_mtime > OLD_SECONDS:
                shutil.rmtree(old)
        place.mkdir(parents=True, exist_ok=True)
        unfinished = place / f"{variant}.unfinished"
        if variant in DRIVER_VARIANTS:
            _build_driver_program(program, variant, unfinished)
        else:
            _build_runtime_program(program, *variant.split("-"), unfinished)
        unfinished.rename(binary)
    return binary


def _build_runtime_program(program: Program, linkage: str, release: str, out: Path) -> None:
    runtime = toolkit.toolkit(release)
    objects = [_compile(program, source, release) for source in program.sources]
    if program.relocatable:
        linked = out.parent / f"device-link-{_headers(release)}.o"
        if not linked.exists():
            _run(toolkit.toolkit() / "bin/nvcc", *program.options, "-dlink", *objects, "-o", linked)
        objects.append(linked)
    if linkage == "static":
        libraries = [runtime / "lib/libcudart_static.a"]
    else:
        # Relative: other checkouts that share the cache may have made this program.
        found = os.path.relpath((runtime / "lib").resolve(), out.parent.resolve())
        libraries = [runtime / "lib/libcudart.so", f"-Wl,-rpath,$ORIGIN/{found}"]
    _run("g++", *objects, *libraries, *SYSTEM_LIBRARIES, "-o", out)


def _headers(release: str) -> str:
    """The release whose headers a program for this runtime is compiled with."""
    return "12.9" if release == "12.9" else toolkit.COMPILER


def _compile(program: Program, source: Path, release: str) -> Path:
    headers = _headers(release)
    compiled = program.place() / f"{source.stem}-{headers}.o"
    if compiled.exists():
        return compiled
    command = [
        toolkit.toolkit() / "bin/nvcc",
        "-std=c++17",
        "-O2",
        "-cudart",
        "none",
        *program.options,
    ]
    if program.relocatable:
        command.append("-rdc=true")
    if headers == "12.9":
        include = toolkit.toolkit(headers) / "include"
        # CUDA 12 compresses its images with LZ4, 13 with Zstandard.
        command += ["-I", include, "-Xfatbin", "--compress-mode=speed"]
    _run(*command, "-c", source, "-o", compiled)
    return compiled


def _build_driver_program(program: Program, variant: str, out: Path) -> None:
    include = toolkit.toolkit() / "include"
    command = ["g++", "-std=c++17", "-O2", "-Wall", "-I", include, *program.sources, "-o", out]
    if variant == "dlopen":
        _run(*command, *SYSTEM_LIBRARIES)
        return
    # -lcuda wants a library to link with, and a machine without a GPU has none: one with the
    # names that are used will do.
    compiled = out.with_suffix(".o")
    _run(
        "g++",
        "-std=c++17",
        "-O2",
        "-DLINKED",
        "-I",
        include,
        "-c",
        *program.sources,
        "-o",
        compiled,
    )
    names = re.findall(r"\bU (cu[A-Z]\w+)", _run("nm", "--undefined-only", compiled))
    stub = out.with_suffix(".stub.c")
    stub.write_text("".join(f"void {name}(void) {{}}\n" for name in names))
    library = out.parent / "libcuda.so"
    _run("gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", stub, "-o", library)
    _run("g++", compiled, library, *SYSTEM_LIBRARIES, "-o", out)


def _run(*command: object) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def build_everything() -> None:
    """Builds all programs in all variants, as many at once as there are cores, with progress."""
    toolkit.main()
    missing = [
        (program.name, variant)
        for program in programs().values()
        for variant in program.variants
        if not (program.place() / variant).exists()
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        built = pool.map(lambda case: build(*case), missing)
        for done, ((name, variant), _) in enumerate(zip(missing, built, strict=True), 1):
            toolkit.progress(f"built {name} {variant} ({done} of {len(missing)})")


def main() -> int:
    try:
        if len(sys.argv) == 3:
            print(build(sys.argv[1], sys.argv[2]))
        else:
            build_everything()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
