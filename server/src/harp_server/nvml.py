"""What NVIDIA's management library says of a server's devices: who they are and how they are.

NVML is reached through the package nvidia-ml-py (extra `nvml`), whose module is `pynvml`. Names and
numbers are those of nvml.h. What a device or a driver does not have is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from harp_client.errors import HarpError
from harp_server.xids import Action

NAMES = (
    *("NVMLError", "NVML_SUCCESS", "NVML_ERROR_TIMEOUT"),
    *("NVML_ERROR_GPU_IS_LOST", "NVML_ERROR_RESET_REQUIRED"),
    *("NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", "NVML_MEMORY_ERROR_TYPE_UNCORRECTED"),
    *("NVML_VOLATILE_ECC", "NVML_NVLINK_MAX_LINKS", "NVML_TOPOLOGY_MULTIPLE"),
    *("NVML_GPU_FABRIC_STATE_COMPLETED", "c_nvmlGpuFabricInfoV_t"),
    *("nvmlEventTypeDoubleBitEccError", "nvmlEventTypeXidCriticalError"),
    *("nvmlInit", "nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion"),
    *("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID"),
    *("nvmlDeviceGetHandleByPciBusId", "nvmlDeviceGetName", "nvmlDeviceGetUUID"),
    *("nvmlDeviceGetPciInfo", "nvmlDeviceGetFieldValues", "nvmlDeviceGetRemappedRows"),
    *("nvmlDeviceGetRetiredPagesPendingStatus", "nvmlDeviceGetTotalEccErrors"),
    *("nvmlDeviceGetNvLinkState", "nvmlDeviceGetNvLinkRemotePciInfo"),
    *("nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetTopologyCommonAncestor"),
    *("nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents"),
    *("nvmlEventSetCreate", "nvmlEventSetWait", "nvmlEventSetFree"),
)
"""What the module has to have, apart from what metrics ask it for."""

RECOVERY_ACTIONS = {
    1: Action.RESET.value,
    2: Action.RESTART.value,
    3: "end the programs that use several devices",
    4: f"end all programs, then {Action.RESET.value}",
    5: "recover the IMEX domain",
    6: "reset the device's bus",
    7: Action.RESTART.value,
}
"""What to do, by nvmlDeviceGpuRecoveryAction_t. What is newer than this: restart the machine."""


DRIVER_SECONDS = 60.0
"""What a driver gets to answer while the server starts: it may have to wake its devices."""

Value = TypeVar("Value")


async def answered(call: Callable[[], Value]) -> Value:
    """What a call into the driver returns, which may never come back: a thread makes it that nobody
    waits for. Raises what the call raises, and NoAnswer where it takes too long."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Value] = loop.create_future()

    def settle(value: Value | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(cast("Value", value))

    def make() -> None:
        value, failed = None, None
        try:
            value = call()
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=make, name="driver", daemon=True).start()
    try:
        async with asyncio.timeout(DRIVER_SECONDS):
            return await answer
    except TimeoutError:
        raise NoAnswer(*NO_ANSWER) from None


class NoAnswer(HarpError):
    """A call into the driver does not come back."""


class Fault(NamedTuple):
    """Why a device takes no new leases, and what to do about it."""

    cause: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.cause}. Next: {self.next_step}" if self.next_step else self.cause


NO_ANSWER = Fault("the driver does not answer", "nvidia-smi; if that hangs, restart the machine")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device that NVML knows."""

    ordinal: int
    """Its number for CUDA, which may be another than NVML's."""

    uuid: str
    bus: str
    """PCI bus id, as `0000:1b:00.0`."""

    handle: Any

    @property
    def address(self) -> int | None:
        """Tells handles apart: those of one device are at one address."""
        return ctypes.cast(self.handle, ctypes.c_void_p).value


class Nvml:
    """NVML, initialised."""

    def __init__(self, module: Any) -> None:
        """`module`: `pynvml`, or what stands in for it."""
        self.api = module

    @classmethod
    def open(cls) -> Nvml:
        """Raises HarpError where the module, the driver's library or the driver is missing, or the
        module is too old."""
        try:
            module = importlib.import_module("pynvml")
        except ImportError as error:
            raise HarpError(f"there is no NVML: {error}", "pip install nvidia-ml-py") from error
        if missing := [name for name in NAMES if not hasattr(module, name)]:
            raise HarpError(
                f"nvidia-ml-py is too old: its module pynvml has no {missing[0]}",
                "pip install --upgrade nvidia-ml-py, and pip uninstall what else has a pynvml",
            )
        try:
            module.nvmlInit()
        except module.NVMLError as error:
            raise HarpError(f"NVML: {error}", "is the driver loaded (nvidia-smi)?") from error
        return cls(module)

    def asked(self, function: str, *arguments: Any) -> Any:
        """What a call returns; None where it fails, which for most means: not supported, and where
        the module does not have it."""
        call = getattr(self.api, function, None)
        with contextlib.suppress(self.api.NVMLError):
            return None if call is None else call(*arguments)
        return None

    def driver(self) -> str:
        """The driver's version, such as `580.105.08`; empty where it is not told."""
        return text(self.asked("nvmlSystemGetDriverVersion"))

    def find(self, devices: Sequence[tuple[int, str, str]]) -> list[Gpu]:
        """The devices of these numbers, UUIDs and PCI bus ids, as far as NVML knows them."""
        found = []
        for ordinal, uuid, bus in devices:
            handle = self.asked("nvmlDeviceGetHandleByUUID", uuid)
            if handle is None:
                # A part of a device (MIG) has the bus id of the whole: events are of that.
                handle = self.asked("nvmlDeviceGetHandleByPciBusId", bus)
            if handle is not None:
                found.append(Gpu(ordinal, uuid, bus.lower(), handle))
        return found

    def all(self) -> list[Gpu]:
        """All devices, by NVML's numbers."""
        found = []
        for ordinal in range(self.asked("nvmlDeviceGetCount") or 0):
            handle = self.asked("nvmlDeviceGetHandleByIndex", ordinal)
            if handle is not None:
                uuid = text(self.asked("nvmlDeviceGetUUID", handle))
                pci = self.asked("nvmlDeviceGetPciInfo", handle)
                found.append(Gpu(ordinal, uuid, "" if pci is None else bus_id(pci), handle))
        return found

    def faults(self, gpu: Gpu) -> list[Fault]:
        """What is wrong with a device now, by what its driver says."""
        try:
            return list(self._faults(gpu))
        except self.api.NVMLError as error:
            if error.value == self.api.NVML_ERROR_GPU_IS_LOST:
                return [Fault("the device has fallen off the bus", Action.RESTART.value)]
            if error.value == self.api.NVML_ERROR_RESET_REQUIRED:
                return [Fault("the device has to be reset", Action.RESET.value)]
            return [Fault(f"NVML: {error}", "nvidia-smi -q")]

    def _faults(self, gpu: Gpu) -> Iterator[Fault]:
        api, handle = self.api, gpu.handle
        # One that every device answers: an error of it is news.
        api.nvmlDeviceGetUUID(handle)
        reset = Action.RESET.value
        action = self._field(handle, api.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)
        if action:
            what = RECOVERY_ACTIONS.get(action, Action.RESTART.value)
            yield Fault("its driver asks for recovery", what)
        rows = self._supported("nvmlDeviceGetRemappedRows", handle)
        if rows is not None:
            _, _, is_pending, has_failed = rows
            if has_failed:
                yield Fault("a row of its memory could not be remapped", "replace the device")
            elif is_pending:
                yield Fault("a row of its memory is to be remapped", reset)
        elif self._supported("nvmlDeviceGetRetiredPagesPendingStatus", handle):
            yield Fault("pages of its memory are to be retired", reset)
        errors = self._supported(
            "nvmlDeviceGetTotalEccErrors",
            handle,
            api.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            api.NVML_VOLATILE_ECC,
        )
        if errors:
            yield Fault(f"uncorrectable memory errors: {errors} since its last reset", reset)

    def _supported(self, function: str, *arguments: Any) -> Any:
        """What a call returns; None where the device or the driver does not have it. Raises
        NVMLError where the device itself is at fault."""
        try:
            return getattr(self.api, function)(*arguments)
        except self.api.NVMLError as error:
            if error.value in (
                self.api.NVML_ERROR_GPU_IS_LOST,
                self.api.NVML_ERROR_RESET_REQUIRED,
            ):
                raise
            return None

    def _field(self, handle: Any, number: int) -> int:
        values = self._supported("nvmlDeviceGetFieldValues", handle, [number])
        if values is None or values[0].nvmlReturn != self.api.NVML_SUCCESS:
            return 0
        return int(values[0].value.uiVal)


class Events:
    """Xids and memory errors of devices, as the driver reports them."""

    def __init__(self, nvml: Nvml, gpus: Sequence[Gpu]) -> None:
        """Raises the module's NVMLError where the driver has no events."""
        self._nvml, self._api = nvml, nvml.api
        self._gpus = {gpu.address: gpu for gpu in gpus}
        self._set = self._api.nvmlEventSetCreate()
        wanted = self._api.nvmlEventTypeXidCriticalError | self._api.nvmlEventTypeDoubleBitEccError
        self.watched: list[Gpu] = []
        """Devices that have events at all."""

        for gpu in gpus:
            kinds = nvml.asked("nvmlDeviceGetSupportedEventTypes", gpu.handle) or 0
            with contextlib.suppress(self._api.NVMLError):
                if kinds & wanted:
                    self._api.nvmlDeviceRegisterEvents(gpu.handle, kinds & wanted, self._set)
                    self.watched.append(gpu)

    def wait(self, seconds: float) -> tuple[Gpu | None, int] | None:
        """The next event: its device, None if it cannot be told which; and its Xid, 0 for another
        kind. None when there is none in time. Raises NVMLError: a device is lost, for one."""
        try:
            event = self._api.nvmlEventSetWait(self._set, round(1000 * seconds))
        except self._api.NVMLError as error:
            if error.value == self._api.NVML_ERROR_TIMEOUT:
                return None
            raise
        is_xid = event.eventType == self._api.nvmlEventTypeXidCriticalError
        return self._gpu(event.device), int(event.eventData) if is_xid else 0

    def _gpu(self, handle: Any) -> Gpu | None:
        address = ctypes.cast(handle, ctypes.c_void_p).value
        if address in self._gpus:
            return self._gpus[address]
        uuid = text(self._nvml.asked("nvmlDeviceGetUUID", handle))
        return next((gpu for gpu in self._gpus.values() if gpu.uuid == uuid), None)

    def close(self) -> None:
        """Forgets them. Not while somebody waits."""
        with contextlib.suppress(self._api.NVMLError):
            self._api.nvmlEventSetFree(self._set)


def bus_id(pci: Any) -> str:
    """A PCI bus id as sysfs writes it, of an nvmlPciInfo_t; "" where it has none."""
    domain, colon, rest = text(pci.busId).lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}" if colon else ""


def text(value: Any) -> str:
    """What older versions of the module give as bytes; "" for None."""
    if value is None:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
