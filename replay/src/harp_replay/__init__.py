"""Traces of CUDA programs: replays them, looks into them; `harp-trace` does the work."""
