"""The CUDA driver API as data: ABI facts, one reviewed entry of meaning per call, and a generator."""
