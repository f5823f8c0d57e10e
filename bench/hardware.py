"""Measures HARP on a real GPU beside the same program run natively, and beside raw sockets.

    python tests/hardware/bundle.py FOLDER                      # where the toolchains are
    python FOLDER/bench/hardware.py --out gpu.json [--rounds N] # where the GPU is

The measuring client of `make bench` runs natively on NVIDIA's own libcuda, in local mode on it, and
through a pool on it, round by round, and the raw sockets beside them. Every number is a median of
all rounds; a ratio is the pool's, or local mode's, by its baseline's, which of a call that waits is
the call itself and a raw ping-pong. The results name the GPU and its driver.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "python")]

from driven import OUT, Driven  # noqa: E402
from measure import KIB, MIB, Samples  # noqa: E402
from run import environment, libcuda, machine, plain  # noqa: E402
from sockets import raw_sockets  # noqa: E402

from pool.standins import ASKING_NOTHING, HARP_RUN, Pool, Server  # noqa: E402

COPIES = (("64k", 64 * KIB, 100), ("1m", MIB, 40), ("256m", 256 * MIB, 2))

ROWS = (
    # name, unit, measured, baseline: what is higher the better has "higher" as its last
    ("first_call", "ms", "start pool", "start native", "lower"),
    ("oneway", "ns", "oneway pool", "oneway native", "lower"),
    ("launches", "1/s", "launches pool", "launches native", "higher"),
    ("local_oneway", "ns", "oneway local", "oneway native", "lower"),
    ("local_call", "ns", "current local", "current native", "lower"),
    ("wait", "us", "wait pool", "ping 64 + wait native", "lower"),
    ("synchronize", "us", "synchronize pool", "ping 64 + synchronize native", "lower"),
    *(
        (f"{way}_{label}", "GB/s", f"{way} {label} pool", f"{raw} {label}", "higher")
        for label, _, _ in COPIES
        for way, raw in (("h2d", "send"), ("d2h", "receive"))
    ),
)


def one_round(native: Driven, local: Driven, pool: Driven, raw: Driven, samples: Samples) -> None:
    """Sides of one comparison follow each other at once."""
    for name, side in (("local", local), ("native", native), ("pool", pool)):
        samples.add(f"oneway {name}", side.ask("oneway", 200, 100))
        samples.add(f"launches {name}", side.ask("launches", 100_000))
    for _ in range(4):
        for name, side in (("local", local), ("native", native)):
            samples.add(f"current {name}", side.ask("current", 2000, 50))
    for _ in range(4):
        samples.add("ping 64", raw.ask("ping", 64, 400))
        for name, side in (("native", native), ("pool", pool)):
            samples.add(f"wait {name}", side.ask("wait", 400))
            samples.add(f"synchronize {name}", side.ask("synchronize", 400))
    for label, size, count in COPIES:
        for way, socket in (("h2d", "send"), ("d2h", "receive")):
            samples.add(f"{socket} {label}", raw.ask(socket, size, count))
            for name, side in (("native", native), ("pool", pool)):
                samples.add(f"{way} {label} {name}", side.ask(way, size, count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    client, samples = [OUT / "client", OUT / "kernels.ptx"], Samples()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = environment() | ASKING_NOTHING
        pool = Pool(folder)
        server = Server(pool, ours, folder / "log", "--device", libcuda(), "--max-sessions", "8")
        stack.callback(server.stop)
        remote = [*HARP_RUN, "--server", server.address, "--credentials", pool.user, "--"]
        sides = (([], plain()), (remote, ours))
        for _ in range(options.rounds):
            for name, (before, environ) in zip(("native", "pool"), sides, strict=True):
                fresh = Driven([*before, *client], environ)
                samples.add(f"start {name}", fresh.ask("start"))
                fresh.close()
        native, pooled = (Driven([*before, *client], environ) for before, environ in sides)
        stack.callback(native.close)
        stack.callback(pooled.close)
        raw, _ = stack.enter_context(raw_sockets(OUT / "harp-baseline", pool, folder))
        wrapper = [*HARP_RUN, "--local", "--libcuda", libcuda(), "--"]
        local = Driven([*wrapper, *client], ours)
        stack.callback(local.close)
        for side in (native, local, pooled):
            side.ask("start")
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            one_round(native, local, pooled, raw, samples)
    rows = {}
    for name, unit, measured, baseline, better in ROWS:
        value, base = samples.median(measured), sum(map(samples.median, baseline.split(" + ")))
        rows[name] = {"value": value, "unit": unit, "baseline": baseline, "better": better}
        rows[name] |= {"baseline_value": base, "ratio": value / base}
        ratio = f"{value / base:8.3f} x {baseline} ({better} is better)"
        print(f"{name:14} {value:12.3f} {unit:5} {ratio}")
    medians = {name: samples.median(name) for name in samples.found}
    report = {"machine": machine(), "rounds": options.rounds, "rows": rows, "medians": medians}
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
