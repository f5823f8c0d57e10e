"""`make bench`: measures HARP beside its baselines in one interleaved run, and prints a table.

    python bench/run.py [--rounds N] [--quick] [--only SUBJECT]…

What is measured lies in `bench/subjects`, a module for each subject. Rows {name, value, unit,
baseline, ratio, budget, ok} go to `bench/out/latest.json`, the table into `docs/performance.md`.
Absolute numbers belong to the machine; ratios are of one run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path

import report
from driven import CHECKOUT, OUT, build_baseline, build_client
from measure import Samples
from sides import sides
from subjects import SUBJECTS, name_of


def progress(text: str) -> None:
    print(f"[bench] {text}", file=sys.stderr, flush=True)


def machine() -> str:
    """What was measured on, in a line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    today = datetime.date.today().isoformat()
    where = f"Measured on {today} on {cores} cores of {model}, Linux {platform.release()}"
    return f"{where}, at a load average of {load:.1f} before the start."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="fewer samples, one round")
    names = [name_of(subject) for subject in SUBJECTS]
    only = parser.add_argument("--only", action="append", choices=names, metavar="SUBJECT")
    only.help = f"measures these alone, and writes no file: {', '.join(names)}"
    options = parser.parse_args()
    rounds, scale = (1, 4) if options.quick else (options.rounds, 1)
    subjects = [each for each in SUBJECTS if not options.only or name_of(each) in options.only]
    progress("building the measuring client and the baselines")
    client, baseline = build_client(), build_baseline()
    samples, on = Samples(), machine()
    with sides(client, baseline) as compared:
        for subject in subjects:
            if hasattr(subject, "once"):
                progress(name_of(subject))
                subject.once(compared, samples)
        for number in range(1, rounds + 1):
            for subject in subjects:
                if hasattr(subject, "measure"):
                    progress(f"round {number} of {rounds}: {name_of(subject)}")
                    subject.measure(compared, samples, scale)
    found = [row for subject in subjects for row in subject.rows(samples)]
    if not options.only:
        report.save(found, on, OUT / "latest.json", CHECKOUT / "docs" / "performance.md")
        (OUT / "samples.json").write_text(json.dumps(samples.found))
    print(f"{on}\n\n{report.markdown(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
