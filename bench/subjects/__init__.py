"""What `make bench` measures, a module for each subject.

A subject is a module with these functions, and is named in `SUBJECTS`, in the order of the table:

* `measure(sides, samples, scale)` measures once around, in every round. Sides of one comparison
  follow each other at once. Counts of samples are divided by `scale`.
* `rows(samples)` makes the rows that are reported, each with its budget if it has one.

One that takes long has `once(sides, samples)`, called before the first round, too or instead.
"""

from __future__ import annotations

from types import ModuleType

from . import (
    again,
    calls,
    copies,
    delivery,
    flat,
    local,
    memory,
    predict,
    record,
    replay,
    sessions,
    slow_driver,
    softgpu,
    starts,
    waits,
)

SUBJECTS: tuple[ModuleType, ...] = (
    calls,
    delivery,
    slow_driver,
    copies,
    starts,
    again,
    waits,
    memory,
    local,
    record,
    replay,
    predict,
    flat,
    sessions,
    softgpu,
)


def name_of(subject: ModuleType) -> str:
    """As `bench/run.py --only` takes it."""
    return subject.__name__.rpartition(".")[2]
