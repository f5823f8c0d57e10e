"""Runs the test programs and client scripts on a real GPU, natively and pooled, and compares.

    python tests/hardware/bundle.py FOLDER                # where the toolchains are
    python FOLDER/run.py --out results.json [NAME ...]    # where the GPU is

"Remote behaves like local": a case is right when the program ends well natively and through the
pool, and prints the same. The pool is a `harp server` of this machine on NVIDIA's own libcuda, with
the jail that it has in service. The results name the GPU and its driver. NAMEs choose cases by the
beginning of their names.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECONDS = 120.0
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
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HARP_")}
    path = os.pathsep.join(filter(None, [str(HERE / "python"), os.environ.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, "HARP_NATIVE_DIR": str(HERE / "native")}


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


class Server:
    """A `harp server` on the GPU, and a user's credentials."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        self.environ = environment()
        authority = folder / "ca"
        self._harp("ca", "create", authority, "--pool", "lab")
        self._harp("ca", "server", authority, "gpu")
        self._harp("ca", "user", authority, "alice", "--tenant", "ml")
        self.log = folder / "server.log"
        ready_read, ready_write = os.pipe()
        command = [*HARP, "server", "--listen", "127.0.0.1:0", "--device", device]
        command += ["--credentials", str(authority / "servers" / "gpu")]
        command += ["--log-format", "json", "--ready-fd", str(ready_write), "--max-sessions", "16"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environ, stderr=log, stdout=log, pass_fds=[ready_write]
            )
        os.close(ready_write)
        with os.fdopen(ready_read) as ready:
            address = ready.readline().strip()
        if not address:
            raise SystemExit(f"the server did not start:\n{self.log.read_text()}")
        user = authority / "users" / "alice"
        self.wrapper = [*HARP_RUN, "--server", address, "--credentials", str(user)]

    def _harp(self, *words: object) -> None:
        command = [*HARP, *map(str, words)]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{command}: {done.stderr}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


HARP = [sys.executable, "-c", "from harp_client.cli import main; main()"]
HARP_RUN = [sys.executable, "-c", "from harp_client.run import main; main()"]


def cases(chosen: list[str]) -> dict[str, list[str]]:
    """Command lines by name."""
    found = {
        f"{path.parent.name}-{path.name}": [str(path)]
        for path in sorted((HERE / "programs").glob("*/*"))
    }
    scripts = HERE / "clients"
    for group in CUPY_GROUPS:
        found[f"cupy-{group}"] = [sys.executable, str(scripts / "cupy_basics.py"), group]
    for script in ("numba_basics", "cuda_core_basics", "torch_training"):
        if (scripts / f"{script}.py").exists():
            found[script] = [sys.executable, str(scripts / f"{script}.py")]
    if not chosen:
        return found
    return {name: line for name, line in found.items() if name.startswith(tuple(chosen))}


def run(command: list[str], environ: dict[str, str]) -> dict[str, object]:
    """Runs to the end, or SECONDS."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        stderr += "\n(killed: it did not end)"
    seconds = round(time.monotonic() - begun, 3)
    return {"status": process.returncode, "seconds": seconds, "stdout": stdout, "stderr": stderr}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sync", action="store_true", help="every call waits (HARP_SYNC=1)")
    options = parser.parse_args()
    native = {name: value for name, value in os.environ.items() if not name.startswith("HARP_")}
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        native["CUPY_CACHE_DIR"] = f"{folder}/cupy"
        server = Server(Path(folder), libcuda())
        wrapper = [*server.wrapper, *(["--sync"] if options.sync else []), "--"]
        for name, command in cases(options.names).items():
            alone = run(command, native)
            pooled = run([*wrapper, *command], {**native, **environment()})
            right = alone["status"] == pooled["status"] == 0 and alone["stdout"] == pooled["stdout"]
            outcomes[name] = {"right": right, "native": alone, "pool": pooled}
            verdict = "same" if right else "DIFFERS" if alone["status"] == 0 else "FAILS NATIVELY"
            print(f"{verdict:8} {name} {alone['seconds']} {pooled['seconds']}", flush=True)
            if not right:
                for column, outcome in (("native", alone), ("pool", pooled)):
                    text = f"{outcome['stdout']}{outcome['stderr']}"[-700:]
                    print(f"   {column}: status {outcome['status']}\n{text}", flush=True)
        status = server.stop()
        log = server.log.read_text()
        print(f"server: exit status {status}", flush=True)
    report = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "sync": options.sync,
        "right": sum(outcome["right"] for outcome in outcomes.values()),
        "cases": outcomes,
        "server_log": log[-20000:],
    }
    options.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(f"{report['right']} of {len(outcomes)} the same natively and through the pool")
    return 0


if __name__ == "__main__":
    sys.exit(main())
