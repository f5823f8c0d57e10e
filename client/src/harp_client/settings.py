"""Every HARP_* environment variable, declared once: its name, default, reader and meaning.

docs/environment.md is generated from this table (`harp settings --markdown`), and a test fails when
a source file of any language reads a HARP_* variable that is not declared here.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

PROGRAM = "the program (interposer)"
RUN = "harp-run, harp"
SERVER = "harp server, harp-worker"
SOFT = "the soft GPU"


class Setting(NamedTuple):
    """One environment variable. An empty value means the same as an unset one."""

    name: str
    default: str
    reader: str
    meaning: str

    def get(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The value set by the user, or None."""
        return (os.environ if environ is None else environ).get(self.name) or None

    def is_on(self, environ: Mapping[str, str] | None = None) -> bool:
        """Whether a yes-or-no variable says yes: anything but nothing and "0"."""
        return self.get(environ) not in (None, "0")


HARP_SERVER = Setting(
    "HARP_SERVER",
    "the embedded pool",
    PROGRAM,
    "Address `HOST:PORT` of the pool server, or of several with commas between them, whose devices "
    "the program numbers in this order; `HOST:PORT/0+2` takes only these of a server's devices, "
    "`LEASE@HOST:PORT` those of a lease. "
    "Set by `harp-run`; read by `harp-run` as the default of `--server`.",
)
HARP_CREDENTIALS = Setting(
    "HARP_CREDENTIALS",
    "`$XDG_CONFIG_HOME/harp/credentials`",
    PROGRAM,
    "Folder with `ca.pem`, `client.pem` and `client.key`: who the pool is and who the user is.",
)
HARP_SERVER_NAME = Setting(
    "HARP_SERVER_NAME",
    "`harp-server`",
    PROGRAM,
    "DNS name that the servers' certificates must carry, and that is sent as the TLS server name; "
    "after `LEASE.lease.` where a server is used under a lease.",
)
HARP_EMBEDDED = Setting(
    "HARP_EMBEDDED",
    "`0`",
    PROGRAM,
    "`1` says that the pool is one that `harp-run` has started for this run and that ends with it. "
    "Set by `harp-run`.",
)
HARP_LIBCUDA = Setting(
    "HARP_LIBCUDA",
    "the machine's own driver",
    PROGRAM,
    "Local mode: path of the `libcuda.so.1` that the program's calls go to, in its own process and "
    "instead of a pool. Set by `harp-run --local`; read by it as the default of `--libcuda`, where "
    "`soft` is the soft GPU.",
)
HARP_LOCAL_MEMORY = Setting(
    "HARP_LOCAL_MEMORY",
    "all of it",
    PROGRAM,
    "Local mode: bytes of each device's memory that the program may take. Set by `harp-run --local "
    "--memory`; read by it as the default of that, where it may be written like `2GiB`.",
)
HARP_SYNC = Setting(
    "HARP_SYNC",
    "`0`",
    PROGRAM,
    "`1` makes every call wait for its reply: an error is then reported by the call that caused "
    "it. For debugging; slow.",
)
HARP_STATS = Setting(
    "HARP_STATS",
    "`0`",
    PROGRAM,
    "`1` prints a summary on stderr when the program ends: calls sent and waited for, bytes, "
    "TLS version and cipher; then why calls waited, by reason and call, those first that the "
    "program did not ask for. The same as `harp-run --stats`.",
)
HARP_PROFILE = Setting(
    "HARP_PROFILE",
    "`0`",
    PROGRAM,
    "`1` prints on stderr when the program ends what each CUDA call cost, in the form of "
    "`nsys stats`' `cuda_api_sum`, why the program waited, and what it copied in each direction. "
    "The same as `harp-run --profile`.",
)
HARP_TRACE_SOCKET = Setting(
    "HARP_TRACE_SOCKET",
    "nothing is recorded",
    PROGRAM,
    "Where the recorder of this run listens, a socket of packets: each process under it is "
    "recorded from when its session begins. Set by `harp-run --trace`.",
)
HARP_TRACE_PAYLOAD = Setting(
    "HARP_TRACE_PAYLOAD",
    "`images=hash,uploads=shape,downloads=shape`",
    PROGRAM,
    "How much a trace keeps of the data that calls carry: of all of it (`full`, `hash` or "
    "`shape`), or of each class (`images`: code, `uploads`: to devices, `downloads`: from them). "
    "`full` keeps the bytes, `hash` a name for them, `shape` how many there are. The same as "
    "`harp-run --trace-payload`.",
)
HARP_DEVICE_TIMES = Setting(
    "HARP_DEVICE_TIMES",
    "`0`",
    PROGRAM,
    "`1` has the server measure how long launches and copies take on the device, for a trace: two "
    "events of the driver's more for each. The same as `harp-run --device-times`.",
)
HARP_DEDUP = Setting(
    "HARP_DEDUP",
    "`1`",
    PROGRAM,
    "`0` has every image and every payload sent, and nothing of them kept by the server for the "
    "tenant's next programs.",
)
HARP_LOG = Setting(
    "HARP_LOG",
    "`normal`",
    PROGRAM,
    "How much is said on stderr: `quiet` (only what ends a session), `normal` (causes of "
    "failures and unsupported calls, once each) or `debug` (also each connection, and every call "
    "that does not succeed).",
)
HARP_CONNECT_TIMEOUT = Setting(
    "HARP_CONNECT_TIMEOUT",
    "`4`",
    PROGRAM,
    "Seconds that connecting to the server may take, handshake included.",
)
HARP_RESUME_LIMIT = Setting(
    "HARP_RESUME_LIMIT",
    "`30`",
    PROGRAM,
    "Seconds that the program waits for a broken connection to the server to come back before its "
    "calls fail. The server's own bound (`harp server --grace`) counts too.",
)
HARP_SPIN_US = Setting(
    "HARP_SPIN_US",
    "30 to 120, by how long the last wait took; 0 on one core",
    PROGRAM,
    "Microseconds that a waiting call polls its socket before it sleeps. `0` always sleeps.",
)
HARP_SCHEDULER = Setting(
    "HARP_SCHEDULER",
    "`scheduler` of the context",
    RUN,
    "Addresses `HOST:PORT` of the pool's schedulers, separated by commas. `harp-run` then takes a "
    "lease, or uses what is attached to this host. A named server goes before.",
)
HARP_HOST = Setting(
    "HARP_HOST",
    "the machine's host name",
    RUN,
    "This host's name in the pool: `harp-run` uses the leases that are attached to it.",
)
HARP_CONTEXT = Setting(
    "HARP_CONTEXT",
    "`current` of the configuration file",
    RUN,
    "Name of the context (server and credentials) to take from the configuration file.",
)
HARP_CONFIG = Setting(
    "HARP_CONFIG",
    "`$XDG_CONFIG_HOME/harp/config.toml`",
    RUN,
    "The configuration file.",
)
HARP_PTX = Setting(
    "HARP_PTX",
    "`1` where the device is a soft GPU, else `0`",
    RUN,
    "`1` asks client libraries to hand over PTX instead of machine code (for CuPy: "
    "`CUPY_COMPILE_WITH_PTX=1`), `0` does not. A soft GPU needs it: docs/clients-setup.md. The "
    "same as `harp-run --ptx` and `--no-ptx`.",
)
HARP_NATIVE_DIR = Setting(
    "HARP_NATIVE_DIR",
    "inside the installed package",
    RUN,
    "Folder with the native parts: `interposer/libcuda.so.1`, `softgpu/libcuda.so.1`, "
    "`bin/harp-worker`, `bin/harp-gate`, `bin/harp-cache`, `bin/harp-trace`.",
)
HARP_STATE_DIR = Setting(
    "HARP_STATE_DIR",
    "`$XDG_RUNTIME_DIR/harp`, else `harp-UID` in the folder for temporary files",
    RUN,
    "Where an embedded pool keeps the credentials of its one user while it runs, and where "
    "`harp-run` remembers for an hour whether a server's device is a soft GPU. Where it is set, "
    "`harp scheduler`, `harp up` and `harp join` keep what they have there too (else in "
    "`/var/lib/harp` for root, and in `$XDG_STATE_HOME/harp` for others).",
)
HARP_CACHE_DIR = Setting(
    "HARP_CACHE_DIR",
    "`$XDG_CACHE_HOME/harp`",
    RUN,
    "Where embedded pools keep what programs have uploaded, 4 GiB at most, so that it is not "
    "uploaded again the next time.",
)
HARP_SOFT_MEMORY = Setting(
    "HARP_SOFT_MEMORY",
    "`4GiB`",
    SOFT,
    "Memory of each soft device: bytes, or with K, M, G or T (`512M`, `8GiB`).",
)
HARP_SOFT_CC = Setting(
    "HARP_SOFT_CC", "`8.6`", SOFT, "Compute capability that the soft device reports."
)
HARP_SOFT_DEVICES = Setting("HARP_SOFT_DEVICES", "`1`", SOFT, "Number of soft devices.")
HARP_SOFT_THREADS = Setting(
    "HARP_SOFT_THREADS", "all cores", SOFT, "Threads that execute the kernels of a soft device."
)
HARP_SOFT_SERIAL = Setting(
    "HARP_SOFT_SERIAL",
    "`0`",
    SOFT,
    "`1` runs kernels one after the other in the order of their launches, each block by block in "
    "ascending order on one thread: atomics and `printf` then happen in the same order in every "
    "run. Slower; grid-wide synchronisation works.",
)
HARP_SOFT_DRIVER_VERSION = Setting(
    "HARP_SOFT_DRIVER_VERSION",
    "`13000`",
    SOFT,
    "What `cuDriverGetVersion` answers (1000 × major + 10 × minor).",
)

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Setting))


def markdown() -> str:
    """The reference page, docs/environment.md."""
    lines = [
        "# Environment variables",
        "",
        "Generated from `client/src/harp_client/settings.py` by",
        "`harp settings --markdown > docs/environment.md`. A flag of a command wins over the",
        "variable, the variable over the configuration file, the file over the default.",
        "",
    ]
    for reader in (PROGRAM, RUN, SERVER, SOFT):
        rows = [setting for setting in ALL if setting.reader == reader]
        if rows:
            lines += [
                f"## Read by {reader}",
                "",
                "| variable | default | meaning |",
                "|---|---|---|",
            ]
            lines += [f"| `{row.name}` | {row.default} | {row.meaning} |" for row in rows]
            lines.append("")
    return "\n".join(lines)
