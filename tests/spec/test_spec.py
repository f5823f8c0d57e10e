"""The spec as a whole: what real clients call is there, and nothing is written twice."""

import json

from harp_spec import facts, sources
from harp_spec.model import Sync
from harp_spec.outputs import forward, trace_schema
from harp_spec.spec.aliases import SAME_ABI
from harp_spec.spec.all import AREAS, REGISTRY

#: Calls that unmodified CUDA runtimes, CuPy, cuBLAS, cuFFT and numba-cuda were seen to make.
OBSERVED = """
cuCtxGetApiVersion cuCtxGetCurrent cuCtxGetDevice cuCtxGetDevice_v2 cuCtxGetLimit
cuCtxPopCurrent_v2 cuCtxPushCurrent_v2 cuCtxSetCurrent cuCtxSynchronize cuCtxSynchronize_v2
cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount cuDeviceGetName cuDevicePrimaryCtxGetState
cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxReset_v2 cuDevicePrimaryCtxRetain
cuDeviceTotalMem_v2 cuDriverGetVersion cuEventCreate cuEventDestroy_v2 cuEventElapsedTime_v2
cuEventQuery cuEventRecord cuEventSynchronize cuFuncGetAttribute cuFuncSetAttribute
cuFuncGetParamInfo cuGetErrorName cuGetErrorString cuGetExportTable cuGetProcAddress
cuGetProcAddress_v2 cuInit cuKernelGetAttribute cuLaunchCooperativeKernel cuLaunchHostFunc
cuLaunchKernel cuLaunchKernelEx cuLibraryGetGlobal cuLibraryGetKernel cuLibraryGetManaged
cuLibraryGetModule cuLibraryLoadData cuLibraryUnload cuLinkAddData_v2 cuLinkComplete
cuLinkCreate_v2 cuLinkDestroy cuMemAllocAsync cuMemAlloc_v2 cuMemFreeAsync cuMemFreeHost
cuMemFree_v2 cuMemGetInfo_v2 cuMemHostAlloc cuMemHostRegister_v2 cuMemcpyDtoDAsync_v2
cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2 cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemsetD8Async
cuMemsetD8_v2 cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleGetLoadingMode cuModuleLoadData
cuModuleLoadDataEx cuModuleUnload cuOccupancyAvailableDynamicSMemPerBlock
cuOccupancyMaxActiveBlocksPerMultiprocessor cuOccupancyMaxActiveClusters
cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuPointerGetAttribute
cuPointerGetAttributes cuStreamAddCallback cuStreamCreate cuStreamDestroy_v2
cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent
"""


def test_what_clients_call_is_reviewed() -> None:
    assert set(OBSERVED.split()) - set(REGISTRY.calls) == set()


def test_areas_do_not_share_ids() -> None:
    ids = [number for area in AREAS for number in area.ids]
    assert len(ids) == len(set(ids))


def test_what_is_generated_is_not_also_hand_written() -> None:
    in_api = sources.api_functions("interposer")
    assert in_api & forward.names() == set()
    in_worker = sources.worker_calls()
    generated = {call.name for call in REGISTRY.wire_calls() if call.server is None}
    assert in_worker & generated == set()


def test_hand_written_calls_have_an_entry() -> None:
    known = set(REGISTRY.calls) | set(SAME_ABI)
    assert sources.api_functions("interposer") - known == set()
    travelling = {call.name for call in REGISTRY.wire_calls()}
    assert sources.worker_calls() - travelling == set()


def test_waiting_is_for_calls_that_reply() -> None:
    for call in REGISTRY.calls.values():
        if call.waits:
            assert call.sync is Sync.REPLY, call.name
            assert call.server is not None, f"{call.name} would wait on the executor"


def test_an_old_name_is_not_reviewed_beside_its_newer_one() -> None:
    assert set(SAME_ABI) & {call.name for call in REGISTRY.wire_calls()} == set()
    assert set(SAME_ABI.values()) <= set(facts.newest().functions)


def test_the_trace_schema_tells_every_call_apart() -> None:
    schema = json.loads((facts.ROOT / trace_schema.PATH).read_text())
    calls = {call["name"]: call for call in schema["calls"]}
    assert len({call["id"] for call in schema["calls"]}) == len(calls) == len(REGISTRY.wire_calls())
    launch = [item["name"] for item in calls["cuLaunchKernel"]["inputs"]]
    assert launch[:3] == ["function", "grid", "block"]
    memset = calls["cuMemsetD32Async"]
    assert memset["ranges"] == [{"pointer": "dstDevice", "access": "writes", "bytes": "N * 4"}]
    assert calls["cuStreamDestroy_v2"]["destroys"] == ["hStream"]
    assert calls["cuCtxSynchronize"]["waits"] is True
