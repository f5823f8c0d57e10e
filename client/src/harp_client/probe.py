"""Asks a libcuda which devices it has, in as few calls as it takes; prints JSON.

    python -m harp_client.probe [LIBCUDA]      default: the libcuda.so.1 of this process

An ordinary CUDA program: `harp doctor` runs it under `harp-run`, an agent with its own libcuda.
"""

import ctypes
import json
import sys
from typing import Any

NAME_MAX = 256
UUID_SIZE = 16
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76


class CudaError(Exception):
    """A driver call that did not return CUDA_SUCCESS."""


def call(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    """Calls the driver. Raises CudaError."""
    status = getattr(cuda, name)(*arguments)
    if status != 0:
        raise CudaError(f"{name} returned {status}")


def devices(cuda: ctypes.CDLL) -> dict[str, Any]:
    """The driver's version and its devices."""
    call(cuda, "cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    call(cuda, "cuDriverGetVersion", ctypes.byref(version))
    call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    found = []
    for index in range(count.value):
        device, memory = ctypes.c_int(), ctypes.c_size_t()
        name = ctypes.create_string_buffer(NAME_MAX)
        call(cuda, "cuDeviceGet", ctypes.byref(device), index)
        call(cuda, "cuDeviceGetName", name, NAME_MAX, device)
        call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        capability = []
        for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR):
            value = ctypes.c_int()
            call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
            capability.append(str(value.value))
        found.append(
            {
                "name": name.value.decode(errors="replace"),
                "memory": memory.value,
                "compute_capability": ".".join(capability),
            }
        )
    return {"driver_version": version.value, "devices": found}


def names(cuda: ctypes.CDLL, ordinal: int) -> dict[str, str]:
    """What one device is called by, beside its number."""
    from uuid import UUID

    device = ctypes.c_int()
    uuid, bus = (ctypes.c_ubyte * UUID_SIZE)(), ctypes.create_string_buffer(NAME_MAX)
    call(cuda, "cuDeviceGet", ctypes.byref(device), ordinal)
    call(cuda, "cuDeviceGetUuid_v2", uuid, device)
    call(cuda, "cuDeviceGetPCIBusId", bus, NAME_MAX, device)
    return {
        "uuid": f"GPU-{UUID(bytes=bytes(uuid))}",
        "pci_bus_id": bus.value.decode(errors="replace"),
    }


def main() -> int:
    try:
        cuda = ctypes.CDLL(sys.argv[1] if len(sys.argv) > 1 else "libcuda.so.1")
        found = devices(cuda)
        for ordinal, device in enumerate(found["devices"]):
            device |= names(cuda, ordinal)
        print(json.dumps(found))
    except (OSError, CudaError) as error:
        print(f"probe: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
