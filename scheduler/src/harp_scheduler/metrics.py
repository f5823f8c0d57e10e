"""What a scheduler tells Prometheus: the names of all its metrics.

    harp_leading                        1 where this scheduler leads; then it has all the others
    harp_term, harp_revision
    harp_servers{state}                 ready, cordoned or out of reach
    harp_server_silence_seconds{server}
    harp_devices{kind,model,state}      ready, cordoned, faulty, gone or out of reach
    harp_device_memory_bytes{kind,model}, harp_device_memory_leased_bytes{kind,model}
    harp_device_compute{kind,model}, harp_device_compute_leased{kind,model}
    harp_leases{tenant,state}
    harp_queue_length, harp_queue_oldest_wait_seconds
    harp_tenant_devices{tenant}         devices, or parts of one, that its leases hold
    harp_grants_total, harp_refusals_total{cause}, harp_leases_expired_total, harp_leases_lost_total
    harp_decision_seconds, harp_commit_seconds
    harp_joins_refused_total{cause}     TooMany: not even looked at

Totals count from when this scheduler began to lead, the last three from when it was started.
Compute is in devices: 0.5 is half of one.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, Metric
from prometheus_client import Counter as Counting
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from harp_scheduler.core.book import Link, unusable
from harp_scheduler.core.model import Accelerator, Lease, Server
from harp_scheduler.core.placement.model import WHOLE
from harp_scheduler.core.pool import Pool
from harp_scheduler.service.history import Counts, History

DECISION_BUCKETS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
COMMIT_BUCKETS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 5.0)


class Timings:
    """What outlives a term: how long things take, and who was not let in."""

    def __init__(self) -> None:
        self.decision = Histogram(
            "harp_decision_seconds",
            "What the core takes to decide one event.",
            buckets=DECISION_BUCKETS,
            registry=None,
        )
        self.commit = Histogram(
            "harp_commit_seconds",
            "What the database takes to store what was decided together.",
            buckets=COMMIT_BUCKETS,
            registry=None,
        )

        self.joins_refused = Counting(
            "harp_joins_refused",
            "Attempts to join that were refused.",
            ["cause"],
            registry=None,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Has them told with all else that a registry holds."""
        for one in (self.decision, self.commit, self.joins_refused):
            registry.register(one)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is counted, taken in one moment: records are never changed, only replaced."""

    term: int
    revision: int
    servers: list[tuple[Server, Link]]
    devices: list[Accelerator]
    leases: list[Lease]
    oldest_wait: float
    silence: dict[str, float]
    counts: Counts
    refusals: Counter[str]


def snapshot(pool: Pool, history: History, revision: int) -> Snapshot:
    """To be called where the pool is changed; counting may then go on elsewhere."""
    book, now = pool.book, time.monotonic()
    oldest = min((book.waiting_since.get(name, now) for _, _, name in book.waiting), default=now)
    return Snapshot(
        term=book.term,
        revision=revision,
        servers=[(server, book.links[name]) for name, server in book.servers.items()],
        devices=list(book.accelerators.values()),
        leases=list(book.leases.values()),
        oldest_wait=now - oldest,
        silence={name: max(0.0, now - link.heard) for name, link in book.links.items()},
        counts=Counts(**{name: getattr(history.counts, name) for name in Counts.__slots__}),
        refusals=Counter(history.refusals),
    )


class PoolCollector(Collector):
    """Reads the pool at each scrape."""

    def __init__(self, read: Callable[[], Snapshot | None]) -> None:
        """`read`: None where this scheduler does not lead."""
        self._read = read

    def describe(self) -> list[Metric]:
        """Nothing is read to register this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of the pool."""
        seen = self._read()
        yield gauge("harp_leading", "Whether this scheduler leads.", float(seen is not None))
        if seen is None:
            return
        yield gauge("harp_term", "Schedulers that have led the pool.", seen.term)
        yield gauge("harp_revision", "Changes of the pool in this term.", seen.revision)
        yield from _servers(seen)
        yield from _devices(seen)
        yield from _leases(seen)
        yield from _totals(seen)


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def _servers(seen: Snapshot) -> Iterator[Metric]:
    states = Counter({"ready": 0, "cordoned": 0, "out of reach": 0})
    states.update(
        "out of reach" if not link.connected else "cordoned" if server.cordoned else "ready"
        for server, link in seen.servers
    )
    servers = GaugeMetricFamily("harp_servers", "Servers by state.", labels=["state"])
    for state, number in states.items():
        servers.add_metric([state], number)
    yield servers
    silence = GaugeMetricFamily(
        "harp_server_silence_seconds", "Since an agent was last heard.", labels=["server"]
    )
    for name, seconds in seen.silence.items():
        silence.add_metric([name], seconds)
    yield silence


def _devices(seen: Snapshot) -> Iterator[Metric]:
    servers = {server.name: (server, link) for server, link in seen.servers}
    states: Counter[tuple[str, str, str]] = Counter()
    memory: Counter[tuple[str, str]] = Counter()
    compute: Counter[tuple[str, str]] = Counter()
    models = {}
    for device in seen.devices:
        models[device.id] = group = (device.kind, device.model)
        states[(*group, unusable(*servers[device.server], device) or "ready")] += 1
        if device.present:
            memory[group] += device.memory
            compute[group] += WHOLE
    memory_leased: Counter[tuple[str, str]] = Counter()
    compute_leased: Counter[tuple[str, str]] = Counter()
    for lease in seen.leases:
        for part in lease.slices:
            group = models[part.device]
            memory_leased[group] += part.memory
            compute_leased[group] += part.compute
    devices = GaugeMetricFamily(
        "harp_devices", "Devices by state.", labels=["kind", "model", "state"]
    )
    for labels, number in states.items():
        devices.add_metric(labels, number)
    yield devices
    for name, text, values, unit in (
        ("harp_device_memory_bytes", "Memory of the devices.", memory, 1),
        ("harp_device_memory_leased_bytes", "Memory that leases hold.", memory_leased, 1),
        ("harp_device_compute", "Compute of the devices, in devices.", compute, WHOLE),
        ("harp_device_compute_leased", "Compute that leases hold.", compute_leased, WHOLE),
    ):
        family = GaugeMetricFamily(name, text, labels=["kind", "model"])
        for group in memory:
            family.add_metric(group, values[group] / unit)
        yield family


def _leases(seen: Snapshot) -> Iterator[Metric]:
    states: Counter[tuple[str, str]] = Counter()
    held: defaultdict[str, int] = defaultdict(int)
    for lease in seen.leases:
        states[lease.tenant, lease.state.value] += 1
        held[lease.tenant] += len(lease.slices)
    leases = GaugeMetricFamily(
        "harp_leases", "Leases by tenant and state.", labels=["tenant", "state"]
    )
    for labels, number in states.items():
        leases.add_metric(labels, number)
    yield leases
    devices = GaugeMetricFamily(
        "harp_tenant_devices", "Devices, or parts of one, that leases hold.", labels=["tenant"]
    )
    for tenant, number in held.items():
        devices.add_metric([tenant], number)
    yield devices
    waiting = sum(lease.waits for lease in seen.leases)
    yield gauge("harp_queue_length", "Leases that wait.", waiting)
    yield gauge(
        "harp_queue_oldest_wait_seconds",
        "How long the lease that waits longest has waited, in this term.",
        seen.oldest_wait,
    )


def _totals(seen: Snapshot) -> Iterator[Metric]:
    for name, text, number in (
        ("harp_grants", "Grants of slices to leases.", seen.counts.grants),
        ("harp_leases_expired", "Leases that were not renewed, or held long enough.",
         seen.counts.expiries),
        ("harp_leases_lost", "Leases whose server was away for too long.", seen.counts.lost),
    ):  # fmt: skip
        yield CounterMetricFamily(name, text, value=number)
    refusals = CounterMetricFamily(
        "harp_refusals", "Requests that were refused, by cause.", labels=["cause"]
    )
    for cause in sorted({"NotFound", "Conflict", "OverQuota"} | seen.refusals.keys()):
        refusals.add_metric([cause], seen.refusals[cause])
    yield refusals
