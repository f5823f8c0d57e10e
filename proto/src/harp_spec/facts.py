"""The committed facts of the CUDA driver ABI: file formats, loading, and lookups.

``proto/abi/cuda-<release>.json`` holds one release: constants, enums, handles, aliases, callbacks,
struct layouts, functions and the names that the default header redirects to a newer export.
``proto/abi/procaddress.tsv`` holds what ``cuGetProcAddress`` answers, over all releases.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
ABI_FOLDER = ROOT / "proto" / "abi"
PROC_ADDRESS_PATH = ABI_FOLDER / "procaddress.tsv"
REQUESTS_PATH = ABI_FOLDER / "cudart-requests.tsv"


def release_path(release: str) -> Path:
    return ABI_FOLDER / f"cuda-{release}.json"


def releases() -> list[str]:
    """Committed releases, oldest first."""
    names = [path.stem.removeprefix("cuda-") for path in ABI_FOLDER.glob("cuda-*.json")]
    return sorted(names, key=lambda name: tuple(map(int, name.split("."))))


def dump(release_facts: dict[str, Any]) -> str:
    """JSON with one line per fact, so that a release shows as a readable diff."""
    sections = []
    for section, content in sorted(release_facts.items()):
        if isinstance(content, dict):
            lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(content.items())]
            opening, closing = "{", "}"
        else:
            lines = [f"  {json.dumps(v)}" for v in content]
            opening, closing = "[", "]"
        sections.append(f"{json.dumps(section)}: {opening}\n" + ",\n".join(lines) + f"\n{closing}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def dump_rows(rows: list[tuple[str, int, str, str]]) -> str:
    header = "# base name\tminimum version\tper-thread suffix\texport\n"
    return header + "".join("\t".join(map(str, row)) + "\n" for row in rows)


def read_rows(path: Path) -> list[list[str]]:
    """The tab-separated rows of a facts file, comments left out."""
    lines = path.read_text().splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


@dataclass(frozen=True)
class Function:
    name: str
    returns: str
    params: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Field:
    name: str
    type: str
    offset: int


@dataclass(frozen=True)
class Record:
    """A struct or union with the layout that the C header gives it."""

    name: str
    kind: str
    size: int
    align: int
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Release:
    version: str
    constants: dict[str, int]
    enums: dict[str, dict[str, int]]
    handles: dict[str, str]
    aliases: dict[str, str]
    callbacks: dict[str, dict[str, Any]]
    structs: dict[str, Record]
    functions: dict[str, Function]
    defaults: dict[str, str]
    interop: tuple[str, ...]


@cache
def load(release: str) -> Release:
    raw = json.loads(release_path(release).read_text())
    structs = {
        name: Record(name, s["kind"], s["size"], s["align"], tuple(Field(*f) for f in s["fields"]))
        for name, s in raw["structs"].items()
    }
    functions = {
        name: Function(name, f["returns"], tuple((n, t) for n, t in f["params"]))
        for name, f in raw["functions"].items()
    }
    plain = {
        k: raw[k] for k in ("constants", "enums", "handles", "aliases", "callbacks", "defaults")
    }
    return Release(
        release, structs=structs, functions=functions, interop=tuple(raw["interop"]), **plain
    )


def newest() -> Release:
    return load(releases()[-1])


@dataclass(frozen=True)
class ProcAddress:
    """One answer of cuGetProcAddress: ``base`` at ``version`` or newer is ``symbol``."""

    base: str
    version: int
    twin: str
    symbol: str


@cache
def proc_addresses() -> tuple[ProcAddress, ...]:
    rows = read_rows(PROC_ADDRESS_PATH)
    return tuple(
        ProcAddress(base, int(version), twin, symbol) for base, version, twin, symbol in rows
    )
