"""Extract the machine-readable facts of CUDA releases from the headers of their runtime wheels.

Run by hand, once per CUDA release, on a machine with ``pip`` and the ``libclang`` wheel::

    python -m harp_spec.extract --wheels DIR            # writes proto/abi
    python -m harp_spec.extract --wheels DIR --compare  # only reports what would change

``DIR`` holds the wheels (``pip download --no-deps -d DIR 'nvidia-cuda-runtime==13.*'`` and so on,
see ``RELEASES``). Only names, types, numbers and layouts are taken, never text. Nothing else in the
project needs the headers: every other module starts from the committed JSON.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from harp_spec import facts

#: What ``read_headers`` finds, in the shape of ``proto/abi/cuda-*.json``; libclang has no types.
Facts = dict[str, Any]
Cursor = Any
ClangType = Any

#: Wheel file name prefix of each release whose facts are committed, oldest first.
RELEASES = {
    "11.8": "nvidia_cuda_runtime_cu11-11.8.",
    "12.9": "nvidia_cuda_runtime_cu12-12.9.",
    "13.5": "nvidia_cuda_runtime-13.5.",
}

#: The header that gives old and per-thread declarations beside the default ones defines this.
ALL_DECLARATIONS = "-D__CUDA_API_VERSION_INTERNAL"

#: Stand-ins for the few system headers that cuda.h wants, so that no compiler is needed.
SYSTEM_HEADERS = {
    "stdlib.h": "typedef unsigned long size_t;",
    "stddef.h": "typedef unsigned long size_t;",
    "stdint.h": "typedef signed char int8_t; typedef unsigned char uint8_t; typedef short int16_t;"
    "typedef unsigned short uint16_t; typedef int int32_t; typedef unsigned int uint32_t;"
    "typedef long int64_t; typedef unsigned long uint64_t;",
}

#: cudaProfiler.h ships in no runtime wheel; its three functions are ABI that programs look up.
PROFILER = """
typedef enum CUoutput_mode_enum { CU_OUT_KEY_VALUE_PAIR = 0, CU_OUT_CSV = 1 } CUoutput_mode;
CUresult cuProfilerInitialize(const char *configFile, const char *outputFile,
                              CUoutput_mode outputMode);
CUresult cuProfilerStart(void);
CUresult cuProfilerStop(void);
"""

#: Interop headers whose functions are exported by name only: they need a display on this machine.
INTEROP_HEADERS = ("cudaGL.h", "cudaEGL.h", "cudaVDPAU.h")
WINDOWS_ONLY = {"cuWGLGetDevice"}

#: First release of functions that cudaTypedefs.h leaves out (from the first header declaring them).
INTRODUCED_WITHOUT_TYPEDEF = {
    12010: ["cuCoredump{Get,Set}Attribute", "cuCoredump{Get,Set}AttributeGlobal"],
    12040: [
        "cuDevice{Register,Unregister}AsyncNotification",
        "cuGreenCtx{Create,Destroy,RecordEvent,WaitEvent,GetDevResource}",
        "cuCtxFromGreenCtx",
        "cu{Ctx,Device}GetDevResource",
        "cuDevSmResourceSplitByCount",
        "cuDevResourceGenerateDesc",
        "cuStreamGetGreenCtx",
    ],
    12050: ["cuCtx{RecordEvent,WaitEvent}"],
    12090: ["cuGreenCtxGetId"],
    13010: ["cuStreamGetDevResource", "cuStreamGetDevResource_ptsz", "cuDevSmResourceSplit"],
}

TYPEDEF_LINE = re.compile(r"PFN_(cu\w+?)_v(\d+)(_pt[ds][sz])?\)")
EXPORT_NAME = re.compile(r"(cu\w+?)(?:_v(\d+))?(_pt[ds][sz])?")
INTEROP_NAME = re.compile(r"CUresult\s+CUDAAPI\s+(cu\w+)\s*\(")
INTEGER_MACRO = re.compile(r"\(*(?:\(\w+\s*\**\))?\s*(-?(?:0x[0-9a-fA-F]+|\d+))[uUlL]*\)*")

#: The version cuGetProcAddress gives to a variant that is older than every typedef.
OLDEST_VERSION = 2000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="harp_spec.extract", description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True, help="folder with the runtime wheels")
    parser.add_argument("--compare", action="store_true", help="report differences, write nothing")
    options = parser.parse_args(arguments)

    outputs: dict[Path, str] = {}
    typedefs: set[tuple[str, int, str]] = set()
    exports: set[str] = set()
    for release, prefix in RELEASES.items():
        with tempfile.TemporaryDirectory() as folder:
            headers = unpack_headers(find_wheel(options.wheels, prefix), Path(folder))
            release_facts = read_headers(headers)
            typedefs |= read_typedefs(headers)
        exports |= set(release_facts["functions"])
        outputs[facts.release_path(release)] = facts.dump(release_facts)
    outputs[facts.PROC_ADDRESS_PATH] = facts.dump_rows(proc_address_rows(typedefs, exports))

    stale = [
        path for path, text in outputs.items() if not path.exists() or path.read_text() != text
    ]
    for path in stale:
        print(f"{'differs' if options.compare else 'written'}: {path.name}")
        if not options.compare:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(outputs[path])
    return int(options.compare and bool(stale))


def find_wheel(folder: Path, prefix: str) -> Path:
    wheels = sorted(folder.glob(prefix + "*.whl"))
    if not wheels:
        sys.exit(f"no wheel {prefix}*.whl in {folder}")
    return wheels[-1]


def unpack_headers(wheel: Path, folder: Path) -> Path:
    """Unpack the wheel's headers and return the folder that holds cuda.h."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".h")])
    return next(folder.rglob("cuda.h")).parent


def read_headers(include: Path) -> Facts:
    """Parse cuda.h and return the facts of one release, in the shape of ``proto/abi/*.json``."""
    # Untyped, and installed only where this tool is run.
    cindex = import_module("clang.cindex")

    options = cindex.TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD
    source = '#include "cuda.h"\n' + PROFILER
    unit = cindex.Index.create().parse(
        "all.c",
        args=["-nostdinc", "-Isystem", f"-I{include}", ALL_DECLARATIONS],
        unsaved_files=[("all.c", source)]
        + [(f"system/{name}", text) for name, text in SYSTEM_HEADERS.items()],
        options=options,
    )
    problems = [d.spelling for d in unit.diagnostics if d.severity >= cindex.Diagnostic.Error]
    if problems:
        sys.exit("cuda.h does not parse: " + "; ".join(problems[:5]))
    reader = HeaderReader(cindex.CursorKind, cindex.TypeKind)
    reader.read(unit.cursor)
    interop: set[str] = set()
    for name in INTEROP_HEADERS:
        if (include / name).exists():
            interop |= set(INTEROP_NAME.findall((include / name).read_text(errors="replace")))
    return reader.facts | {"interop": sorted(interop - WINDOWS_ONLY)}


class HeaderReader:
    """Walks the declarations of a translation unit into the facts dictionary."""

    def __init__(self, cursor_kind: Any, type_kind: Any) -> None:
        self.cursor_kind = cursor_kind
        self.type_kind = type_kind
        self.records = (cursor_kind.STRUCT_DECL, cursor_kind.UNION_DECL)
        self.facts: Facts = {
            key: {}
            for key in (
                "constants",
                "enums",
                "handles",
                "aliases",
                "callbacks",
                "structs",
                "functions",
                "defaults",
            )
        }
        #: Record and enum tags whose first typedef has been seen: tag -> public name.
        self.public_name: dict[str, str] = {}

    def read(self, root: Cursor) -> None:
        cursors = list(root.get_children())
        for cursor in cursors:
            if cursor.kind == self.cursor_kind.TYPEDEF_DECL:
                self.name_tag(cursor)
        for cursor in cursors:
            if cursor.spelling.startswith(("CU", "cu")):
                self.read_declaration(cursor)

    def name_tag(self, cursor: Cursor) -> None:
        target = cursor.underlying_typedef_type.get_canonical().get_declaration()
        if target.kind in (*self.records, self.cursor_kind.ENUM_DECL):
            self.public_name.setdefault(target.get_usr(), cursor.spelling)

    def read_declaration(self, cursor: Cursor) -> None:
        kind = self.cursor_kind
        if cursor.kind == kind.MACRO_DEFINITION:
            self.read_macro(cursor)
        elif cursor.kind == kind.ENUM_DECL:
            self.read_enum(cursor)
        elif cursor.kind in self.records and cursor.is_definition():
            self.read_record(cursor, self.public_name.get(cursor.get_usr(), cursor.spelling))
        elif cursor.kind == kind.TYPEDEF_DECL:
            self.read_typedef(cursor)
        elif cursor.kind == kind.FUNCTION_DECL:
            self.facts["functions"][cursor.spelling] = {
                "returns": self.type_name(cursor.result_type),
                "params": [
                    [p.spelling or f"argument{i}", self.type_name(p.type)]
                    for i, p in enumerate(cursor.get_arguments())
                ],
            }

    def read_macro(self, cursor: Cursor) -> None:
        text = "".join(t.spelling for t in list(cursor.get_tokens())[1:])
        if cursor.spelling.startswith("cu"):
            name = re.sub(r"^__CUDA_API_PT(?:DS|SZ)\((\w+)\)$", r"\1", text)
            if name.startswith(cursor.spelling + "_v"):
                self.facts["defaults"][cursor.spelling] = name
        elif match := INTEGER_MACRO.fullmatch(text):
            self.facts["constants"][cursor.spelling] = int(match[1], 0)

    def read_enum(self, cursor: Cursor) -> None:
        name = self.public_name.get(cursor.get_usr(), cursor.spelling)
        values = {c.spelling: c.enum_value for c in cursor.get_children()}
        self.facts["enums"].setdefault(name, values)

    def read_record(self, cursor: Cursor, name: str) -> None:
        if name in self.facts["structs"]:
            return
        for inner in cursor.get_children():
            if inner.kind in self.records and not inner.is_anonymous():
                self.read_record(inner, self.public_name.get(inner.get_usr(), inner.spelling))
        fields = []
        for field in cursor.type.get_fields():
            if field.is_bitfield():
                sys.exit(f"{name}.{field.spelling}: bit-fields are not modelled")
            declaration = field.type.get_declaration()
            # The header itself gives unnamed members no name: all of them become "anonymous".
            field_name = "anonymous" if "(" in field.spelling else field.spelling or "anonymous"
            if declaration.is_anonymous():
                self.public_name[declaration.get_usr()] = f"{name}_{field_name}"
                self.read_record(declaration, f"{name}_{field_name}")
            fields.append([field_name, self.type_name(field.type), field.get_field_offsetof() // 8])
        if len({field_name for field_name, _, _ in fields}) != len(fields):
            sys.exit(f"{name}: two members share a name")
        self.facts["structs"][name] = {
            "kind": "union" if cursor.kind == self.cursor_kind.UNION_DECL else "struct",
            "size": cursor.type.get_size(),
            "align": cursor.type.get_align(),
            "fields": fields,
        }

    def read_typedef(self, cursor: Cursor) -> None:
        name, target = cursor.spelling, cursor.underlying_typedef_type
        canonical = target.get_canonical()
        pointee = canonical.get_pointee()
        if pointee.kind in (self.type_kind.FUNCTIONPROTO, self.type_kind.FUNCTIONNOPROTO):
            self.facts["callbacks"][name] = {
                "returns": self.type_name(pointee.get_result()),
                "params": [
                    self.type_name(child.type)
                    for child in cursor.get_children()
                    if child.kind == self.cursor_kind.PARM_DECL
                ],
            }
        elif canonical.kind == self.type_kind.POINTER and self.is_opaque(pointee):
            spelled = self.type_name(target)
            tag = pointee.get_declaration().spelling
            if spelled.endswith("*"):
                self.facts["handles"][name] = tag
            else:
                self.facts["aliases"][name] = spelled
        else:
            spelled = self.type_name(target)
            if spelled != name:
                self.facts["aliases"][name] = spelled

    @staticmethod
    def is_opaque(pointee: ClangType) -> bool:
        return bool(pointee.get_declaration().spelling) and bool(pointee.get_size() < 0)

    def type_name(self, type_: ClangType) -> str:
        """The type as written, with tags replaced by their public typedef."""
        if type_.kind == self.type_kind.POINTER:
            pointee = type_.get_pointee()
            const = " const" if type_.is_const_qualified() else ""
            return f"{self.type_name(pointee)} *{const}".replace("* *", "**")
        if type_.kind in (self.type_kind.CONSTANTARRAY, self.type_kind.INCOMPLETEARRAY):
            count = type_.element_count if type_.kind == self.type_kind.CONSTANTARRAY else ""
            return f"{self.type_name(type_.element_type)}[{count}]"
        spelled: str = type_.spelling
        tag = type_.get_declaration()
        if re.match(r"(const )?(struct|union|enum) ", spelled) or tag.is_anonymous():
            const = "const " if type_.is_const_qualified() else ""
            return const + self.public_name.get(tag.get_usr(), str(tag.spelling))
        return spelled


def read_typedefs(include: Path) -> set[tuple[str, int, str]]:
    """(base name, version, per-thread suffix) of every function type in cudaTypedefs.h."""
    found = set()
    for name in ("cudaTypedefs.h", "cudaProfilerTypedefs.h"):
        if (include / name).exists():
            for base, version, twin in TYPEDEF_LINE.findall((include / name).read_text()):
                found.add((base, int(version), twin))
    return found


def expand(pattern: str) -> Iterable[str]:
    match = re.search(r"\{(.*?)\}", pattern)
    if not match:
        return [pattern]
    return [pattern.replace(match[0], choice) for choice in match[1].split(",")]


def parts_of(export: str) -> tuple[str, int, str]:
    """Base name, variant number and per-thread suffix: cuMemcpy_v2_ptds is cuMemcpy, 2, _ptds."""
    match = EXPORT_NAME.fullmatch(export)
    if match is None:
        sys.exit(f"{export} is not named as an export is")
    return match[1], int(match[2] or 1), match[3] or ""


def proc_address_rows(
    typedefs: set[tuple[str, int, str]], exports: set[str]
) -> list[tuple[str, int, str, str]]:
    """Align typedef versions with ``_vN`` exports, newest with newest.

    A base name with more exports than typedefs keeps its oldest export at ``OLDEST_VERSION``:
    NVIDIA added typedefs only from CUDA 11.3 on, but the driver still answers the first variant.
    """
    symbols: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for export in exports:
        base, number, twin = parts_of(export)
        symbols[base, twin].append((number, export))
    versions: dict[tuple[str, str], list[int]] = defaultdict(list)
    for base, version, twin in typedefs:
        versions[base, twin].append(version)
    for version, patterns in INTRODUCED_WITHOUT_TYPEDEF.items():
        for name in (name for pattern in patterns for name in expand(pattern)):
            base, _, twin = parts_of(name)
            if not versions[base, twin]:
                versions[base, twin].append(version)

    rows = []
    for (base, twin), found in symbols.items():
        newest_first = sorted(found, reverse=True)
        known = sorted(versions[base, twin], reverse=True)
        known += [OLDEST_VERSION] * (len(newest_first) - len(known))
        rows += [(base, v, twin, s) for (_, s), v in zip(newest_first, known, strict=False)]
    return sorted(rows)


if __name__ == "__main__":
    sys.exit(main())
