"""Values as JSON text with exactly one spelling, and frozen values back from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def canonical(value: object) -> str:
    """JSON in ASCII, keys sorted, no spaces: equal values have equal text.

    Takes what JSON knows, and records (dataclasses), mappings, tuples, times and enums of strings.
    """
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


def frozen(text: str) -> Any:
    """What `canonical` wrote, with tuples in place of lists."""
    return _freeze(json.loads(text))


def _freeze(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_freeze, value))
    if isinstance(value, dict):
        return {key: _freeze(part) for key, part in value.items()}
    return value
