"""Values as JSON text with exactly one spelling, and frozen values back from it."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Mapping
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
    return _maker(kind)(json.loads(text))


def _same(value: Any) -> Any:
    return value


@lru_cache
def _maker(kind: Any) -> Callable[[Any], Any]:
    """What makes a value of a type out of what JSON has for it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (there,) = (_maker(one) for one in arguments if one is not types.NoneType)
        return lambda value: None if value is None else there(value)
    if origin is frozenset or (origin is tuple and arguments[1:] == (...,)):
        part = _maker(arguments[0])
        made: Callable[[Any], Any] = origin
        return made if part is _same else lambda value: made(map(part, value))
    if origin is tuple:
        parts = [_maker(one) for one in arguments]
        if all(part is _same for part in parts):
            return tuple
        return lambda value: tuple(make(one) for make, one in zip(parts, value, strict=True))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        fields = {name: _maker(hint) for name, hint in get_type_hints(kind).items()}
        return lambda value: kind(**{name: fields[name](one) for name, one in value.items()})
    return _same
