"""The command `harp-run`: runs an unmodified CUDA program on a pooled device.

Kept light: nothing heavier than the standard library is imported on the way to the program.
"""

import contextlib
import getopt
import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from harp_client import __version__, native, program, settings
from harp_client.errors import HarpError, cause_of
from harp_client.target import Flags, Schedulers, Target, choose, open_key, schedulers

HELP = """\
Usage: harp-run [OPTIONS] [--] PROGRAM [ARGUMENTS...]

Runs an unmodified CUDA program on a device of a HARP pool. Without a pool it starts one for this
run alone, with a soft GPU: a device that executes kernels on the CPU.

Which pool:
  -s, --server HOST:PORT   use this pool server; HOST:PORT/0+2 asks for two of its devices. Given
                           again, the program has devices of several servers and numbers them in
                           this order
  -c, --credentials DIR    ca.pem, client.pem and client.key to show it
      --server-name NAME   name that its certificate must carry (default: harp-server)
      --context NAME       a context of the configuration file
      --embedded           start a pool for this run, whatever is configured
      --device DEVICE      device of the embedded pool: soft (default) or the path of a libcuda.so.1
      --direct             no pool: load the soft GPU into the program itself (for development)

No pool, but a driver in the program's own process:
      --local              use this machine's driver
      --libcuda PATH       use this libcuda.so.1; soft is the soft GPU
      --memory SIZE        let the program take no more than this of each device

From a pool with a scheduler (without any of these: all that is attached to this host):
      --scheduler HOST:PORT[,...]  the pool's schedulers
      --gpus N             take a lease on N devices for this run
      --memory SIZE        memory of each (8GiB)
      --compute SHARE      share of each (50%)
      --model NAME[,...]   of one of these models
      --size NAME          a size that the pool's admins have named
      --lease NAME[,...]   of what is attached to this host only these leases, in this order
      --queue-timeout TIME wait for no longer than this (90s, 5m; default: for ever)

How:
      --stats              print calls, bytes and why calls waited at the end
      --trace OUT          record the run in OUT (out.htrace), which must not exist
      --trace-payload WHAT how much of the data that calls carry is kept: full, hash or shape, for
                           all of it or by class (images=full,uploads=full,downloads=hash)
      --trace-max SIZE     let each trace become no larger (8GiB); what comes after that is not kept
      --device-times       have the trace say how long launches and copies took on the device
      --profile            print what each CUDA call cost, why the program waited and what it copied
      --sync               make every call wait for its reply (for debugging)
      --ptx, --no-ptx      ask client libraries for PTX, which a soft GPU needs (default: only
                           where the device is a soft GPU; a server is asked, once an hour)
  -v, --verbose            say what is set and started
  -V, --version            print the version
  -h, --help               print this

Examples:
  harp-run -- python train.py
  harp-run --stats -- ./vector_add
  harp-run --gpus 2 --memory 4GiB -- python train.py
  harp-run --server gpu1:7443 --credentials ~/.config/harp/credentials -- python train.py
  harp-run --server gpu1:7443 --server gpu2:7443/0 -- python train.py
  harp-run --local --stats -- python train.py
  harp-run --local --memory 2GiB --libcuda soft -- ./vector_add

Exit status: the program's; 128+N if signal N ended it; 125 if harp-run itself failed, 126 if the
program cannot be executed, 127 if it is not found. Environment: see docs/environment.md.
"""

WISHES = ("gpus", "memory", "compute", "model", "size", "queue-timeout")
"""Options that ask a scheduler for a lease, in the order of `lease.Wish`."""

SHORT = "s:c:vVh"
LONG = [
    "server=",
    "credentials=",
    "server-name=",
    "context=",
    "embedded",
    "device=",
    "direct",
    "local",
    "libcuda=",
    "scheduler=",
    *(f"{word}=" for word in WISHES),
    "lease=",
    "stats",
    "profile",
    "trace=",
    "trace-payload=",
    "trace-max=",
    "device-times",
    "sync",
    "ptx",
    "no-ptx",
    "verbose",
    "version",
    "help",
]


class Options(NamedTuple):
    """The parsed command line."""

    command: list[str]
    flags: Flags
    embedded: bool
    direct: bool
    local: bool
    libcuda: str | None
    device: str | None
    stats: bool
    profile: bool
    trace: str | None
    trace_payload: str | None
    trace_max: int | None
    device_times: bool
    sync: bool
    ptx: bool | None
    verbose: bool
    wish: tuple[str | None, ...]
    leases: list[str]


def main() -> NoReturn:
    """Entry point of `harp-run`."""
    try:
        _fill_standard_streams()
        status = _run(_parse(sys.argv[1:]))
    except HarpError as error:
        status = _failed(error)
    except KeyboardInterrupt:
        status = 130
    except OSError as error:
        status = _failed(HarpError(cause_of(error), "", 125))
    except Exception as error:  # 1 would be a status of the program
        status = _failed(HarpError(f"{type(error).__name__}: {error}", "report this", 125))
    sys.exit(status)


def _failed(error: HarpError) -> int:
    _tell(error.line("harp-run"))
    return error.exit_code


def _tell(line: str) -> None:
    """Prints a line on stderr, if it can be written into: the program's status is not up to it."""
    try:
        print(line, file=sys.stderr)
    except OSError:
        # The line is still in its buffer. Written once more at the end, it would fail there.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  it is never closed


def _fill_standard_streams() -> None:
    """Sees that no pipe or socket gets the number of a standard stream that is closed.

    The program finds it closed all the same: what stands in its place is closed on exec.
    """
    while (stand_in := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(stand_in)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  it is never closed


def _parse(arguments: list[str]) -> Options:
    """Options up to `--` or the first word that is none; everything after is the program's."""
    try:
        found, command = getopt.getopt(arguments, SHORT, LONG)
    except getopt.GetoptError as error:
        if error.opt == "profile":
            raise _size_asked_by_profile() from None
        raise HarpError(error.msg, "harp-run --help", 125) from None
    values = {name.lstrip("-"): value for name, value in found}
    if "h" in values or "help" in values:
        print(HELP, end="")
        sys.exit(0)
    if "V" in values or "version" in values:
        print(f"harp-run {__version__}")
        sys.exit(0)
    if not command:
        raise HarpError("no program given", "harp-run -- PROGRAM; see harp-run --help", 125)
    if "profile" in values and "--" in command:
        import shutil

        if shutil.which(command[0]) is None:
            raise _size_asked_by_profile()
    servers = [value for name, value in found if name in ("-s", "--server")]
    flags = Flags(
        server=",".join(servers) or None,
        credentials=values.get("c", values.get("credentials")),
        server_name=values.get("server-name"),
        context=values.get("context"),
        scheduler=values.get("scheduler"),
    )
    wish = tuple(values.get(word) for word in WISHES)
    leases = [name for value in values.get("lease", "").split(",") if (name := value.strip())]
    if leases and any(wish):
        raise HarpError("--lease is for what is attached already", "drop it, or the others", 125)
    if (leases or any(wish)) and flags.server:
        raise HarpError("a server takes no leases", "drop --server, or use --scheduler", 125)
    embedded, direct = "embedded" in values, "direct" in values
    if (embedded or direct) and (any(flags) or any(wish) or leases):
        word = "--direct" if direct else "--embedded"
        raise HarpError(f"{word} uses no running pool", f"drop {word} or the server's options", 125)
    if direct and ("profile" in values or "trace" in values):
        instead = "use --local --libcuda soft, which is the same behind the interposer"
        raise HarpError("nothing looks at calls under --direct", instead, 125)
    for word in ("trace-payload", "trace-max", "device-times"):
        if word in values and "trace" not in values:
            raise HarpError(f"--{word} is for --trace", "add --trace OUT", 125)
    if "device" in values and direct:
        raise HarpError("--device is for the embedded pool", "drop --direct or --device", 125)
    if "local" in values:
        _check_local(values, flags)
    elif "libcuda" in values:
        raise HarpError("--libcuda is for local mode", "add --local or drop --libcuda", 125)
    return Options(
        command=command,
        flags=flags,
        embedded=embedded,
        direct=direct,
        local="local" in values,
        libcuda=values.get("libcuda"),
        device=values.get("device"),
        stats="stats" in values,
        profile="profile" in values,
        trace=values.get("trace"),
        trace_payload=values.get("trace-payload"),
        trace_max=_trace_max(values.get("trace-max")),
        device_times="device-times" in values,
        sync="sync" in values,
        ptx=True if "ptx" in values else False if "no-ptx" in values else None,
        verbose="v" in values or "verbose" in values,
        wish=wish,
        leases=leases,
    )


@contextlib.contextmanager
def _own_failures() -> Iterator[None]:
    """What is wrong in the block is a failure of `harp-run`, not of the program: status 125."""
    try:
        yield
    except HarpError as error:
        raise HarpError(error.cause, error.next_step, 125) from None


def _trace_max(text: str | None) -> int | None:
    """Bytes that a trace may have; None: as many as it takes. Raises HarpError."""
    if text is None:
        return None
    from harp_client.quantities import size
    from harp_client.recorder import SMALLEST

    with _own_failures():
        most = size(text)
    if most < SMALLEST:
        raise HarpError(f"no trace has room in {text}", "--trace-max 1MiB or more", 125)
    return most


def _size_asked_by_profile() -> HarpError:
    """`--profile NAME` was once how a lease's size was named."""
    return HarpError(
        "--profile takes no name: it prints what the CUDA calls cost",
        "--size NAME for a size that the pool's admins have named",
        125,
    )


def _check_local(values: dict[str, str], flags: Flags) -> None:
    """Refuses what is for a pool beside `--local`."""
    for word in ("embedded", "direct", "device", "sync", "lease", *WISHES):
        if word in values and word != "memory":
            instead = {
                "device": "name the driver with --libcuda",
                "sync": "set CUDA_LAUNCH_BLOCKING=1 for what it is to a driver",
            }.get(word, f"drop --local or --{word}")
            raise HarpError(f"--{word} is not for --local", instead, 125)
    if any(flags):
        raise HarpError("--local uses no pool", "drop --local or the pool's options", 125)


def _run(options: Options) -> int:
    environ = dict(os.environ)
    parts = native.find(environ)
    if options.trace is not None:
        from harp_client import recorder

        recorder.check(options.trace)
        _payload(options, environ)
    if options.local:
        return _run_local(options, parts, environ)
    environ.pop(settings.HARP_LIBCUDA.name, None)
    pool = None if options.embedded or options.direct else schedulers(options.flags, environ)
    if pool is None and (options.leases or any(options.wish)):
        raise HarpError(
            "a lease needs a scheduler", "add --scheduler HOST:PORT, or name it in the context", 125
        )
    named = not (options.embedded or options.direct or pool)
    target = choose(options.flags, environ) if named else None
    if target is not None and options.device is not None:
        raise HarpError("--device is for the embedded pool", "add --embedded or drop --device", 125)
    # A program that uses the pool never runs inside an outer harp-run's preload.
    environ = native.without_preload(environ)
    _ask_for_words(options, environ)
    if options.sync:
        environ[settings.HARP_SYNC.name] = "1"
    if options.direct:
        _say(options, "direct: the soft GPU runs inside the program")
        native.preload(parts.softgpu, environ)
        _ask_for_ptx(options, environ, soft=lambda: True)
        return program.run(options.command, environ)
    if pool is not None:
        return _run_leased(pool, options, parts, environ)
    if target is not None:
        if warning := open_key(target.credentials):
            _tell(warning.line("harp-run"))
        return _run_at(target, options, parts, environ)
    return _run_embedded(options.device or "soft", options, parts, environ)


def _run_embedded(
    device: str, options: Options, parts: native.NativeParts, environ: dict[str, str]
) -> int:
    from harp_client.pool import EmbeddedPool

    embedded = EmbeddedPool(device, options.verbose, environ)
    try:
        return _run_at(embedded.target, options, parts, environ)
    finally:
        embedded.close()


def _run_local(options: Options, parts: native.NativeParts, environ: dict[str, str]) -> int:
    from harp_client import local_driver, quantities

    environ = native.without_preload(environ)
    driver = local_driver.choose(options.libcuda, parts, environ)
    if options.trace is not None:
        return _record_local(driver, options, parts, environ)
    _say(options, f"local: calls go to {driver}, in the program's own process")
    environ[settings.HARP_LIBCUDA.name] = driver
    limit = options.wish[WISHES.index("memory")] or settings.HARP_LOCAL_MEMORY.get(environ)
    if limit is not None:
        with _own_failures():
            environ[settings.HARP_LOCAL_MEMORY.name] = str(quantities.size(limit))
    _ask_for_words(options, environ)
    native.preload(parts.interposer, environ)
    _ask_for_ptx(options, environ, soft=lambda: os.path.samefile(driver, parts.softgpu))
    return program.run(options.command, environ)


def _ask_for_words(options: Options, environ: dict[str, str]) -> None:
    """Has the program say at its end what is wanted."""
    for option, setting in (
        (options.stats, settings.HARP_STATS),
        (options.profile, settings.HARP_PROFILE),
    ):
        if option:
            environ[setting.name] = "1"


def _record_local(
    driver: str, options: Options, parts: native.NativeParts, environ: dict[str, str]
) -> int:
    """What is recorded is what passes to a pool, so the program gets one over that driver."""
    if options.wish[WISHES.index("memory")]:
        raise HarpError("--memory is not kept while a trace is recorded", "drop one of them", 125)
    soft = os.path.samefile(driver, parts.softgpu)
    shown = "the soft GPU" if soft else driver
    _tell(f"harp-run: recording on a pool for this run alone, over {shown}")
    environ.pop(settings.HARP_LIBCUDA.name, None)
    _ask_for_words(options, environ)
    return _run_embedded("soft" if soft else driver, options, parts, environ)


def _run_leased(
    pool: Schedulers, options: Options, parts: native.NativeParts, environ: dict[str, str]
) -> int:
    from harp_client.attendant import NotReady
    from harp_client.lease import RunLease, Wish

    if options.device is not None:
        raise HarpError("--device is for the embedded pool", "add --embedded or drop --device", 125)
    try:
        lease = RunLease(pool, Wish(*options.wish), options.leases, environ)
    except NotReady:
        raise SystemExit(125) from None
    for line in lease.left_out:
        _say(options, f"not used, though attached to this host: lease {line}")
    try:
        return _run_at(lease.target, options, parts, environ)
    finally:
        lease.close()


def _run_at(
    target: Target, options: Options, parts: native.NativeParts, environ: dict[str, str]
) -> int:
    _say(options, f"pool server {target.server}, credentials {target.credentials}")
    native.preload(parts.interposer, environ)
    environ.update(target.environment())
    _ask_for_ptx(options, environ, soft=lambda: _is_soft(target, options, parts, environ))
    if options.trace is None:
        return program.run(options.command, environ)
    return _run_recorded(options.trace, options, parts, environ)


def _payload(options: Options, environ: dict[str, str]) -> dict[str, str]:
    """How much of the payloads the trace keeps. Raises HarpError."""
    from harp_client.recorder import policies

    with _own_failures():
        return policies(options.trace_payload or settings.HARP_TRACE_PAYLOAD.get(environ))


def _run_recorded(
    out: str, options: Options, parts: native.NativeParts, environ: dict[str, str]
) -> int:
    """Runs the program with a recorder, and says what has been recorded."""
    from harp_client.recorder import Recorder

    recorder = Recorder(out, _payload(options, environ), options.trace_max, parts, environ)
    try:
        more = {settings.HARP_DEVICE_TIMES.name: "1"} if options.device_times else {}
        return program.run(options.command, environ | recorder.environment | more)
    finally:
        try:
            lines = recorder.close()
        except (OSError, ValueError):  # it was killed, and what it said is cut off
            lines = ["the recorder was ended before it had said what it has recorded"]
        for line in lines:
            _tell(f"harp-run: {line}")


def _is_soft(
    target: Target, options: Options, parts: native.NativeParts, environ: dict[str, str]
) -> bool:
    if target.ptx is not None:
        return target.ptx
    from harp_client import device_kind

    soft = device_kind.is_soft(target, parts.interposer, environ)
    if soft is None:
        _say(options, "the server's device is not known yet; --ptx if it is a soft GPU")
    return soft is True


PTX_VARIABLES = {"CUPY_COMPILE_WITH_PTX": "1"}
"""What makes client libraries hand over PTX; docs/clients-setup.md says more about each."""


def _ask_for_ptx(options: Options, environ: dict[str, str], soft: Callable[[], bool]) -> None:
    """Sets what makes clients hand over PTX, if that is wanted or the device is `soft`.

    They read it when they are imported, so it has to be known before the program starts.
    """
    wanted = options.ptx
    if wanted is None and settings.HARP_PTX.get(environ) is not None:
        wanted = settings.HARP_PTX.is_on(environ)
    missing = {name: value for name, value in PTX_VARIABLES.items() if name not in environ}
    if not missing or not (soft() if wanted is None else wanted):
        return
    for name, value in missing.items():
        environ[name] = value
        _say(options, f"set {name}={value}: a soft GPU executes PTX, not machine code")


def _say(options: Options, text: str) -> None:
    if options.verbose:
        _tell(f"harp-run: {text}")
