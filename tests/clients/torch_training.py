"""Trains two small networks with PyTorch. An unmodified CUDA client: it knows nothing of HARP.

Prints what is the same on every run on one kind of GPU: losses as exact decimals, a sum over the
trained weights, how many test samples are classified right. What a pool must not change can so be
compared byte by byte. Times go to stderr. Needs a GPU that the wheel holds machine code for; exits
1 if a loss does not fall.

    torch_training.py                          # both networks, in full precision
    torch_training.py --amp --net conv         # one, with automatic mixed precision
    torch_training.py --workers 2 --prefetch   # worker processes, and copies on another stream
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator

# Before cuBLAS is loaded: its products are then the same at every run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

CLASSES, SIDE = 10, 16
BATCH, SAMPLES, TESTS = 64, 2048, 512
SEED = 20

Batch = tuple[torch.Tensor, torch.Tensor]


def samples(count: int, seed: int) -> TensorDataset:
    """Noisy pictures of one of ten patterns each; the patterns do not depend on the seed."""
    patterns = torch.randn(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(SEED))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    noise = torch.randn(count, 1, SIDE, SIDE, generator=generator)
    return TensorDataset(patterns[labels] + 2 * noise, labels)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, 128),
        nn.LayerNorm(128),
        nn.GELU(),
        nn.Dropout(0.1),
        nn.Linear(128, CLASSES),
    )


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        # A stride, not a pooling layer: what PyTorch calls deterministic is certain for this.
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (SIDE // 2) ** 2, CLASSES),
    )


NETS = {"mlp": mlp, "conv": conv}


class Prefetch:
    """Copies each batch ahead of need, on a stream of its own."""

    def __init__(self, loader: DataLoader, device: torch.device) -> None:
        self.loader = loader
        self.device = device
        self.stream = torch.cuda.Stream()

    def __iter__(self) -> Iterator[Batch]:
        ahead: Batch | None = None
        for batch in self.loader:
            with torch.cuda.stream(self.stream):
                images, labels = (part.to(self.device, non_blocking=True) for part in batch)
            if ahead is not None:
                yield ahead
            torch.cuda.current_stream().wait_stream(self.stream)
            for part in (images, labels):
                part.record_stream(torch.cuda.current_stream())
            ahead = images, labels
        if ahead is not None:
            yield ahead


def batches(loader: DataLoader, device: torch.device, prefetch: bool) -> Iterator[Batch]:
    if prefetch:
        yield from Prefetch(loader, device)
    else:
        for images, labels in loader:
            yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def train(name: str, options: argparse.Namespace) -> bool:
    """Trains one network; whether its loss fell."""
    device = torch.device(options.device)
    torch.manual_seed(SEED)
    net = NETS[name]().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=options.amp)
    loader = DataLoader(
        samples(SAMPLES, SEED + 1),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(SEED),
    )
    losses: list[float] = []
    seconds: list[float] = []
    step = 0
    while step < options.steps:
        for images, labels in batches(loader, device, options.prefetch):
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.float16, enabled=options.amp):
                loss = functional.cross_entropy(net(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if step % options.every == 0 or step == options.steps - 1:
                losses.append(loss.item())
                print(f"{name} step {step}: loss {losses[-1]!r}", flush=True)
            seconds.append(time.perf_counter() - began)
            step += 1
            if step == options.steps:
                break
    report(name, net, device)
    warm = sorted(seconds[len(seconds) // 10 :])
    print(
        f"{name}: step median {statistics.median(warm) * 1e3:.3f} ms, "
        f"p90 {warm[len(warm) * 9 // 10] * 1e3:.3f} ms, first {seconds[0] * 1e3:.1f} ms",
        file=sys.stderr,
    )
    fell = losses[-1] < losses[0] / 2
    print(f"{name}: the loss {'fell' if fell else 'DID NOT FALL'}")
    return fell


def report(name: str, net: nn.Module, device: torch.device) -> None:
    """Prints what the network has become."""
    net.eval()
    with torch.no_grad():
        images, labels = samples(TESTS, SEED + 2).tensors
        right = (net(images.to(device)).argmax(1).cpu() == labels).sum().item()
        weights = sum(weight.double().sum().item() for weight in net.parameters())
    print(f"{name}: {right} of {TESTS} right, weights add up to {weights!r}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", choices=[*NETS, "both"], default="both")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps between printed losses")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--workers", type=int, default=0, help="processes that load batches")
    parser.add_argument("--prefetch", action="store_true", help="copy batches on another stream")
    parser.add_argument("--device", default="cuda", help="cpu shows what the script itself does")
    options = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    if options.device == "cuda":
        print(f"on {torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    names = list(NETS) if options.net == "both" else [options.net]
    began = time.perf_counter()
    fell = [train(name, options) for name in names]
    print(f"all: {time.perf_counter() - began:.2f} s", file=sys.stderr)
    return 0 if all(fell) else 1


if __name__ == "__main__":
    sys.exit(main())
