"""PyTorch's stock wheel, whose own kernels are machine code: a soft GPU does all but run them."""

from __future__ import annotations

import pytest

from clients.environment import TORCH, clients_python
from clients.toolkit import HERE
from conformance.columns import SOFT, Columns

BASICS = HERE / "torch_basics.py"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("column", SOFT)
def test_torch(columns: Columns, column: str) -> None:
    """What goes there comes back, kernels fail with CUDA's own words: directly and pooled."""
    outcome = columns.run(column, [clients_python(TORCH), BASICS])
    assert outcome.status == 0, outcome.told()
    assert outcome.stdout == columns.run("direct", [clients_python(TORCH), BASICS]).stdout, (
        outcome.told()
    )
    # Many kernels were refused; why is said, and not said again for each.
    assert "and no PTX; the soft GPU executes PTX" in outcome.stderr, outcome.told()
    assert outcome.stderr.count("and no PTX") <= 5, outcome.told()


@pytest.mark.gpu
@pytest.mark.timeout(900)
@pytest.mark.parametrize("options", [[], ["--amp"], ["--workers", "2", "--prefetch"]])
def test_training(columns: Columns, options: list[str]) -> None:
    """Two networks learn, and learn bit by bit the same through the pool."""
    command = [clients_python(TORCH), HERE / "torch_training.py", *options]
    native = columns.run("native", command)
    assert native.status == 0, native.told()
    pooled = columns.run("native-pool", command)
    assert (pooled.status, pooled.stdout) == (0, native.stdout), pooled.told()
