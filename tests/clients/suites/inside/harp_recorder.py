"""A pytest plugin: runs chosen tests only and writes what happens to a file, line by line.

It runs inside the client's own Python, beside nothing of HARP. Each line is a JSON object:

    {"collected": [ids], "slow": [ids]}        with --record-collection, which runs nothing
    {"start": id}
    {"end": id, "outcome": ..., "seconds": ..., "error": ..., "told": ...}

An outcome is passed, failed, skipped or xfailed (the suite itself expects a failure). The file is
flushed after each line: if the process dies, the test that has a start and no end is to blame.
"""

import json
import re
import time
from pathlib import Path

import pytest

STICKY = re.compile(
    r"ILLEGAL_ADDRESS|IllegalAddress|MISALIGNED|MisalignedAddress|ILLEGAL_INSTRUCTION"
    r"|IllegalInstruction|ERROR_LAUNCH_FAILED|LaunchFailure|LAUNCH_TIMEOUT|LaunchTimeout"
    r"|ERROR_ASSERT|ErrorAssert|DEVICE_UNAVAILABLE|DevicesUnavailable|DeviceUnavailable"
    r"|HARDWARE_STACK|INVALID_ADDRESS_SPACE|INVALID_PC|UnmappedSystemError"
)
"""An error with one of these spoils the context: the tests after it need a new process."""

EXCEPTION = re.compile(r"[\w.]+(Error|Exception): ")

SPOILED = 86
"""Exit status that asks for a new process for the tests that are left."""


def pytest_addoption(parser):
    group = parser.getgroup("recorder")
    group.addoption("--record-to", type=Path, help="the file to write to")
    group.addoption("--record-tests", type=Path, help="ids of the tests to run, one a line")
    group.addoption("--record-collection", action="store_true", help="collect only")


def pytest_configure(config):
    if config.getoption("--record-to"):
        config.pluginmanager.register(Recorder(config))


def first_and_last(message):
    """An exception's text in one line: how it begins and, where it is longer, the last exception
    that it quotes, or how it ends."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    head = " ".join(lines[:2]) if lines and lines[0].endswith("Error:") else "".join(lines[:1])
    if len(lines) > 2:
        quoted = [line for line in lines[1:] if EXCEPTION.match(line)]
        head = f"{head[:200]} … {(quoted or lines)[-1]}"
    return head[:400]


class Recorder:
    def __init__(self, config):
        self.config = config
        self.file = config.getoption("--record-to").open("a")
        chosen = config.getoption("--record-tests")
        self.chosen = None if chosen is None else set(chosen.read_text().splitlines())
        self.reports = []
        self.began = 0.0

    def write(self, **line):
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        if config.getoption("--record-collection"):
            slow = [item.nodeid for item in items if item.get_closest_marker("slow")]
            self.write(collected=[item.nodeid for item in items], slow=slow)
            items.clear()
        elif self.chosen is not None:
            items[:] = [item for item in items if item.nodeid in self.chosen]

    def pytest_collectreport(self, report):
        if report.failed:
            self.write(uncollected=report.nodeid, error=str(report.longrepr)[-2000:])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.reports = []
        self.began = time.monotonic()
        self.write(start=item.nodeid)
        result = yield
        self.write(end=item.nodeid, seconds=round(time.monotonic() - self.began, 3), **self.told())
        if any(STICKY.search(str(report.longrepr)) for report in self.reports if report.failed):
            self.file.close()
            pytest.exit("the device's context is spoiled", SPOILED)
        return result

    def pytest_runtest_logreport(self, report):
        self.reports.append(report)

    def told(self):
        """What all phases of a test come to."""
        for report in self.reports:
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                message = crash.message if crash else str(report.longrepr)
                output = "\n".join(text for _, text in report.sections)
                return {
                    "outcome": "failed",
                    "error": first_and_last(message),
                    "told": str(report.longrepr)[-6000:] + "\n" + output[-2000:],
                }
        for report in self.reports:
            if report.skipped:
                if hasattr(report, "wasxfail"):
                    return {"outcome": "xfailed", "error": report.wasxfail}
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
                return {"outcome": "skipped", "error": reason.removeprefix("Skipped: ")}
        return {"outcome": "passed"}
