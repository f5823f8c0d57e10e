"""Runs the test programs and client scripts on a real GPU, natively and pooled, and compares.

    python tests/hardware/bundle.py FOLDER                # where the toolchains are
    python FOLDER/run.py --out results.json [NAME ...]    # where the GPU is

"Remote behaves like local": a case is right when the program ends well natively and through the
pool, and prints the same. The pool is a `harp server` of this machine on NVIDIA's own libcuda, with
the jail that it has in service. Programs for two devices also run on two servers of the one GPU,
where their exit status tells whether all was right. The results name the GPU and its driver. NAMEs
choose cases by the beginning of their names, and leave the two servers out.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = HERE / "python"
sys.path.insert(0, str(PACKAGES))

from conformance.outcome import finish  # noqa: E402
from pool.standins import HARP_RUN, Pool, Server  # noqa: E402
from programs.two_servers import TWO_SERVERS  # noqa: E402

CUPY_GROUPS = (
    "creation",
    "elementwise",
    "broadcasting",
    "reductions",
    "sorting",
    "kernels",
    "streams",
)


def environment() -> dict[str, str]:
    """What the commands of HARP need; programs run natively see none of it."""
    path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH", "")]))
    return {**plain(), "PYTHONPATH": path, "HARP_NATIVE_DIR": str(HERE / "native")}


def plain() -> dict[str, str]:
    """The environment without anything of HARP's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HARP_")}


def libcuda() -> str:
    """Path of NVIDIA's libcuda.so.1."""
    ctypes.CDLL("libcuda.so.1")
    maps = Path("/proc/self/maps").read_text().splitlines()
    return min(line.split()[-1] for line in maps if "libcuda.so" in line)


def machine() -> dict[str, object]:
    """The GPU and what drives it."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    name, driver, memory = (
        subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    )
    version = ctypes.c_int()
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return {"gpu": name, "driver": driver, "memory": memory, "cuda": version.value}


def cases(chosen: list[str]) -> dict[str, list[str]]:
    """Command lines by name."""
    found = {
        f"{path.parent.name}-{path.name}": [str(path)]
        for path in sorted((HERE / "programs").glob("*/*"))
    }
    scripts = PACKAGES / "clients"
    for group in CUPY_GROUPS:
        found[f"cupy-{group}"] = [sys.executable, str(scripts / "cupy_basics.py"), group]
    for script in ("numba_basics", "cuda_core_basics", "torch_training"):
        if (scripts / f"{script}.py").exists():
            found[script] = [sys.executable, str(scripts / f"{script}.py")]
    if chosen:
        return {name: line for name, line in found.items() if name.startswith(tuple(chosen))}
    return found


def for_two_servers() -> dict[str, list[str]]:
    """Command lines of programs that use two devices, by name."""
    found = {
        f"{name}-{path.name}": [str(path)]
        for name in TWO_SERVERS
        for path in sorted((HERE / "programs" / name).glob("*"))
    }
    return found | {"cupy": [sys.executable, str(PACKAGES / "clients" / "cupy_two_devices.py")]}


def run(command: list[str], environ: dict[str, str]) -> dict[str, object]:
    """Runs a program to its end, and takes the time."""
    begun = time.monotonic()
    outcome = finish(command, environ)
    return {"seconds": round(time.monotonic() - begun, 3), **outcome._asdict()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sync", action="store_true", help="every call waits (HARP_SYNC=1)")
    parser.add_argument(
        "--local", action="store_true", help="in local mode instead of through a pool"
    )
    parser.add_argument(
        "--soft", action="store_true", help="the soft GPU stands in for one: to try the bundle"
    )
    options = parser.parse_args()
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        ours = {**environment(), "CUPY_CACHE_DIR": f"{folder}/cupy"}
        native = {**plain(), "CUPY_CACHE_DIR": f"{folder}/cupy"}
        device = "soft" if options.soft else libcuda()
        options_of_server = ("--device", device, "--max-sessions", "16")
        pool = Pool(Path(folder))
        server = Server(pool, ours, Path(folder) / "server.log", *options_of_server)
        wrapper = [*HARP_RUN, "--server", server.address, "--credentials", str(pool.user)]
        wrapper += [*(["--sync"] if options.sync else []), "--"]
        if options.local:
            wrapper = [*HARP_RUN, "--local", "--libcuda", device, "--"]
        for name, command in cases(options.names).items():
            if options.soft:
                alone = run([*HARP_RUN, "--direct", "--", *command], ours)
            else:
                alone = run(command, native)
            pooled = run([*wrapper, *command], ours)
            right = alone["status"] == pooled["status"] == 0 and alone["stdout"] == pooled["stdout"]
            outcomes[name] = {"right": right, "native": alone, "pool": pooled}
            verdict = "same" if right else "DIFFERS" if alone["status"] == 0 else "FAILS NATIVELY"
            print(f"{verdict:8} {name} {alone['seconds']} {pooled['seconds']}", flush=True)
            if not right:
                for column, outcome in (("native", alone), ("pool", pooled)):
                    text = f"{outcome['stdout']}{outcome['stderr']}"[-700:]
                    print(f"   {column}: status {outcome['status']}\n{text}", flush=True)
        spread = {}
        if not options.names and not options.local:
            other = Server(pool, ours, Path(folder) / "other.log", *options_of_server)
            both = [*wrapper[:-1], "--server", other.address, "--"]
            for name, command in for_two_servers().items():
                spread[name] = run([*both, *command], ours)
                right = spread[name]["status"] == 0
                print(f"{'right' if right else 'FAILS'} on two servers: {name}", flush=True)
                if not right:
                    print(f"{spread[name]['stdout']}{spread[name]['stderr']}"[-700:], flush=True)
            other.stop()
        status = server.stop()
        log = server.log.read_text()
        print(f"server: exit status {status}", flush=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": {"gpu": "soft"} if options.soft else machine(),
        "sync": options.sync,
        "local": options.local,
        "right": sum(outcome["right"] for outcome in outcomes.values()),
        "cases": outcomes,
        "two_servers": spread,
        "server_log": log[-20000:],
    }
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    way = "in local mode" if options.local else "through the pool"
    print(f"{report['right']} of {len(outcomes)} the same natively and {way}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
