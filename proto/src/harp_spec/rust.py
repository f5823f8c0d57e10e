"""How the C types of the facts are written in Rust."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harp_spec import facts

SCALARS = {
    "void": "c_void",
    "char": "c_char",
    "signed char": "i8",
    "unsigned char": "u8",
    "short": "i16",
    "unsigned short": "u16",
    "int": "i32",
    "unsigned int": "u32",
    "unsigned": "u32",
    "long long": "i64",
    "unsigned long long": "u64",
    # LP64: what the header spells "unsigned long" is its size_t.
    "unsigned long": "usize",
    "size_t": "usize",
    "int8_t": "i8",
    "int16_t": "i16",
    "int32_t": "i32",
    "int64_t": "i64",
    "uint8_t": "u8",
    "uint16_t": "u16",
    "uint32_t": "u32",
    "uint64_t": "u64",
    "float": "f32",
    "double": "f64",
}

#: Rust keywords that C parameters and fields may be called by.
KEYWORDS = frozenset(["const", "fn", "in", "match", "mod", "move", "ref", "type", "use", "where"])


def identifier(name: str) -> str:
    """A C name as a Rust identifier."""
    return name + "_" if name in KEYWORDS else name


def type_name(c_type: str) -> str:
    """The Rust spelling of a C type: ``const char **`` is ``*mut *const c_char``."""
    if array := re.fullmatch(r"(.*)\[(\d+)\]", c_type):
        return f"[{type_name(array[1])}; {array[2]}]"
    base, *pointers = c_type.split("*")
    base = base.strip()
    constant = base.startswith("const ")
    written = SCALARS.get(base.removeprefix("const "), base.removeprefix("const "))
    for qualifiers in pointers:
        written = f"*{'const' if constant else 'mut'} {written}"
        constant = "const" in qualifiers
    return written


def parameters(function: facts.Function) -> str:
    """The parameter list of a function: ``dptr: *mut CUdeviceptr, bytesize: usize``."""
    return ", ".join(f"{identifier(name)}: {type_name(kind)}" for name, kind in function.params)


def resolve(c_type: str, aliases: Mapping[str, str]) -> str:
    """The type that a chain of typedefs stands for, pointers left alone."""
    while c_type in aliases:
        c_type = aliases[c_type]
    return c_type
