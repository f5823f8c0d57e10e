"""Calls every symbol of the driver in a forked child of a process that has initialised it.

Prints how many there are, then each that did not answer NOT_INITIALIZED, with its code. All
arguments are zero: nothing may look at them.
"""

import ctypes
import os
import re
import subprocess
import sys

NOT_INITIALIZED = 3


def symbols(path: str) -> list[str]:
    table = subprocess.run(
        ["nm", "--dynamic", "--defined-only", path], capture_output=True, text=True, check=True
    )
    return sorted(set(re.findall(r" T (cu[A-Z]\w+)", table.stdout)))


def main() -> int:
    cuda = ctypes.CDLL("libcuda.so.1")
    names = symbols(os.environ["LD_PRELOAD"].split(":")[0])
    context = ctypes.c_void_p()
    assert cuda.cuInit(0) == 0
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert cuda.cuCtxSetCurrent(context) == 0
    print(len(names), flush=True)
    child = os.fork()
    if child == 0:
        zeros = [ctypes.c_void_p(None)] * 12
        for name in names:
            code = getattr(cuda, name)(*zeros)
            if code != NOT_INITIALIZED:
                print(name, code)
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert cuda.cuCtxSynchronize() == 0
    return status


if __name__ == "__main__":
    sys.exit(main())
