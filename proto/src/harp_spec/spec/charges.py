"""What is charged to a quota of device memory, over all calls that take any.

Of calls that have a reviewed entry the entry says it. The others travel to no pool, but a driver in
the program's own process answers them too.
"""

from harp_spec.spec.all import REGISTRY

DRIVER = "driver"
"""Only the driver knows how much, so that nothing is charged before it is taken."""

UNREVIEWED = {
    "cuMemAllocManaged": "bytesize",
    "cuMemCreate": "size",
    "cuArrayCreate_v2": "elements of pAllocateArray",
    "cuArray3DCreate_v2": "elements of pAllocateArray",
    "cuMipmappedArrayCreate": "elements of pMipmappedArrayDesc, over numMipmapLevels",
}


def charges() -> dict[str, str]:
    """Calls by name, with how many bytes each takes where that is known before it is made."""
    reviewed = {
        call.name: call.charge[1]
        for call in REGISTRY.calls.values()
        if call.charge and call.charge[0] == "memory"
    }
    return {name: size for name, size in (reviewed | UNREVIEWED).items() if size != DRIVER}
