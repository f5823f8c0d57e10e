"""Old export names that are the newer function under the same C signature.

The generator checks the signatures against the facts. An implementation under the old name itself
takes precedence.
"""

SAME_ABI = {
    "cuCtxCreate": "cuCtxCreate_v2",
    "cuCtxDestroy": "cuCtxDestroy_v2",
    "cuCtxPopCurrent": "cuCtxPopCurrent_v2",
    "cuCtxPushCurrent": "cuCtxPushCurrent_v2",
    "cuDevicePrimaryCtxRelease": "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxReset": "cuDevicePrimaryCtxReset_v2",
    "cuDevicePrimaryCtxSetFlags": "cuDevicePrimaryCtxSetFlags_v2",
    "cuDeviceGetUuid": "cuDeviceGetUuid_v2",
    "cuEventDestroy": "cuEventDestroy_v2",
    "cuEventElapsedTime": "cuEventElapsedTime_v2",
    "cuGraphInstantiate": "cuGraphInstantiate_v2",
    "cuIpcOpenMemHandle": "cuIpcOpenMemHandle_v2",
    "cuLinkAddData": "cuLinkAddData_v2",
    "cuLinkAddFile": "cuLinkAddFile_v2",
    "cuLinkCreate": "cuLinkCreate_v2",
    "cuMemHostRegister": "cuMemHostRegister_v2",
    "cuStreamBatchMemOp": "cuStreamBatchMemOp_v2",
    "cuStreamDestroy": "cuStreamDestroy_v2",
    "cuStreamWaitValue32": "cuStreamWaitValue32_v2",
    "cuStreamWaitValue64": "cuStreamWaitValue64_v2",
    "cuStreamWriteValue32": "cuStreamWriteValue32_v2",
    "cuStreamWriteValue64": "cuStreamWriteValue64_v2",
}
