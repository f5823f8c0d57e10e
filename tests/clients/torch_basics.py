"""What PyTorch's stock wheel does on a device without running a kernel, and how a kernel fails.

An unmodified CUDA client: it knows nothing of HARP. PyTorch's own kernels come as machine code of
NVIDIA's GPUs without PTX, so on a soft GPU everything works but those, and they fail as on a GPU
that the wheel was not built for. What libraries carry as PTX (cuFFT, parts of cuDNN) runs. Prints
one line per step; exits 1 if any is not as expected. `torch_basics.py NAME...` runs only the groups
named.
"""

import io
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable

import torch

MIB = 1 << 20
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
DTYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
    *(torch.complex128, torch.float8_e4m3fn, torch.uint16),
)

mismatches = 0


def check(name: str, right: bool, shown: object = "") -> None:
    """Prints and counts whether a step went as expected."""
    global mismatches
    print(f"{name}: {shown} {'ok' if right else 'MISMATCH'}".replace("  ", " "), flush=True)
    mismatches += not right


def equal(name: str, got: torch.Tensor, wanted: torch.Tensor) -> None:
    """As `check`, for a tensor that must have come back bit by bit."""
    got = got.cpu()
    same = got.dtype == wanted.dtype and got.shape == wanted.shape
    same = same and torch.equal(raw(got), raw(wanted))
    check(name, same, f"{str(got.dtype)[6:]}{list(got.shape)}")


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor on the host."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def sample(count: int, seed: int = 0) -> torch.Tensor:
    """Values on the host that differ from one seed to the next."""
    return (torch.arange(count, dtype=torch.int64) * 2654435761 + seed * 97) % 1000003


def fails(name: str, operation: Callable[[], object], words: str = NO_KERNEL) -> None:
    """Whether an operation fails with exactly CUDA's own words, as PyTorch passes them on."""
    try:
        operation()
        torch.cuda.synchronize()
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        check(name, first == words, f"{type(error).__name__}: {first}")
    else:
        check(name, False, "did not fail")


def device() -> None:
    check("available", torch.cuda.is_available())
    check("devices", torch.cuda.device_count() == 2, torch.cuda.device_count())
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        memory = f"{found.total_memory // MIB} MiB"
        shape = f"{found.multi_processor_count} x {found.max_threads_per_multi_processor}"
        right = found.warp_size == 32 and (found.major, found.minor) >= (7, 5)
        check(f"device {index}", right, f"{found.name}, {memory}, {shape}, {found.uuid}")
    check("capability", torch.cuda.get_device_capability() >= (7, 5))
    check("peer access", True, torch.cuda.can_device_access_peer(0, 1))
    check("current", torch.cuda.current_device() == 0)
    with torch.cuda.device(1):
        check("switched", torch.cuda.current_device() == 1)
        free, total = torch.cuda.mem_get_info()
        check("memory of device 1", 0 < free <= total)
    check("nothing allocated", torch.cuda.memory_allocated() == 0)


def copies() -> None:
    for dtype in DTYPES:
        host = raw(sample(1500)).to(torch.uint8)
        host = host % 2 == 1 if dtype == torch.bool else host.view(dtype)
        equal("there and back", host.to("cuda"), host)
    host = sample(1 << 20)
    there = host.cuda()
    equal("cloned on the device", there.clone(), host)
    equal("a slice", there[1000:5000], host[1000:5000])
    equal("one number", there[77], host[77])
    check("item", there[4242].item() == host[4242].item(), there[4242].item())
    there[100:200] = host[:100].cuda()
    changed = host.clone()
    changed[100:200] = host[:100]
    equal("a slice written", there, changed)
    equal("of several dimensions", host.reshape(16, 256, -1).cuda(), host.reshape(16, 256, -1))
    equal("transposed on the host", host.reshape(1024, -1).t().cuda(), host.reshape(1024, -1).t())
    equal("an empty one", torch.empty(0, 3, device="cuda"), torch.empty(0, 3))
    equal("a view of other type", there.view(torch.int32)[:8], changed.view(torch.int32)[:8])
    stored = io.BytesIO()
    torch.save({"weights": there}, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=True)["weights"]
    check("loaded where it was", loaded.device == there.device, loaded.device)
    equal("saved and loaded", loaded, changed)
    other = there.to("cuda:1")
    check("on the other device", other.device.index == 1, other.device)
    equal("copied between devices", other, changed)
    layer = torch.nn.Linear(64, 32)
    wanted = {name: value.clone() for name, value in layer.state_dict().items()}
    for name, value in layer.cuda().state_dict().items():
        equal(f"a layer's {name}", value, wanted[name])


def pinned() -> None:
    host = sample(1 << 18).pin_memory()
    check("pinned", host.is_pinned() and not sample(4).is_pinned())
    back = torch.empty_like(host, pin_memory=True)
    there = host.to("cuda", non_blocking=True)
    back.copy_(there, non_blocking=True)
    torch.cuda.synchronize()
    equal("there and back", back, host)
    # Bytes that a copy was given are the copy's: what comes later in the stream sees them.
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for seed in range(20):
            stream.synchronize()
            host.copy_(sample(1 << 18, seed))
            there.copy_(host, non_blocking=True)
            back.copy_(there, non_blocking=True)
    stream.synchronize()
    equal("the last of many", back, sample(1 << 18, 19))
    cached = torch.empty(MIB, dtype=torch.uint8, pin_memory=True).data_ptr()
    again = torch.empty(MIB, dtype=torch.uint8, pin_memory=True)
    check("host memory is used again", again.data_ptr() == cached)
    pageable = sample(MIB, 5)
    there = pageable.to("cuda", non_blocking=True)
    pageable.zero_()
    equal("pageable bytes are taken at the call", there, sample(MIB, 5))
    result = torch.cuda.cudart().cudaHostRegister(pageable.data_ptr(), pageable.nbytes, 0)
    check("registered", int(result) == 0 and pageable.is_pinned(), result)
    result = torch.cuda.cudart().cudaHostUnregister(pageable.data_ptr())
    check("unregistered", int(result) == 0 and not pageable.is_pinned(), result)


def streams() -> None:
    host = [sample(1 << 16, seed).pin_memory() for seed in range(8)]
    queues = [torch.cuda.Stream(), torch.cuda.Stream(priority=-1)]
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    there, copied = [], torch.cuda.Event()
    for index, part in enumerate(host):
        with torch.cuda.stream(queues[index % 2]):
            there.append(part.to("cuda", non_blocking=True))
            copied.record()
        torch.cuda.current_stream().wait_event(copied)
    end.record()
    end.synchronize()
    check("events are done", begin.query() and end.query() and copied.query())
    check("time went by", begin.elapsed_time(end) >= 0)
    for part, wanted in zip(there, host, strict=True):
        equal("over two streams", part, wanted)
    queues[0].wait_stream(queues[1])
    queues[0].synchronize()
    check("streams are done", all(queue.query() for queue in queues))
    check("default stream", torch.cuda.current_stream() == torch.cuda.default_stream())
    same = torch.cuda.ExternalStream(queues[0].cuda_stream)
    check("an external stream", same.query() and same.cuda_stream == queues[0].cuda_stream)
    blocking = torch.cuda.Event(blocking=True)
    blocking.record(queues[0])
    blocking.synchronize()
    check("a blocking event", blocking.query())
    with torch.cuda.device(1):
        far = torch.cuda.Stream()
        with torch.cuda.stream(far):
            elsewhere = there[3].to("cuda:1", non_blocking=True)
        far.synchronize()
    equal("over a stream of the other device", elsewhere, host[3])


def threads() -> None:
    results: list[bool | BaseException] = [False] * 4

    def work(index: int) -> None:
        try:
            right = True
            with torch.cuda.stream(torch.cuda.Stream()):
                for turn in range(10):
                    host = sample(20000, 100 * index + turn)
                    right = right and torch.equal(host.cuda().clone().cpu(), host)
            results[index] = right
        except BaseException as error:
            results[index] = error

    running = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    check("four threads on four streams", all(done is True for done in results), results)


def memory() -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    free, total = torch.cuda.mem_get_info()
    block = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    check("allocated", torch.cuda.memory_allocated() == 64 * MIB, torch.cuda.memory_allocated())
    check("free memory fell", free - torch.cuda.mem_get_info()[0] == 64 * MIB)
    place = block.data_ptr()
    del block
    check("cached", torch.cuda.memory_reserved() == 64 * MIB, torch.cuda.memory_reserved())
    block = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    check("used again", block.data_ptr() == place)
    del block
    torch.cuda.empty_cache()
    check("given back", torch.cuda.mem_get_info() == (free, total))
    check("peak", torch.cuda.max_memory_allocated() == 64 * MIB, torch.cuda.max_memory_allocated())
    check("counted", torch.cuda.memory_stats()["num_device_alloc"] > 0)
    out_of_memory(total)
    check("a summary", "CUDA memory summary" in torch.cuda.memory_summary().replace("PyTorch ", ""))


def out_of_memory(total: int) -> None:
    """A tensor that is too large fails; cached memory is freed for one that is not."""
    try:
        torch.empty(2 * total, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        first = str(error).split(". ")[0]
        check("too large", first.startswith("CUDA out of memory"), first)
    host = sample(1 << 16)
    equal("works after that", host.cuda(), host)
    part = total * 3 // 8
    kept = [torch.empty(part, dtype=torch.uint8, device="cuda") for _ in range(2)]
    try:
        kept.append(torch.empty(part, dtype=torch.uint8, device="cuda"))
        check("the third does not fit", False)
    except torch.OutOfMemoryError:
        check("the third does not fit", True)
    kept.clear()
    # Both freed blocks lie in PyTorch's cache: it gives them back and asks again.
    kept.append(torch.empty(total * 6 // 8, dtype=torch.uint8, device="cuda"))
    check("cached blocks made room", torch.cuda.memory_allocated() >= total * 6 // 8)
    retries = torch.cuda.memory_stats()["num_alloc_retries"]
    check("retries", retries > 0, retries)
    kept.clear()
    torch.cuda.empty_cache()


def kernels() -> None:
    host = torch.arange(1000.0)
    there = host.cuda()
    fails("add", lambda: there + 1)
    equal("copies work after it", there, host)
    torch.cuda.synchronize()
    fails("fill", lambda: torch.zeros(3, device="cuda"))
    fails("random numbers", lambda: torch.rand(3, device="cuda"))
    fails("sum", lambda: there.sum())
    fails("sort", lambda: there.sort())
    fails("index", lambda: there[torch.tensor([1, 2]).cuda()])
    fails("another type", lambda: there.to(torch.float64))
    fails("relu", lambda: torch.nn.functional.relu(there))
    fails("on the other device", lambda: torch.ones(3, device="cuda:1"))
    with torch.cuda.stream(torch.cuda.Stream()):
        fails("on another stream", lambda: there * there)
        equal("copies on that stream", there.clone(), host)
    event = torch.cuda.Event()
    event.record()
    event.synchronize()
    check("events work after it", event.query())
    more = sample(1 << 20)
    equal("memory works after it", more.cuda().clone(), more)


def libraries() -> None:
    torch.manual_seed(0)
    signal = torch.randn(16, 256, dtype=torch.complex64)
    close("a Fourier transform", torch.fft.fft(signal.cuda()), torch.fft.fft(signal))
    image, filters = torch.randn(2, 3, 32, 32), torch.randn(4, 3, 3, 3)
    convolved = torch.nn.functional.conv2d(image.cuda(), filters.cuda())
    close("a convolution", convolved, torch.nn.functional.conv2d(image, filters))


def close(name: str, got: torch.Tensor, wanted: torch.Tensor) -> None:
    """As `check`, for numbers that were computed on the device."""
    check(name, torch.allclose(got.cpu(), wanted, rtol=1e-4, atol=1e-4), list(wanted.shape))


def in_child(queue: multiprocessing.Queue) -> None:
    """What a process that was started from this one can do with the device."""
    try:
        host = sample(4096, os.getpid())
        queue.put(torch.equal(host.cuda().clone().cpu(), host))
    except Exception as error:
        queue.put(f"{type(error).__name__}: {str(error).splitlines()[0]}")


def started(method: str) -> object:
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=in_child, args=(queue,))
    child.start()
    answer = queue.get(timeout=100)
    child.join()
    return answer


class Numbers(torch.utils.data.Dataset):
    """Tensors that a loader's worker processes make."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return sample(100, index)


def loaded(workers: int) -> bool:
    """Whether batches of a loader arrive on the device, through pinned memory."""
    loader = torch.utils.data.DataLoader(
        Numbers(), batch_size=16, num_workers=workers, pin_memory=True
    )
    right = True
    for number, batch in enumerate(loader):
        wanted = torch.stack([sample(100, 16 * number + index) for index in range(16)])
        there = batch.to("cuda", non_blocking=True)
        right = right and batch.is_pinned() and torch.equal(there.cpu(), wanted)
    return right


def processes() -> None:
    first = torch.cuda.is_initialized()
    check("forked before the first call", first or started("fork") is True)
    check("a loader in this process", loaded(0))
    check("a loader with workers", loaded(2))
    answer = started("fork")
    check("forked after it", "Cannot re-initialize CUDA in forked" in str(answer), answer)
    check("spawned", started("spawn") is True)
    host = sample(1000)
    equal("this process goes on", host.cuda(), host)


GROUPS = {
    group.__name__: group
    for group in (processes, device, copies, pinned, streams, threads, memory, kernels, libraries)
}


def main() -> int:
    for name in sys.argv[1:] or GROUPS:
        print(f"== {name}", flush=True)
        GROUPS[name]()
    print("passed" if mismatches == 0 else f"FAILED: {mismatches} mismatches")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
