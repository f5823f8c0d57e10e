"""Placement on a public workload: what it allocates, held against what was published."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from harp_scheduler.core.placement.model import Demand
from harp_scheduler.simulate import (
    FIRST_SEED,
    allocation,
    arrivals,
    main,
    read_machines,
    read_published,
    read_tasks,
)

DATA = Path(os.environ.get("OPENB_DATA", Path(__file__).parents[4] / "shared/data/openb"))

needs_openb = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no openb lists in {DATA}: set OPENB_DATA to their folder"
)


@needs_openb
def test_default_list_is_allocated_as_well_as_published() -> None:
    machines, tasks = read_machines(DATA), read_tasks(DATA, "default")
    found = allocation(machines, tasks, FIRST_SEED, pooled=False)
    assert found > read_published(DATA)["default"].fgd - 1


def test_arrivals_ask_for_more_than_there_is_and_start_with_the_list() -> None:
    tasks = [Demand(compute=500), Demand(count=2), Demand(compute=100)]
    found = list(arrivals(tasks, 10_000, seed=1))
    demanded = [task.count * task.compute for task in found]
    assert sorted(demanded[:3]) == [100, 500, 2000]
    assert sum(demanded) >= 13_000 > sum(demanded[:-1])
    assert found == list(arrivals(tasks, 10_000, seed=1))
    assert found != list(arrivals(tasks, 10_000, seed=2))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A trace of three servers and a few tasks."""
    files = {
        "openb_node_list_gpu_node.csv": "sn,cpu_milli,memory_mib,gpu,model\n"
        "n0,4000,1024,2,T4\nn1,16000,1024,1,P100\nn2,16000,1024,0,T4\n",
        "openb_pod_list_default.csv": "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
        "p0,8000,256,1,1000,T4\np1,1000,256,1,500,\np2,4000,256,0,0,\n",
        "published_allocation.csv": "workload,sc_policy,tune,seed,total_gpus,130\n"
        "openb_pod_list_default,01-Random,1.3,42,3,50\n"
        "openb_pod_list_default,05-BestFit,1.3,42,3,60\n"
        "openb_pod_list_default,06-FGD,1.3,42,3,70\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_pool_takes_cpu_from_another_server(small: Path) -> None:
    ran = CliRunner().invoke(
        main, ["--data", str(small), "--lists", "default", "--seeds", "2", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    (outcome,) = json.loads(ran.stdout)
    assert outcome["published"] == {"fgd": 70, "next_best": 60, "next_best_policy": "BestFit"}
    # The whole T4s have too few cores beside them; only halves fit there.
    assert max(outcome["with_host"]) < min(outcome["pooled"])


def test_the_table_shows_both_beside_what_was_published(small: Path) -> None:
    ran = CliRunner().invoke(main, ["--data", str(small), "--lists", "default", "--seeds", "1"])
    assert ran.exit_code == 0, ran.output
    assert "70.00" in ran.stdout
    assert "BestFit 60.00" in ran.stdout


def test_missing_lists_are_told_with_what_to_do(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["--data", str(tmp_path)])
    assert ran.exit_code == 1
    assert "Next: say where they are with --data" in ran.stderr
