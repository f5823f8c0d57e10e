"""What a server tells Prometheus: the names of all its metrics.

    harp_server_sessions                    programs that are served now
    harp_server_sessions_started_total, harp_server_connections_refused_total
    harp_server_sessions_ended_total{how}   ended, lost or failed
    harp_server_session_seconds_total       of the sessions that have ended, as are the next four
    harp_server_calls_total, harp_server_waits_total
    harp_server_received_bytes_total, harp_server_sent_bytes_total
    harp_server_leases{state}               waiting, admitted or ending
    harp_server_scheduler_silence_seconds   since the scheduler was heard last

And of its devices, with the names, units and labels of NVIDIA's DCGM exporter:

    DCGM_FI_DEV_FB_USED, DCGM_FI_DEV_FB_FREE (MiB)
    DCGM_FI_DEV_GPU_UTIL, DCGM_FI_DEV_MEM_COPY_UTIL (%), DCGM_FI_DEV_GPU_TEMP (°C),
    DCGM_FI_DEV_POWER_USAGE (W), DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION (mJ),
    DCGM_FI_DEV_SM_CLOCK, DCGM_FI_DEV_MEM_CLOCK (MHz),
    DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS, DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS,
    DCGM_FI_DEV_ROW_REMAP_FAILURE, DCGM_FI_DEV_XID_ERRORS (the last one)

Used memory is what NVML says of a real device, where nvidia-ml-py is installed; else what leases
hold of it, where there is a scheduler. What is not known is not told.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from harp_api.control.v1 import agent_pb2 as control
from harp_server.admission import ADMITTED, ENDING, WAITING, Admission
from harp_server.nvml import Nvml
from harp_server.session import Totals

MIB = 1 << 20
STATES = {WAITING: "waiting", ADMITTED: "admitted", ENDING: "ending"}
TOTALS = {
    "calls": ("harp_server_calls", "Driver calls that were sent."),
    "waits": ("harp_server_waits", "Calls whose reply a program waited for."),
    "bytes_in": ("harp_server_received_bytes", "Bytes from programs."),
    "bytes_out": ("harp_server_sent_bytes", "Bytes to programs."),
}
ASK_SECONDS = 1.0
"""How long one who asks for metrics waits for another that asks the driver. A driver may not come
back: then one waits for it, and the others do without."""

DEVICE_FIELDS = {
    "DCGM_FI_DEV_FB_USED": "Used device memory (MiB).",
    "DCGM_FI_DEV_FB_FREE": "Free device memory (MiB).",
    "DCGM_FI_DEV_GPU_UTIL": "Time in which a kernel ran (%).",
    "DCGM_FI_DEV_MEM_COPY_UTIL": "Time in which memory was read or written (%).",
    "DCGM_FI_DEV_GPU_TEMP": "Temperature (C).",
    "DCGM_FI_DEV_POWER_USAGE": "Power (W).",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "Energy since the driver was loaded (mJ).",
    "DCGM_FI_DEV_SM_CLOCK": "Clock of the multiprocessors (MHz).",
    "DCGM_FI_DEV_MEM_CLOCK": "Clock of the memory (MHz).",
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": "Rows remapped for correctable errors.",
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": "Rows remapped for uncorrectable errors.",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": "Whether remapping a row has failed.",
    "DCGM_FI_DEV_XID_ERRORS": "The last Xid since the server began; 0: none.",
}
LABELS = [
    *("gpu", "UUID", "pci_bus_id", "device", "modelName", "hostname"),
    "DCGM_FI_DRIVER_VERSION",
]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is counted, taken on the agent's event loop."""

    sessions: int
    totals: Totals
    leases: Mapping[str, int]
    """Leases that the server holds, by state."""

    leased: Mapping[int, int] | None
    """Bytes that leases hold, by device; None without a scheduler."""

    silence: float | None
    """Seconds since the scheduler was heard; None where it was not."""


def copied(totals: Totals) -> Totals:
    """Totals that stay as they are now."""
    return Totals(
        totals.started,
        totals.refused,
        Counter(totals.ended),
        Counter(totals.counted),
        totals.seconds,
    )


def held(admission: Admission) -> tuple[dict[str, int], dict[int, int]]:
    """Leases by state, and the bytes of each device that those which began hold."""
    states = dict.fromkeys(STATES.values(), 0)
    memory = dict.fromkeys(admission.memory, 0)
    for hold in admission.holds.values():
        states[STATES[hold.state]] += 1
        if hold.state != WAITING:
            for part in hold.order.parts:
                memory[part.ordinal] = memory.get(part.ordinal, 0) + part.memory
    return states, memory


class ServerCollector(Collector):
    """Reads the agent at each scrape."""

    def __init__(
        self,
        read: Callable[[], Snapshot],
        devices: Sequence[control.Device],
        nvml: Nvml | None = None,
        xids: Mapping[int, int] | None = None,
    ) -> None:
        """`nvml`: for real devices; `xids`: the last of each by ordinal, None: nobody looks."""
        self._read = read
        self._devices = devices
        self._nvml, self._xids = nvml, xids
        self._hostname = socket.gethostname()
        self._asking = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing is read to register this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of the server."""
        seen = self._read()
        yield GaugeMetricFamily(
            "harp_server_sessions", "Programs that are served now.", value=seen.sessions
        )
        yield from _totals(seen.totals)
        if seen.leased is not None:
            leases = GaugeMetricFamily("harp_server_leases", "Leases held.", labels=["state"])
            for state, number in seen.leases.items():
                leases.add_metric([state], number)
            yield leases
        if seen.silence is not None:
            yield GaugeMetricFamily(
                "harp_server_scheduler_silence_seconds",
                "Since the scheduler was heard last.",
                value=seen.silence,
            )
        if self._nvml is None:
            yield from self._of_devices(seen.leased, "")
        elif self._asking.acquire(timeout=ASK_SECONDS):
            try:
                yield from list(self._of_devices(seen.leased, self._nvml.driver()))
            finally:
                self._asking.release()

    def _of_devices(self, leased: Mapping[int, int] | None, driver: str) -> Iterator[Metric]:
        families = {
            name: GaugeMetricFamily(name, text, labels=LABELS)
            for name, text in DEVICE_FIELDS.items()
        }
        for device in self._devices:
            labels = [
                str(device.ordinal),
                device.labels["uuid"],
                device.labels["pci-bus-id"],
                f"nvidia{device.ordinal}",
                device.model,
                self._hostname,
                driver,
            ]
            for name, value in self._figures(device, leased).items():
                families[name].add_metric(labels, value)
        yield from (family for family in families.values() if family.samples)

    def _figures(
        self, device: control.Device, leased: Mapping[int, int] | None
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        if self._nvml is not None:
            found = nvml_figures(self._nvml, device.labels["uuid"])
            if self._xids is not None:
                found["DCGM_FI_DEV_XID_ERRORS"] = self._xids.get(device.ordinal, 0)
        if leased is not None and "DCGM_FI_DEV_FB_USED" not in found:
            used = leased.get(device.ordinal, 0)
            found["DCGM_FI_DEV_FB_USED"] = used / MIB
            found["DCGM_FI_DEV_FB_FREE"] = max(0, device.memory - used) / MIB
        return found


def _totals(totals: Totals) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "harp_server_sessions_started", "Programs that were let in.", value=totals.started
    )
    yield CounterMetricFamily(
        "harp_server_connections_refused",
        "Connections that nobody was let in from.",
        value=totals.refused,
    )
    ended = CounterMetricFamily("harp_server_sessions_ended", "By how.", labels=["how"])
    for how in ("ended", "lost", "failed"):
        ended.add_metric([how], totals.ended[how])
    yield ended
    yield CounterMetricFamily(
        "harp_server_session_seconds", "Of the sessions that have ended.", value=totals.seconds
    )
    for counter, (name, text) in TOTALS.items():
        yield CounterMetricFamily(name, text, value=totals.counted[counter])


def nvml_figures(nvml: Nvml, uuid: str) -> dict[str, float]:
    """What NVML says of a device, in DCGM's units; what this device does not have is left out."""
    found: dict[str, float] = {}
    device = nvml.asked("nvmlDeviceGetHandleByUUID", uuid)
    if device is None:
        return found
    if (memory := nvml.asked("nvmlDeviceGetMemoryInfo", device)) is not None:
        found["DCGM_FI_DEV_FB_USED"] = memory.used / MIB
        found["DCGM_FI_DEV_FB_FREE"] = memory.free / MIB
    if (rates := nvml.asked("nvmlDeviceGetUtilizationRates", device)) is not None:
        found["DCGM_FI_DEV_GPU_UTIL"] = rates.gpu
        found["DCGM_FI_DEV_MEM_COPY_UTIL"] = rates.memory
    if (rows := nvml.asked("nvmlDeviceGetRemappedRows", device)) is not None:
        correctable, uncorrectable, _, failed = rows
        found["DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS"] = correctable
        found["DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"] = uncorrectable
        found["DCGM_FI_DEV_ROW_REMAP_FAILURE"] = failed
    api = nvml.api
    for name, unit, function, *of in (
        ("DCGM_FI_DEV_GPU_TEMP", 1, "nvmlDeviceGetTemperature", api.NVML_TEMPERATURE_GPU),
        ("DCGM_FI_DEV_POWER_USAGE", 1000, "nvmlDeviceGetPowerUsage"),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1, "nvmlDeviceGetTotalEnergyConsumption"),
        ("DCGM_FI_DEV_SM_CLOCK", 1, "nvmlDeviceGetClockInfo", api.NVML_CLOCK_SM),
        ("DCGM_FI_DEV_MEM_CLOCK", 1, "nvmlDeviceGetClockInfo", api.NVML_CLOCK_MEM),
    ):
        if (figure := nvml.asked(function, device, *of)) is not None:
            found[name] = figure / unit
    return found
