"""What the agent of a host tells Prometheus: the names of all its metrics.

    harp_host_leases{state}                 leases that are attached to this host
    harp_host_devices                       devices, or parts of one, that its programs can use
    harp_host_programs                      that use them now
    harp_host_certificate_left_seconds      until the host's certificate expires; below 0: it has
    harp_host_renewals_total{outcome}       of the certificate, by this agent: done or failed
    harp_host_scheduler_connected           1 where a scheduler answered the last time, else 0
    harp_host_scheduler_silence_seconds     since one answered

Leases, devices and programs are told while a scheduler answers.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from harp_api.control.v1 import pool_pb2 as api
from harp_client.scheduler import USABLE

OUTCOMES = ("done", "failed")


@dataclass(slots=True)
class Seen:
    """What a host's agent knows. One thread writes it, others may read."""

    expires: datetime.datetime
    renewals: Counter[str] = field(default_factory=Counter)
    things: api.Things | None = None
    """What the scheduler said last; None: it does not answer."""

    heard: float | None = None
    """When it answered last, by `time.monotonic`."""

    @property
    def left(self) -> float:
        """Seconds until the certificate expires."""
        return (self.expires - datetime.datetime.now(datetime.UTC)).total_seconds()


class HostCollector(Collector):
    """Reads what the agent knows at each scrape."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def describe(self) -> list[Metric]:
        """Nothing is read to register this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of the host."""
        seen, things = self._seen, self._seen.things
        yield GaugeMetricFamily(
            "harp_host_certificate_left_seconds",
            "Until the host's certificate expires.",
            value=seen.left,
        )
        renewals = CounterMetricFamily(
            "harp_host_renewals", "Of the host's certificate.", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            renewals.add_metric([outcome], seen.renewals[outcome])
        yield renewals
        yield GaugeMetricFamily(
            "harp_host_scheduler_connected",
            "Whether a scheduler answered the last time.",
            value=float(things is not None),
        )
        if seen.heard is not None:
            yield GaugeMetricFamily(
                "harp_host_scheduler_silence_seconds",
                "Since a scheduler answered.",
                value=time.monotonic() - seen.heard,
            )
        if things is not None:
            yield from _attached(things)


def _attached(things: api.Things) -> Iterator[Metric]:
    leases = GaugeMetricFamily(
        "harp_host_leases", "Leases that are attached to this host.", labels=["state"]
    )
    states = Counter(dict.fromkeys(USABLE, 0))
    states.update(lease.state for lease in things.leases)
    for state, number in states.items():
        leases.add_metric([state], number)
    yield leases
    yield GaugeMetricFamily(
        "harp_host_devices",
        "Devices, or parts of one, that programs of this host can use.",
        value=sum(len(lease.targets) for lease in things.leases if lease.state in USABLE),
    )
    yield GaugeMetricFamily(
        "harp_host_programs",
        "Programs that use them.",
        value=sum(lease.sessions for lease in things.leases),
    )
