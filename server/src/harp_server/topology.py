"""Labels that a server finds by itself: which of its devices are near each other.

driver          version of the driver
nvlink-group    devices that reach each other over NVLink have the same
pci-switch      devices below one PCIe switch have the same
numa-node       of the machine's memory that is nearest
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from uuid import UUID

from harp_server.nvml import Gpu, Nvml, bus_id

PCI_DEVICES = Path("/sys/bus/pci/devices")
DRIVER = Path("/sys/module/nvidia/version")


def topology(nvml: Nvml, gpus: Sequence[Gpu]) -> list[dict[str, str]]:
    """The labels of each device that only NVML knows, beside those that the machine tells."""
    driver = nvml.driver()
    found = [labels_of(gpu.bus) | ({"driver": driver} if driver else {}) for gpu in gpus]
    for gpu, labels, group in zip(gpus, found, nvlink_groups(nvml, gpus), strict=True):
        if group:
            labels["nvlink-group"] = group
        near = [other for other in gpus if other is gpu or _share_switch(nvml, gpu, other)]
        if len(near) > 1:
            labels["pci-switch"] = near[0].bus
    return found


def labels_of(bus: str, devices: Path = PCI_DEVICES, driver: Path = DRIVER) -> dict[str, str]:
    """What the machine tells of the device at a PCI bus id, without NVML."""
    found = {}
    with contextlib.suppress(OSError):
        node = (devices / bus.lower() / "numa_node").read_text().strip()
        if not node.startswith("-"):  # -1: the machine has but one
            found["numa-node"] = node
    with contextlib.suppress(OSError):
        found["driver"] = driver.read_text().strip()
    return found


def nvlink_groups(nvml: Nvml, gpus: Sequence[Gpu]) -> list[str]:
    """The NVLink group of each device, "" for one without NVLink.

    Where a fabric reaches over several machines, its own name of the group; else the UUID of the
    group's first device here.
    """
    ends = [set(_nvlink_ends(nvml, gpu)) for gpu in gpus]
    joined = _joined(
        len(gpus),
        lambda a, b: bool(ends[a] & ends[b]) or gpus[b].bus in ends[a] or gpus[a].bus in ends[b],
    )
    return [
        _fabric(nvml, gpu) or (gpus[first].uuid if ends[index] else "")
        for index, (gpu, first) in enumerate(zip(gpus, joined, strict=True))
    ]


def _nvlink_ends(nvml: Nvml, gpu: Gpu) -> Iterable[str]:
    """Bus ids of what is at the other ends of a device's links: other devices, or switches."""
    for link in range(nvml.api.NVML_NVLINK_MAX_LINKS):
        if nvml.asked("nvmlDeviceGetNvLinkState", gpu.handle, link):
            remote = nvml.asked("nvmlDeviceGetNvLinkRemotePciInfo", gpu.handle, link)
            if remote is not None and (bus := bus_id(remote)):
                yield bus


def _fabric(nvml: Nvml, gpu: Gpu) -> str:
    """`CLUSTER/CLIQUE` of a device in an NVLink fabric of several machines, else ""."""
    api = nvml.api
    info = api.c_nvmlGpuFabricInfoV_t()
    if nvml.asked("nvmlDeviceGetGpuFabricInfoV", gpu.handle, ctypes.byref(info)) is None:
        return ""
    # By its place: some versions of the module have it as text, which ends at the first zero.
    cluster = ctypes.string_at(ctypes.addressof(info) + type(info).clusterUuid.offset, 16)
    # A machine whose fabric ends at its own switches has no cluster: all bytes are zero.
    if info.state != api.NVML_GPU_FABRIC_STATE_COMPLETED or not any(cluster):
        return ""
    return f"{UUID(bytes=cluster)}/{info.cliqueId}"


def _share_switch(nvml: Nvml, one: Gpu, other: Gpu) -> bool:
    """Whether two devices reach each other through PCIe switches alone."""
    level = nvml.asked("nvmlDeviceGetTopologyCommonAncestor", one.handle, other.handle)
    return level is not None and level <= nvml.api.NVML_TOPOLOGY_MULTIPLE


def _joined(count: int, is_near: Callable[[int, int], bool]) -> list[int]:
    """For each of `count` things the first that it is near to, over any number of steps."""
    first = list(range(count))
    for a in range(count):
        for b in range(a):
            if first[a] != first[b] and is_near(a, b):
                low, high = sorted((first[a], first[b]))
                first = [low if one == high else one for one in first]
    return first
