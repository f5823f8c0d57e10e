"""The soft GPU's libcuda.so.1 itself: life and end of the process, refusals, sticky errors.

Every case is a script in a process of its own, because a driver's state belongs to the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harp_client import native

HERE = Path(__file__).resolve().parent


def run(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs a script that may use all of `cuda.py`; it must end by itself, and well."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HARP_", "CUDA_"))}
    done = subprocess.run(
        [sys.executable, "-c", "from cuda import *\n" + textwrap.dedent(script)],
        env={
            **kept,
            "HARP_TEST_LIBCUDA": native.find().softgpu,
            "PYTHONPATH": str(HERE),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_says_once_what_it_is_and_can_be_quiet() -> None:
    script = """
        start(); driver.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0)
    """
    assert run(script).stderr.count("development device") == 1
    assert run(script, HARP_LOG="quiet").stderr == ""
    assert run("must(driver.cuInit(0))").stderr == ""


def test_a_forked_child_of_an_initialised_parent_is_refused() -> None:
    run("""
        count = ctypes.c_int()
        assert driver.cuDeviceGetCount(ctypes.byref(count)) == NOT_INITIALIZED
        if os.fork() == 0:  # the parent has not initialised: the child may
            must(driver.cuInit(0))
            os._exit(0)
        assert os.wait()[1] == 0
        start()
        if os.fork() == 0:
            refused = driver.cuDeviceGetCount(ctypes.byref(count)) == NOT_INITIALIZED
            os._exit(0 if refused and driver.cuInit(0) == NOT_INITIALIZED else 1)
        assert os.wait()[1] == 0
        must(driver.cuDeviceGetCount(ctypes.byref(count)))
    """)


def test_a_kernel_that_never_ends_does_not_hold_up_the_exit() -> None:
    run("""
        start()
        must(launch(function("forever", FOREVER)))
        assert driver.cuStreamQuery(None) == NOT_READY
    """)


def test_a_fault_sticks_for_as_long_as_the_process_lives() -> None:
    """As NVIDIA's driver has it: a reset succeeds, and the device stays lost for the process."""
    done = run("""
        start()
        kept = allocate(64)
        must(store(kept, 7))
        must(store(0x123450, 1))
        assert driver.cuCtxSynchronize() == ILLEGAL_ADDRESS
        address = ctypes.c_uint64()
        assert driver.cuMemAlloc_v2(ctypes.byref(address), 64) == ILLEGAL_ADDRESS
        assert load(STORE)[0] == ILLEGAL_ADDRESS
        must(driver.cuDevicePrimaryCtxReset_v2(0))
        assert driver.cuMemAlloc_v2(ctypes.byref(address), 64) == CONTEXT_IS_DESTROYED
        context = ctypes.c_void_p()
        retained = driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        assert retained == ILLEGAL_ADDRESS
        assert driver.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == ILLEGAL_ADDRESS
    """)
    assert done.stderr.count("illegal address 0x123450") == 1
    assert "kernel `store`" in done.stderr


def test_a_reset_context_is_usable_from_its_next_retain() -> None:
    run("""
        start()
        context, address = ctypes.c_void_p(), ctypes.c_uint64()
        must(driver.cuDevicePrimaryCtxReset_v2(0))
        assert driver.cuMemAlloc_v2(ctypes.byref(address), 64) == CONTEXT_IS_DESTROYED
        must(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
        fresh = allocate(64)
        must(store(fresh, 8))
        assert word_at(fresh) == 8
    """)


def test_unknown_ptx_fails_with_that_function_only_and_is_named() -> None:
    done = run("""
        start()
        broken = ".visible .entry broken() {\\n    frobnicate.u32 %r1, %r2;\\n ret; }"
        assert load(broken)[0] == INVALID_PTX
        code, module = load(STORE, broken)
        must(code)
        found = ctypes.c_void_p()
        must(driver.cuModuleGetFunction(ctypes.byref(found), module, b"store"))
        place = allocate(4)
        must(launch(found, ctypes.c_uint64(place), ctypes.c_uint32(9)))
        assert word_at(place) == 9
        must(driver.cuModuleGetFunction(ctypes.byref(found), module, b"broken"))
        assert launch(found) == INVALID_PTX
    """)
    assert "frobnicate" in done.stderr
    assert "line" in done.stderr


def test_machine_code_is_refused_with_the_way_out() -> None:
    done = run("""
        start()
        cubin = bytearray(64)
        cubin[:8] = b"\\x7fELF\\x02\\x01\\x01\\x41"
        cubin[48:52] = (0x06005a04).to_bytes(4, "little")
        module = ctypes.c_void_p()
        refused = driver.cuModuleLoadData(ctypes.byref(module), bytes(cubin))
        assert refused == NO_BINARY_FOR_GPU, refused
    """)
    assert "sm_90" in done.stderr
    assert "CUPY_COMPILE_WITH_PTX=1" in done.stderr


def test_streams_are_never_captured() -> None:
    run("""
        start()
        status = ctypes.c_int(9)
        must(driver.cuStreamIsCapturing(None, ctypes.byref(status)))
        assert status.value == 0
        stream = ctypes.c_void_p()
        must(driver.cuStreamCreate(ctypes.byref(stream), 1))
        assert driver.cuStreamBeginCapture_v2(stream, 0) == NOT_SUPPORTED
        found = ctypes.c_void_p(1)
        must_not = driver.cuGetProcAddress(b"cuStreamBeginCapture", ctypes.byref(found), 10010, 0)
        assert must_not != 0 and not found.value
    """)


def test_memory_is_mapped_unmapped_and_mapped_elsewhere_with_its_contents() -> None:
    run("""
        start()
        size = 2 << 20

        class Location(ctypes.Structure):
            _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]

        class Properties(ctypes.Structure):
            _fields_ = [("type", ctypes.c_int), ("handles", ctypes.c_int), ("at", Location),
                        ("meta", ctypes.c_void_p), ("flags", ctypes.c_uint64)]

        class Access(ctypes.Structure):
            _fields_ = [("at", Location), ("flags", ctypes.c_int)]

        here = Location(1, 0)
        base, memory = ctypes.c_uint64(), ctypes.c_uint64()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        whole, zero = ctypes.c_size_t(4 * size), ctypes.c_uint64(0)
        must(driver.cuMemAddressReserve(ctypes.byref(base), whole, zero, zero, zero))
        must(driver.cuMemCreate(ctypes.byref(memory), ctypes.c_size_t(size),
                                ctypes.byref(Properties(1, 0, here, None, 0)), zero))

        def place(at):
            at, length, access = ctypes.c_uint64(at), ctypes.c_size_t(size), Access(here, 3)
            must(driver.cuMemMap(at, length, zero, memory, zero))
            must(driver.cuMemSetAccess(at, length, ctypes.byref(access), ctypes.c_size_t(1)))

        place(base.value)
        assert word_at(base.value) == 0
        must(store(base.value + 4, 42))
        assert word_at(base.value + 4) == 42
        must(driver.cuMemUnmap(base, ctypes.c_size_t(size)))
        word = ctypes.c_uint32()
        assert driver.cuMemcpyDtoH_v2(ctypes.byref(word), base, ctypes.c_size_t(4)) != 0
        place(base.value + 2 * size)
        assert word_at(base.value + 2 * size + 4) == 42
        must(driver.cuMemUnmap(ctypes.c_uint64(base.value + 2 * size), ctypes.c_size_t(size)))
        must(driver.cuMemRelease(memory))
        must(driver.cuMemAddressFree(base, whole))
        must(driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
        assert total.value - free.value < size
    """)


@pytest.mark.parametrize(
    ("visible", "buses"), [("1,0", ["0000:02:00.0", "0000:01:00.0"]), ("1", ["0000:02:00.0"])]
)
def test_visible_devices_are_the_ones_asked_for(visible: str, buses: list[str]) -> None:
    done = run(
        """
        must(driver.cuInit(0))
        count = ctypes.c_int()
        must(driver.cuDeviceGetCount(ctypes.byref(count)))
        for device in range(count.value):
            bus = ctypes.create_string_buffer(16)
            must(driver.cuDeviceGetPCIBusId(bus, 16, device))
            print(bus.value.decode())
        """,
        HARP_SOFT_DEVICES="2",
        CUDA_VISIBLE_DEVICES=visible,
    )
    assert done.stdout.split() == buses


def test_pointers_can_be_asked_about_before_there_is_a_context() -> None:
    """The CUDA runtime asks what kind of memory it is given as its first call of all."""
    run("""
        must(driver.cuInit(0))
        host, kind = ctypes.create_string_buffer(8), ctypes.c_uint32(7)
        asked = (ctypes.c_int * 1)(2)  # CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        places = (ctypes.c_void_p * 1)(ctypes.addressof(kind))
        address = ctypes.c_uint64(ctypes.addressof(host))
        must(driver.cuPointerGetAttributes(1, asked, places, address))
        assert kind.value == 0
        assert driver.cuPointerGetAttribute(ctypes.byref(kind), 2, address) == 1
    """)


def test_a_copy_from_memory_that_has_been_freed_meanwhile_is_a_fault() -> None:
    """Freed from another stream while the copy was still queued: no crash, CUDA's sticky error."""
    run("""
        import threading
        start()
        go = threading.Event()
        streams = [ctypes.c_void_p() for _ in range(2)]
        for stream in streams:
            must(driver.cuStreamCreate(ctypes.byref(stream), 1))
        one, two = streams
        size = ctypes.c_size_t(8 << 20)
        memory = ctypes.c_uint64()
        must(driver.cuMemAllocAsync(ctypes.byref(memory), size, two))
        must(driver.cuStreamSynchronize(two))
        to = allocate(8 << 20)
        wait = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: go.wait())
        must(driver.cuLaunchHostFunc(one, wait, None))
        must(driver.cuMemcpyDtoDAsync_v2(ctypes.c_uint64(to), memory, size, one))
        must(driver.cuMemFreeAsync(memory, two))
        must(driver.cuStreamSynchronize(two))
        go.set()
        assert driver.cuStreamSynchronize(one) == ILLEGAL_ADDRESS
        assert driver.cuStreamSynchronize(two) == ILLEGAL_ADDRESS
    """)


def test_streams_events_and_pointers_need_no_current_context() -> None:
    """Runtimes ask about them from threads that have not used the device yet."""
    run("""
        import threading
        context = start()
        stream, begin, end = (ctypes.c_void_p() for _ in range(3))
        must(driver.cuStreamCreate(ctypes.byref(stream), 0))
        for event in (begin, end):
            must(driver.cuEventCreate(ctypes.byref(event), 0))
        address = allocate(64)
        must(driver.cuEventRecord(begin, stream))
        codes = []

        def ask():
            kind, time = ctypes.c_uint(), ctypes.c_float()
            codes.append(driver.cuEventRecord(end, stream))
            codes.append(driver.cuStreamWaitEvent(stream, begin, 0))
            codes.append(driver.cuEventSynchronize(end))
            codes.append(driver.cuEventQuery(begin))
            codes.append(driver.cuEventElapsedTime_v2(ctypes.byref(time), begin, end))
            codes.append(driver.cuStreamSynchronize(stream))
            codes.append(driver.cuStreamQuery(stream))
            pointer = ctypes.c_uint64(address)
            codes.append(driver.cuPointerGetAttribute(ctypes.byref(kind), 2, pointer))
            codes.append(driver.cuEventDestroy_v2(begin))
            codes.append(driver.cuStreamDestroy_v2(stream))
            # The default stream is that of the current context, and there is none.
            codes.append(driver.cuStreamQuery(None))
            codes.append(driver.cuEventRecord(end, None))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert codes == [0] * 10 + [INVALID_CONTEXT] * 2, codes
    """)
