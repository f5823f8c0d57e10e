"""What accelerators a server has, as its agent tells the scheduler."""

import asyncio
import json
import sys
from collections.abc import Sequence

from harp_api.control.v1 import agent_pb2 as control
from harp_client.errors import HarpError
from harp_client.quantities import as_labels
from harp_server.agent import Offer
from harp_server.nvml import Nvml, answered
from harp_server.scheduler_link import Inventory
from harp_server.topology import labels_of, topology

PROBE_SECONDS = 60.0
"""A real driver may take long to wake its devices."""

KIND = "gpu"


async def take(
    offer: Offer, address: str, labels: Sequence[str], nvml: Nvml | None = None
) -> Inventory:
    """Asks the driver, in a process of its own: the agent itself never loads a libcuda. What is not
    offered is not told; numbers are the driver's, as leases and workers have them.

    `labels` are NAME=VALUE: an admin's, which count where the machine says otherwise. `nvml`: for
    real devices. Raises HarpError.
    """
    probe = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "harp_client.probe",
        offer.device.libcuda,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**offer.environ, "HARP_LOG": "quiet", "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            out, err = await probe.communicate()
    except TimeoutError:
        raise HarpError(
            f"{offer.device.libcuda} did not list its devices in {PROBE_SECONDS:.0f} s",
            "harp doctor",
        ) from None
    finally:
        if probe.returncode is None:
            probe.kill()  # it may stay in the driver: nobody waits for it
    if probe.returncode != 0:
        said = err.decode(errors="replace").strip().rpartition("\n")[2]
        raise HarpError(f"{offer.device.libcuda} cannot list its devices: {said}", "harp doctor")
    found = json.loads(out)
    version = found["driver_version"]
    devices = [
        control.Device(
            ordinal=ordinal,
            kind=KIND,
            model=device["name"],
            memory=device["memory"],
            labels={
                "uuid": device["uuid"],
                "pci-bus-id": device["pci_bus_id"],
                "compute-capability": device["compute_capability"],
                "cuda": f"{version // 1000}.{version % 1000 // 10}",
            },
        )
        for ordinal, device in enumerate(found["devices"])
        if offer.devices is None or ordinal in offer.devices
    ]
    given = as_labels(labels)
    if offer.device.jail != "soft":
        found = await answered(lambda: located(devices, nvml))
        for device, where in zip(devices, found, strict=True):
            device.labels.update({k: v for k, v in where.items() if k not in given})
    return Inventory(address, devices, given)


def located(devices: Sequence[control.Device], nvml: Nvml | None) -> list[dict[str, str]]:
    """What the machine says of where real devices are: the labels of each."""
    found = {device.ordinal: labels_of(device.labels["pci-bus-id"]) for device in devices}
    if nvml is not None:
        gpus = nvml.find(named(devices))
        for gpu, labels in zip(gpus, topology(nvml, gpus), strict=True):
            found[gpu.ordinal].update(labels)
    return list(found.values())


def named(devices: Sequence[control.Device]) -> list[tuple[int, str, str]]:
    """What NVML finds devices by: numbers, UUIDs and PCI bus ids."""
    return [(d.ordinal, d.labels["uuid"], d.labels["pci-bus-id"]) for d in devices]
