"""The faults that a person may meet: what is seen, what it means, what to do.

docs/faults.md is made of this table (`make generate`), and the tests of this folder bring each fault
about and hold what is seen against it.
"""

# ruff: noqa: E501 (sentences, as they are printed)
from __future__ import annotations

import re
from typing import NamedTuple

CONNECT = "Before there is a session"
LOST = "While the program runs"
DEVICE = "What kernels and calls do wrong"
SERVER = "On the server"
LOCAL = "In local mode"
RECORDING = "While a run is recorded"

NO_DEVICE = "CUDA_ERROR_NO_DEVICE"
UNAVAILABLE = "CUDA_ERROR_DEVICE_UNAVAILABLE"


class Fault(NamedTuple):
    """One fault. In `line` each `…` stands for what differs from case to case."""

    key: str
    section: str
    happens: str
    line: str
    """What is printed, once; empty where CUDA's code alone tells."""
    code: str
    """What the program gets, or the exit status of a command that does not start it."""
    meaning: str
    action: str

    def matches(self, text: str) -> bool:
        """Whether `text` is this fault's line."""
        parts = map(re.escape, self.line.split("…"))
        return re.fullmatch(".+?".join(parts), text) is not None


FAULTS = (
    Fault(
        "no_server",
        CONNECT,
        "Nothing listens at the server's address",
        "harp: cannot use the pool server …: connection refused: nothing listens there. Next: start "
        "`harp server` there, or correct HOST:PORT",
        NO_DEVICE,
        "The machine answers, but no server runs at this port.",
        "Start the server, or correct the address.",
    ),
    Fault(
        "silent_server",
        CONNECT,
        "The server does not answer",
        "harp: cannot use the pool server …: timed out waiting for … Next: check the network and the "
        "server, or correct HOST:PORT",
        NO_DEVICE,
        "Something took the connection, or swallowed it, and says nothing within "
        "HARP_CONNECT_TIMEOUT.",
        "Look for a firewall or a stopped server.",
    ),
    Fault(
        "server_clock",
        CONNECT,
        "The clocks differ",
        "harp: cannot use the pool server …: the server's certificate is valid from … UTC on, and "
        "this machine's clock says … UTC: the clocks of the two differ by at least …. Next: set the "
        "clocks of both machines right",
        NO_DEVICE,
        "The server makes a certificate for each session, valid from a few minutes before its own "
        "now. By this machine's clock that time has not come.",
        "Set the clocks (NTP does it for good).",
    ),
    Fault(
        "server_expired",
        CONNECT,
        "The server's certificate has expired",
        "harp: cannot use the pool server …: the server's certificate expired … ago, at … UTC, by "
        "this machine's clock. Next: check this machine's clock; if it is right, issue the server's "
        "credentials anew (`harp ca server`)",
        NO_DEVICE,
        "A server's credentials last for a limited time, and a server refuses to start with expired "
        "ones; a clock that is ahead looks the same.",
        "Issue new ones and restart the server, or set this machine's clock.",
    ),
    Fault(
        "client_expired",
        CONNECT,
        "The user's certificate has expired",
        "harp: cannot use the pool server …: the client's certificate in client.pem expired … ago, at "
        "… UTC. Next: ask the pool's admin for new credentials (`harp ca user`)",
        NO_DEVICE,
        "A user's credentials last as long as `harp ca user --days` said.",
        "Get new ones.",
    ),
    Fault(
        "client_not_yet_valid",
        CONNECT,
        "The user's certificate is not valid yet",
        "harp: cannot use the pool server …: the client's certificate in client.pem is valid from … "
        "UTC on, and this machine's clock says … UTC: it is behind by at least …. Next: set the "
        "clocks of both machines right",
        NO_DEVICE,
        "The machine that issued it was ahead of this one and of the server.",
        "Set the clocks.",
    ),
    Fault(
        "clocks_differ",
        CONNECT,
        "The server's clock is wrong",
        "harp: cannot use the pool server …: the server takes the client's certificate for expired or "
        "not yet valid, but it is valid from … UTC to … UTC and this machine's clock says … UTC: the "
        "clocks of the two differ by at least …. Next: set the clocks of both machines right",
        NO_DEVICE,
        "Both look at the same dates and disagree about today.",
        "Set the clocks.",
    ),
    Fault(
        "wrong_authority",
        CONNECT,
        "The credentials are those of another pool",
        "harp: cannot use the pool server …: the server's certificate was not issued by the authority "
        "in ca.pem. Next: use the credentials that this server's pool issued (`harp ca user`)",
        NO_DEVICE,
        "The server belongs to another authority than the credentials.",
        "Use the folder that the admin of this server made.",
    ),
    Fault(
        "stranger",
        CONNECT,
        "The certificate was issued by somebody else",
        "harp: cannot use the pool server …: the server's pool has not issued the client's "
        "certificate in client.pem. Next: use the credentials that this server's pool issued "
        "(`harp ca user`)",
        NO_DEVICE,
        "ca.pem is the pool's, client.pem is not: files of two folders were mixed.",
        "Copy the whole folder again.",
    ),
    Fault(
        "wrong_name",
        CONNECT,
        "The server has another name",
        'harp: cannot use the pool server …: the server\'s certificate is not for "…" but for …. '
        "Next: correct --server-name",
        NO_DEVICE,
        "`--server-name` (HARP_SERVER_NAME) asks for a name that the certificate does not carry.",
        "Leave it out.",
    ),
    Fault(
        "version",
        CONNECT,
        "Client and server are of versions that do not work together",
        "harp: cannot use the pool server …: the server speaks version … of the protocol and this "
        "client version …. Next: install equal or neighbouring versions on both sides",
        NO_DEVICE,
        "Equal major numbers and minor numbers that differ by at most one work together.",
        "Update the older side.",
    ),
    Fault(
        "full",
        CONNECT,
        "All sessions are in use",
        "harp: cannot use the pool server …: the server gives no session: all … sessions of the server are in use. "
        "Next: try again when others have finished, or ask the server's admin for more (`harp server "
        "--max-sessions`)",
        NO_DEVICE,
        "Every process that uses the device is a session.",
        "Wait, or raise the limit.",
    ),
    Fault(
        "malformed_pem",
        CONNECT,
        "A file of the credentials is damaged",
        "harp: cannot use the pool server …: the client's credentials are unusable: …. Next: ask the "
        "pool's admin for new credentials (`harp ca user`)",
        NO_DEVICE,
        "A file does not hold what its name says.",
        "Copy the folder again.",
    ),
    Fault(
        "no_credentials",
        CONNECT,
        "A file of the credentials is missing or cannot be read",
        "harp-run: no credentials for …: …. Next: `harp ca user CA_DIR NAME` makes such a folder; "
        "name it with --credentials",
        "exit status 125",
        "`harp-run` looks before it starts the program.",
        "Correct --credentials, or the permissions of the folder.",
    ),
    Fault(
        "open_key",
        CONNECT,
        "Others can read the private key",
        "harp-run: every user of this machine can read …. Next: chmod 600 …",
        "the program runs",
        "Whoever reads the key can use the pool in your name.",
        "Take the permissions away; if the machine has other users, ask for new credentials.",
    ),
    Fault(
        "no_such_device",
        CONNECT,
        "`--server HOST:PORT/2` asks for a device that the server does not have",
        "harp: the pool server … has no device …, or it is named twice: see HARP_SERVER",
        NO_DEVICE,
        "A server numbers the devices that it offers from 0.",
        "Correct the number; `harp doctor` lists the devices of a server.",
    ),
    Fault(
        "server_killed",
        LOST,
        "The server is killed, stops, or restarts",
        "harp: the connection to the pool server is lost: …; every CUDA call now returns "
        "CUDA_ERROR_DEVICE_UNAVAILABLE, start the program again once `harp doctor` finds the server",
        UNAVAILABLE,
        "The session's device memory lived in the server's process and is gone with it. No server "
        "that starts afterwards can bring it back.",
        "Start the program again, from its last checkpoint if it has one.",
    ),
    Fault(
        "worker_killed",
        LOST,
        "The session's worker is killed",
        "harp: the connection to the pool server is lost: …; every CUDA call now returns "
        "CUDA_ERROR_DEVICE_UNAVAILABLE, start the program again once `harp doctor` finds the server",
        UNAVAILABLE,
        "The process that executed this session's calls was killed: by a person, by the kernel for "
        "want of memory (the server's log and `dmesg` say so), or by a crash of the driver. Other "
        "sessions do not notice.",
        "Read the server's log for the session's end, then start the program again.",
    ),
    Fault(
        "one_of_two_lost",
        LOST,
        "One of the servers whose devices a program uses is lost",
        "harp: the connection to the pool server … is lost: …; every CUDA call about its devices now "
        "returns CUDA_ERROR_DEVICE_UNAVAILABLE, start the program again once `harp doctor` finds the "
        "server",
        UNAVAILABLE,
        "As if the server were the only one, for its devices. The program can go on with those of the "
        "other servers.",
        "Start the program again if it needs all of them.",
    ),
    Fault(
        "out_of_memory",
        DEVICE,
        "The device has no memory left",
        "",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "Told by the allocation itself, never later. After a free an allocation works again, which "
        "is what CuPy and PyTorch rely on.",
        "Use less, or ask for a larger device.",
    ),
    Fault(
        "illegal",
        DEVICE,
        "A kernel touches memory that is not there",
        "",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "Sticks: every call of this process returns it from then on, as with NVIDIA's driver; a reset does not help, a new process does. The server's log "
        "(for an embedded pool: the terminal) names kernel, line, block and thread.",
        "Correct the kernel; HARP_SYNC=1 makes the faulty launch itself fail.",
    ),
    Fault(
        "misaligned",
        DEVICE,
        "A kernel uses an address that its type does not allow",
        "",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "Sticks, as above.",
        "Correct the kernel.",
    ),
    Fault(
        "assertion",
        DEVICE,
        "An assertion in a kernel fails",
        "…: block: […], thread: […] Assertion `…` failed.",
        "CUDA_ERROR_ASSERT",
        "Sticks, as above. The line is CUDA's own, one for each thread in which it fails.",
        "Read the assertion.",
    ),
    Fault(
        "trap",
        DEVICE,
        "A kernel traps",
        "",
        "CUDA_ERROR_LAUNCH_FAILED",
        "Sticks, as above. A `trap` instruction, which compilers also put where nothing should get "
        "to.",
        "Correct the kernel.",
    ),
    Fault(
        "overflow",
        DEVICE,
        "Calls in a kernel nest too deeply",
        "",
        "CUDA_ERROR_LAUNCH_FAILED",
        "Sticks, as above.",
        "Bound the recursion, or raise cudaLimitStackSize.",
    ),
    Fault(
        "unsupported",
        DEVICE,
        "The program makes a call that HARP does not carry",
        "harp: … is not supported here (the program gets CUDA_ERROR_NOT_SUPPORTED)",
        "CUDA_ERROR_NOT_SUPPORTED",
        "Named once. `cuGetProcAddress` says that such a call is not there, so most programs take "
        "another way without a word.",
        "Look into [coverage.md](coverage.md).",
    ),
    Fault(
        "machine_code",
        DEVICE,
        "The program has machine code only, and the device is soft",
        "harp: the image holds machine code for … and no PTX; the soft GPU executes PTX. …",
        "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "A soft GPU executes PTX.",
        "Build with PTX (nvcc does by default), or use `harp-run --ptx` for CuPy.",
    ),
    Fault(
        "bad_image",
        DEVICE,
        "A module's image is damaged",
        "harp: the image is corrupt (…)",
        "CUDA_ERROR_INVALID_IMAGE",
        "What was loaded is no fatbin, cubin or PTX, or is cut short.",
        "Build it again.",
    ),
    Fault(
        "bad_ptx",
        DEVICE,
        "A module's PTX is wrong",
        "",
        "CUDA_ERROR_INVALID_PTX",
        "The compiler's messages are in the error log that the program can ask for "
        "(CU_JIT_ERROR_LOG_BUFFER), with the line.",
        "Read the log.",
    ),
    Fault(
        "port_in_use",
        SERVER,
        "The port is taken",
        "harp: cannot listen on …: Address already in use. Next: choose another --listen HOST:PORT",
        "exit status 1",
        "Another process listens there.",
        "Choose another port, or end that process.",
    ),
    Fault(
        "server_pem",
        SERVER,
        "A file of the server's credentials is damaged",
        "harp: … is not a PEM certificate. Next: harp join makes such a folder (or harp ca server): "
        "ca.pem, server.pem, server.key",
        "exit status 1",
        "A file does not hold what its name says.",
        "Copy the folder again.",
    ),
    Fault(
        "state_damaged",
        SERVER,
        "What a server has stored of its leases is damaged",
        "harp: …leases.json is not what this server has stored of its leases: …. Next: move it away: "
        "no session begins before the scheduler has given its orders anew",
        "exit status 1",
        "The file keeps which orders are too old to be taken after a restart. It is written whole or "
        "not at all: a disk has failed, or somebody has changed it. Without it the server takes the "
        "first orders that come.",
        "Look after the disk; move the file away and start the server.",
    ),
    Fault(
        "disk_full",
        SERVER,
        "The disk that the log goes to is full",
        "",
        "sessions go on",
        "Lines that cannot be written are counted, and told as soon as there is room again (`log "
        "lines lost`). Nothing else of a server is written to disk while it runs.",
        "Make room.",
    ),
    Fault(
        "no_driver",
        LOCAL,
        "`--libcuda` names something else than a driver",
        "harp-run: … is no driver: …. Next: name a libcuda.so.1, or soft",
        "exit status 125",
        "`harp-run` looks before it starts the program. Without `--libcuda` it takes the machine's "
        "own driver, and says so where there is none.",
        "Name the driver's libcuda.so.1, or `soft`.",
    ),
    Fault(
        "driver_lost",
        LOCAL,
        "The driver cannot be loaded into the program",
        "harp: cannot load …: …. Next: name a driver with harp-run --local --libcuda PATH, or take "
        "the soft GPU with --libcuda soft",
        NO_DEVICE,
        "What the dynamic loader says stands in the middle. The program's first CUDA call finds out.",
        "Repair the driver's installation, or name another.",
    ),
    Fault(
        "driver_lacks",
        LOCAL,
        "The program makes a call that its driver does not have",
        "harp: this driver has no … (the program gets CUDA_ERROR_NOT_SUPPORTED)",
        "CUDA_ERROR_NOT_SUPPORTED",
        "The driver is older than the call. Named once; `cuGetProcAddress` says that it is not there.",
        "Use a newer driver.",
    ),
    Fault(
        "trace_exists",
        RECORDING,
        "There is a file where the trace is to be",
        "harp-run: … exists. Next: name another file, or remove it",
        "exit status 125",
        "`harp-run --trace` overwrites nothing.",
        "Name another file, or remove that one.",
    ),
    Fault(
        "recorder_gone",
        RECORDING,
        "The recorder of the run is gone",
        "harp: nothing of this process is recorded: its recorder cannot be reached: …; have the program "
        "that harp-run starts wait for its children",
        "the program runs",
        "The process has outlived the `harp-run --trace` that it was started under.",
        "Have the program wait for its children.",
    ),
)


def fault(key: str) -> Fault:
    """The fault of this name."""
    return next(fault for fault in FAULTS if fault.key == key)


def page() -> str:
    """docs/faults.md."""
    lines = [
        "# Faults",
        "",
        "What you see when something goes wrong, what it means and what to do. Generated from",
        "`tests/faults/catalogue.py` by `make generate`; the tests bring each of these about.",
        "",
        "A fault is told in one line on stderr, once, and the program gets CUDA's own code. `…` stands",
        "for names, addresses and numbers. Where no line is shown, the code is the message.",
        "",
    ]
    for section in dict.fromkeys(fault.section for fault in FAULTS):
        lines += [f"## {section}", ""]
        for fault in FAULTS:
            if fault.section != section:
                continue
            lines += [f"### {fault.happens}", ""]
            if fault.line:
                lines += ["```text", fault.line, "```", ""]
            result = f"`{fault.code}`" if fault.code.startswith("CUDA_") else fault.code
            lines += (
                [f"The program gets: {result}."] if "CUDA_" in result else [f"Result: {result}."]
            )
            lines += ["", fault.meaning, "", f"**What to do:** {fault.action}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
