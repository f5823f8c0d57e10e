"""Local mode of the interposer: the driver's functions under their own types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harp_spec import rust, sources
from harp_spec.outputs.exports import all_functions, all_symbols
from harp_spec.render import Output, rust_file

FOLDER = "interposer/src/generated"


@dataclass(frozen=True)
class Typed:
    """A symbol with its number and the signature that cuda.h gives it."""

    name: str
    number: int
    parameters: str
    types: str
    arguments: str


def outputs() -> Iterator[Output]:
    used = sources.local_driver_functions_used()
    yield rust_file(
        f"{FOLDER}/local_driver.rs",
        "local_driver.rs.j2",
        "proto/abi and interposer/src/local",
        functions=[function for function in typed() if function.name in used],
    )


def typed() -> list[Typed]:
    """Every symbol whose signature is known, in the order of their numbers."""
    functions = all_functions()
    return [
        Typed(
            name,
            number,
            rust.parameters(functions[name]),
            ", ".join(rust.type_name(kind) for _, kind in functions[name].params),
            ", ".join(rust.identifier(parameter) for parameter, _ in functions[name].params),
        )
        for number, name in enumerate(all_symbols())
        if name in functions
    ]
