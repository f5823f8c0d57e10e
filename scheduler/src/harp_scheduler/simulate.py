"""`make simulate`: placement on the openb workload, beside what its paper published.

    python -m harp_scheduler.simulate [--data FOLDER] [--lists default,cpu200] [--seeds N] [--json]

The experiment of Weng et al. (USENIX ATC 2023) on Alibaba's trace of 1,213 servers with 6,212
GPUs: tasks arrive one after the other and none leaves, until 130 % of all GPUs have been asked for.
They are the list in random order and then tasks drawn from it at random, with replacement. What
counts is how much of the GPUs is allocated in the end. It is done twice: with each task's CPU and
memory from the server that has its GPUs, as in the paper, and from any server, as in a pool.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from harp_client.errors import HarpError, tell
from harp_scheduler.core.placement.engine import Placement
from harp_scheduler.core.placement.model import WHOLE, Demand, Machine, Placed
from harp_scheduler.core.placement.workload import typical_of
from harp_scheduler.openb import demand_of, machine_of, without_host

DEMANDED = 1.3
"""Where the experiment ends: GPUs that have been asked for, as a share of all."""

FIRST_SEED = 42

LISTS = ("default", "cpu100", "cpu200", "gpushare40", "gpushare80", "gpuspec20", "multigpu30")


@dataclass(frozen=True, slots=True)
class Published:
    """Allocation at 130 % demand in per cent, mean of ten seeds."""

    fgd: float
    next_best: float
    next_best_policy: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One list: allocations in per cent, one of each seed."""

    name: str
    published: Published
    with_host: tuple[float, ...]
    """CPU and memory from the server that has the GPUs."""

    pooled: tuple[float, ...]
    """CPU and memory from any server."""


def read_machines(folder: Path) -> list[Machine]:
    """The servers. Their GPUs' memory is not in the trace, and nothing asks for it."""
    with (folder / "openb_node_list_gpu_node.csv").open(newline="") as lines:
        return list(map(machine_of, csv.DictReader(lines)))


def read_tasks(folder: Path, name: str) -> list[Demand]:
    """A list of tasks, in its order."""
    with (folder / f"openb_pod_list_{name}.csv").open(newline="") as lines:
        return list(map(demand_of, csv.DictReader(lines)))


def read_published(folder: Path) -> dict[str, Published]:
    """What the paper's policies allocate, by list."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (folder / "published_allocation.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            policy = row["sc_policy"].partition("-")[2]
            found[row["workload"].removeprefix("openb_pod_list_")][policy].append(float(row["130"]))
    published = {}
    for name, policies in found.items():
        means = {policy: sum(values) / len(values) for policy, values in policies.items()}
        fgd = means.pop("FGD")
        best = max(means, key=means.__getitem__)
        published[name] = Published(fgd, means[best], best)
    return published


def arrivals(tasks: list[Demand], capacity: int, seed: int) -> Iterator[Demand]:
    """Tasks until they have asked for DEMANDED times `capacity` per mille of GPUs."""
    draw = random.Random(seed)
    shuffled = draw.sample(tasks, len(tasks))
    demanded = 0
    while demanded < DEMANDED * capacity:
        task = shuffled.pop() if shuffled else draw.choice(tasks)
        demanded += task.count * task.compute
        yield task


def allocation(machines: list[Machine], tasks: list[Demand], seed: int, *, pooled: bool) -> float:
    """Per cent of all GPUs that are allocated in the end."""
    capacity = WHOLE * sum(len(machine.devices) for machine in machines)
    known = [without_host(task) for task in tasks if task.count] if pooled else tasks
    placement = Placement(typical_of(known))
    for machine in machines:
        placement.update(machine)
    allocated = 0
    for task in arrivals(tasks, capacity, seed):
        if take_pooled(placement, task) if pooled else take(placement, task):
            allocated += task.count * task.compute
    return 100 * allocated / capacity


def take(placement: Placement, task: Demand) -> bool:
    found = placement.place(task)
    if isinstance(found, Placed):
        placement.take(found)
        return True
    return False


def take_pooled(placement: Placement, task: Demand) -> bool:
    """Takes both parts of a task, each where it fits best, or none."""
    devices = placement.place(without_host(task)) if task.count else Placed(())
    if not isinstance(devices, Placed):
        return False
    placement.take(devices)
    if take(placement, replace(task, count=0, models=(), compute=WHOLE)):
        return True
    placement.give_back(devices)
    return False


def simulate(folder: Path, names: list[str], seeds: int) -> Iterator[Outcome]:
    """Runs the experiment on each list."""
    machines, published = read_machines(folder), read_published(folder)
    for name in names:
        tasks = read_tasks(folder, name)
        found: dict[bool, list[float]] = {False: [], True: []}
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            for pooled, values in found.items():
                began = time.monotonic()
                values.append(allocation(machines, tasks, seed, pooled=pooled))
                progress(
                    f"{name}, seed {seed}, {'pool' if pooled else 'as in the paper'}: "
                    f"{values[-1]:.2f} % in {time.monotonic() - began:.0f} s"
                )
        yield Outcome(name, published[name], tuple(found[False]), tuple(found[True]))


def progress(text: str) -> None:
    print(f"[simulate] {text}", file=sys.stderr, flush=True)


def show(outcomes: list[Outcome], seeds: int) -> None:
    """The table, for a person."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"GPUs allocated at 130 % demand, per cent of all ({seeds} seeds)\n"
        "published: FGD and the next best; here: CPU beside the GPUs, and pooled",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("list", no_wrap=True)
    for column in ("FGD", "next best", "beside", "min", "max", "pooled", "min", "max"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in outcomes:
        published = each.published
        table.add_row(
            each.name,
            f"{published.fgd:.2f}",
            f"{published.next_best_policy} {published.next_best:.2f}",
            *(f"{value:.2f}" for value in (*spread(each.with_host), *spread(each.pooled))),
        )
    Console().print(table)


def spread(values: tuple[float, ...]) -> tuple[float, float, float]:
    """Mean, least and most."""
    return sum(values) / len(values), min(values), max(values)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("../shared/data/openb"),
    show_default=True,
    help="Folder of the openb lists.",
)
@click.option("--lists", default=",".join(LISTS), show_default=True, help="Which lists.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(data: Path, lists: str, seeds: int, as_json: bool) -> None:
    """Place the openb workload and show the allocation beside the published ones."""
    names = lists.split(",")
    try:
        if unknown := sorted(set(names) - set(LISTS)):
            raise HarpError(f"no such list: {', '.join(unknown)}", f"use {', '.join(LISTS)}", 2)
        if not (data / "published_allocation.csv").is_file():
            raise HarpError(f"no openb lists in {data}", "say where they are with --data")
        outcomes = list(simulate(data, names, seeds))
    except HarpError as error:
        sys.exit(tell("simulate", error))
    if as_json:
        print(json.dumps([asdict(each) for each in outcomes], indent=1))
    else:
        show(outcomes, seeds)


if __name__ == "__main__":
    main()
