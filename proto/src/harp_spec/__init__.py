"""The CUDA driver API as data: ABI facts, a reviewed entry per call, and a generator."""
