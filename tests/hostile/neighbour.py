"""Adds numbers on the device and checks them, until its standard input ends; prints how often."""

import ctypes
import select
import sys
import time

COUNT = 4096
PTX = b"""
.version 7.0
.target sm_52
.address_size 64
.visible .entry add(.param .u64 to, .param .u32 by) {
    .reg .b64 %a<4>; .reg .b32 %v<6>;
    ld.param.u64 %a1, [to]; ld.param.u32 %v1, [by];
    mov.u32 %v2, %tid.x; mov.u32 %v3, %ctaid.x; mov.u32 %v4, %ntid.x;
    mad.lo.u32 %v2, %v3, %v4, %v2;
    mul.wide.u32 %a2, %v2, 4; add.u64 %a3, %a1, %a2;
    ld.global.u32 %v5, [%a3]; add.u32 %v5, %v5, %v1; st.global.u32 [%a3], %v5;
    ret;
}
"""

cuda = ctypes.CDLL("libcuda.so.1")


def must(code: int) -> None:
    if code != 0:
        sys.exit(f"a call failed with {code}")


context, module, kernel = (ctypes.c_void_p() for _ in range(3))
must(cuda.cuInit(0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
must(cuda.cuModuleLoadData(ctypes.byref(module), PTX))
must(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"add"))
memory = ctypes.c_uint64()
must(cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(4 * COUNT)))
sent = (ctypes.c_uint32 * COUNT)(*range(COUNT))
rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    by = ctypes.c_uint32(rounds)
    arguments = (ctypes.c_void_p * 2)(
        ctypes.cast(ctypes.byref(memory), ctypes.c_void_p),
        ctypes.cast(ctypes.byref(by), ctypes.c_void_p),
    )
    must(cuda.cuMemcpyHtoD_v2(memory, sent, ctypes.c_size_t(4 * COUNT)))
    must(cuda.cuLaunchKernel(kernel, COUNT // 128, 1, 1, 128, 1, 1, 0, None, arguments, None))
    received = (ctypes.c_uint32 * COUNT)()
    must(cuda.cuMemcpyDtoH_v2(received, memory, ctypes.c_size_t(4 * COUNT)))
    if list(received) != [number + rounds for number in range(COUNT)]:
        sys.exit(f"wrong numbers in round {rounds}")
    rounds += 1
    time.sleep(0.02)
must(cuda.cuMemFree_v2(memory))
print("rounds", rounds)
