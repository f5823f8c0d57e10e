"""Asks a libcuda which devices it has, in as few calls as it takes; prints JSON.

    python -m harp_client.probe [LIBCUDA]      default: the libcuda.so.1 of this process

An ordinary CUDA program: `harp doctor` runs it under `harp-run`, an agent with its own libcuda.
"""

import ctypes
import json
import sys
from uuid import UUID

NAME_MAX = 256
UUID_SIZE = 16
COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76


class CudaError(Exception):
    """A driver call that did not return CUDA_SUCCESS."""


def devices(cuda: ctypes.CDLL) -> dict[str, object]:
    """The driver's version and its devices."""

    def call(name: str, *arguments: object) -> None:
        status = getattr(cuda, name)(*arguments)
        if status != 0:
            raise CudaError(f"{name} returned {status}")

    call("cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    call("cuDriverGetVersion", ctypes.byref(version))
    call("cuDeviceGetCount", ctypes.byref(count))
    found = []
    for index in range(count.value):
        device, memory = ctypes.c_int(), ctypes.c_size_t()
        name = ctypes.create_string_buffer(NAME_MAX)
        call("cuDeviceGet", ctypes.byref(device), index)
        call("cuDeviceGetName", name, NAME_MAX, device)
        call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        uuid = (ctypes.c_ubyte * UUID_SIZE)()
        bus = ctypes.create_string_buffer(NAME_MAX)
        call("cuDeviceGetUuid_v2", uuid, device)
        call("cuDeviceGetPCIBusId", bus, NAME_MAX, device)
        capability = []
        for attribute in (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR):
            value = ctypes.c_int()
            call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
            capability.append(str(value.value))
        found.append(
            {
                "name": name.value.decode(errors="replace"),
                "memory": memory.value,
                "compute_capability": ".".join(capability),
                "uuid": f"GPU-{UUID(bytes=bytes(uuid))}",
                "pci_bus_id": bus.value.decode(errors="replace"),
            }
        )
    return {"driver_version": version.value, "devices": found}


def main() -> int:
    try:
        library = sys.argv[1] if len(sys.argv) > 1 else "libcuda.so.1"
        print(json.dumps(devices(ctypes.CDLL(library))))
    except (OSError, CudaError) as error:
        print(f"probe: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
