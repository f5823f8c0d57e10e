# ruff: noqa: N802, N815 - the names are those of nvml.h
"""As much of NVML's Python module as the server uses, over boards that tests describe.

Names and numbers are those of nvml.h.
"""

from __future__ import annotations

import ctypes
import queue
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class Opaque(ctypes.Structure):
    _fields_ = (("index", ctypes.c_int),)


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


class FabricInfo(ctypes.Structure):
    _fields_ = (
        ("clusterUuid", ctypes.c_uint8 * 16),
        ("cliqueId", ctypes.c_uint32),
        ("state", ctypes.c_uint),
    )


@dataclass
class Board:
    """One device."""

    uuid: str
    bus: str
    links: tuple[str, ...] = ()
    """Bus ids at the other ends."""

    fabric: tuple[bytes, int] | None = None
    ancestors: dict[str, int] = field(default_factory=dict)
    """Topology level by the other device's bus id."""

    rows: tuple[int, int, int, int] | None = (0, 0, 0, 0)
    pages_pending: int = 0
    uncorrected: int | None = 0
    recovery: int | None = 0
    """None: a driver that does not tell it."""

    error: int = 0
    """What every call about it fails with."""

    def __post_init__(self) -> None:
        self.memory = Opaque()


@dataclass
class StandIn:
    """The module."""

    boards: list[Board]
    is_ready: bool = True
    events: queue.Queue[tuple[Board, int, int] | int] = field(default_factory=queue.Queue)
    """Board, kind and data; or what waiting fails with."""

    freed: int = 0

    NVMLError = NVMLError
    NVML_SUCCESS, NVML_ERROR_INVALID_ARGUMENT, NVML_ERROR_NOT_SUPPORTED = 0, 2, 3
    NVML_ERROR_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_TIMEOUT = 6, 9, 10
    NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED = 15, 16
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC = 1, 0
    NVML_NVLINK_MAX_LINKS = 36
    NVML_TOPOLOGY_MULTIPLE = 20
    NVML_GPU_FABRIC_STATE_COMPLETED = 3
    nvmlEventTypeDoubleBitEccError, nvmlEventTypeXidCriticalError = 2, 8
    c_nvmlGpuFabricInfoV_t = FabricInfo

    def _board(self, handle: Any) -> Board:
        board = next(b for b in self.boards if ctypes.addressof(b.memory) == _address(handle))
        if board.error:
            raise NVMLError(board.error)
        return board

    def _told(self, value: Any) -> Any:
        if value is None:
            raise NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        return value

    def _found(self, boards: list[Board]) -> Any:
        if not boards:
            raise NVMLError(self.NVML_ERROR_NOT_FOUND)
        return ctypes.pointer(boards[0].memory)

    def nvmlInit(self) -> None:
        if not self.is_ready:
            raise NVMLError(self.NVML_ERROR_DRIVER_NOT_LOADED)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.105.08"

    def nvmlSystemGetNVMLVersion(self) -> bytes:
        return b"13.580.105.08"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return self._found(self.boards[index : index + 1])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:
        return self._found([board for board in self.boards if board.uuid == uuid])

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> Any:
        return self._found([board for board in self.boards if board.bus == bus.lower()])

    def nvmlDeviceGetName(self, handle: Any) -> str:
        self._board(handle)
        return "NVIDIA H200"

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return self._board(handle).uuid

    def nvmlDeviceGetPciInfo(self, handle: Any) -> SimpleNamespace:
        return SimpleNamespace(busId=_long(self._board(handle).bus))

    def nvmlDeviceGetFieldValues(self, handle: Any, numbers: list[int]) -> list[SimpleNamespace]:
        assert numbers == [self.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION]
        action = self._board(handle).recovery
        status = self.NVML_ERROR_NOT_SUPPORTED if action is None else self.NVML_SUCCESS
        return [
            SimpleNamespace(
                nvmlReturn=status, value=SimpleNamespace(uiVal=77 if action is None else action)
            )
        ]

    def nvmlDeviceGetRemappedRows(self, handle: Any) -> Any:
        return self._told(self._board(handle).rows)

    def nvmlDeviceGetRetiredPagesPendingStatus(self, handle: Any) -> int:
        return self._board(handle).pages_pending

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, kind: int, counter: int) -> Any:
        assert (kind, counter) == (1, 0)
        return self._told(self._board(handle).uncorrected)

    def nvmlDeviceGetNvLinkState(self, handle: Any, link: int) -> int:
        board = self._board(handle)
        if link >= len(board.links):
            raise NVMLError(self.NVML_ERROR_INVALID_ARGUMENT)
        return int(board.links[link] != "")

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: Any, link: int) -> SimpleNamespace:
        return SimpleNamespace(busId=_long(self._board(handle).links[link]))

    def nvmlDeviceGetGpuFabricInfoV(self, handle: Any, info: Any) -> int:
        fabric = self._told(self._board(handle).fabric)
        info._obj.clusterUuid[:] = fabric[0]
        info._obj.cliqueId, info._obj.state = fabric[1], self.NVML_GPU_FABRIC_STATE_COMPLETED
        return self.NVML_SUCCESS

    def nvmlDeviceGetTopologyCommonAncestor(self, one: Any, other: Any) -> Any:
        return self._told(self._board(one).ancestors.get(self._board(other).bus))

    def nvmlDeviceGetSupportedEventTypes(self, handle: Any) -> int:
        self._board(handle)
        return self.nvmlEventTypeXidCriticalError

    def nvmlEventSetCreate(self) -> list[Board]:
        return []

    def nvmlDeviceRegisterEvents(self, handle: Any, kinds: int, events: list[Board]) -> None:
        assert kinds == self.nvmlEventTypeXidCriticalError, "kinds that the device does not have"
        events.append(self._board(handle))

    def nvmlEventSetWait(self, events: list[Board], milliseconds: int) -> SimpleNamespace:
        try:
            event = self.events.get(timeout=milliseconds / 1000)
        except queue.Empty:
            raise NVMLError(self.NVML_ERROR_TIMEOUT) from None
        if isinstance(event, int):
            raise NVMLError(event)
        board, kind, data = event
        assert board in events
        handle = ctypes.pointer(board.memory)
        return SimpleNamespace(device=handle, eventType=kind, eventData=data)

    def nvmlEventSetFree(self, events: list[Board]) -> None:
        self.freed += 1

    def xid(self, board: Board, number: int) -> None:
        """The driver reports an Xid."""
        self.events.put((board, self.nvmlEventTypeXidCriticalError, number))


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _long(bus: str) -> bytes:
    return f"0000{bus}".upper().encode() if bus != "(unknown)" else b""
