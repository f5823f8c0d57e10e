"""Write or check every generated file.

    python -m harp_spec.gen write [NAME...]   # writes what changed and names it
    python -m harp_spec.gen check [NAME...]   # exit status 1 and the names of stale files

``NAME`` limits the work to the outputs of that name (``exports``, ``wire``, ...). Generated files
are committed; the tests run ``check``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable

from harp_spec import facts
from harp_spec.outputs import (
    control,
    coverage,
    cuda_abi,
    dispatch,
    exports,
    forward,
    local,
    results,
    trace_schema,
    wire,
)
from harp_spec.render import Output

OUTPUTS: dict[str, Callable[[], Iterable[Output]]] = {
    "cuda-abi": cuda_abi.outputs,
    "wire": wire.outputs,
    "forward": forward.outputs,
    "dispatch": dispatch.outputs,
    "exports": exports.outputs,
    "local": local.outputs,
    "trace-schema": trace_schema.outputs,
    "results": results.outputs,
    "coverage": coverage.outputs,
    "control": control.outputs,
}

#: Folders that hold nothing but generated files: a file there that nothing generates is stale too.
GENERATED_FOLDERS = (
    "crates/cuda-abi/src/generated",
    "crates/wire/src/generated",
    "interposer/src/generated",
    "softgpu/driver/src/generated",
    "server/worker/src/generated",
    "proto/trace",
    "proto/src/harp_api",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="harp_spec.gen", description=__doc__)
    parser.add_argument("action", choices=["write", "check"])
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(OUTPUTS)}")
    options = parser.parse_args(arguments)

    chosen = options.names or list(OUTPUTS)
    if unknown := set(chosen) - set(OUTPUTS):
        parser.error(f"no output is named {', '.join(sorted(unknown))}")
    produced = [output for name in OUTPUTS if name in chosen for output in OUTPUTS[name]()]
    stale = [output for output in produced if is_stale(output)]
    surplus = surplus_files(produced) if not options.names else []
    for output in stale:
        print(f"{'wrote' if options.action == 'write' else 'stale'}: {output.path}")
        if options.action == "write":
            write(output)
    for path in surplus:
        print(f"nothing generates: {path}")
    return int(bool(surplus) or (options.action == "check" and bool(stale)))


def is_stale(output: Output) -> bool:
    path = facts.ROOT / output.path
    return not path.exists() or path.read_text() != output.text


def write(output: Output) -> None:
    path = facts.ROOT / output.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(output.text)


def surplus_files(produced: list[Output]) -> list[str]:
    known = {output.path for output in produced}
    found = (p for folder in GENERATED_FOLDERS for p in (facts.ROOT / folder).rglob("*"))
    names = (
        str(path.relative_to(facts.ROOT))
        for path in found
        if path.is_file() and path.parent.name != "__pycache__"
    )
    return sorted(set(names) - known)


if __name__ == "__main__":
    sys.exit(main())
