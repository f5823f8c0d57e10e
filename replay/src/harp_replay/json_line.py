"""A line of JSON that anybody may have written."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

NESTED_MOST = 128
"""Lists and objects are not deeper: what walks through them is spared Python's own limit."""


def object_of(line: str) -> dict[str, Any]:
    """The object that a line says.

    Raises json.JSONDecodeError for what is not JSON, as is a line that is cut off, and ValueError
    for what is no object, has numbers that JSON has not, or is too deep.
    """
    try:
        found = _decode(line)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if type(found) is not dict:
        raise ValueError("no object")
    if line.count("[") + line.count("{") > NESTED_MOST and _depth(found) > NESTED_MOST:
        raise ValueError("too deep")
    return found


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for each in level for inner in _inside(each)]
    return depth


def _inside(value: object) -> list[object]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in inside if isinstance(each, dict | list)]


def _no_number(text: str) -> NoReturn:
    """Python's decoder takes NaN and Infinity."""
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


# json.loads() would look for the encoding of each line.
_decode = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite).decode
