"""Values as JSON text with exactly one spelling, and frozen values back from it."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints


def canonical(value: object) -> str:
    """JSON in ASCII, keys sorted, no spaces: equal values have equal text.

    Takes what JSON knows, and records (dataclasses), mappings, tuples, sets, times and enums of
    strings."""
    return json.dumps(value, default=_plain, sort_keys=True, separators=(",", ":"))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no canonical text")


def frozen(kind: Any, text: str) -> Any:
    """The value of a type that `canonical` wrote: a dataclass, a tuple, a frozenset, of such or of
    what JSON knows, or None. A field that was not there when it was written has its default."""
    return _freeze(kind, json.loads(text))


def _freeze(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if value is None:
        return None
    if origin in (Union, types.UnionType):
        (kind,) = (one for one in arguments if one is not types.NoneType)
        return _freeze(kind, value)
    if origin is tuple and arguments[1:] == (...,):
        return tuple(_freeze(arguments[0], part) for part in value)
    if origin is tuple:
        return tuple(map(_freeze, arguments, value))
    if origin is frozenset:
        return frozenset(_freeze(arguments[0], part) for part in value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _freeze(hints[name], part) for name, part in value.items()})
    return value


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
