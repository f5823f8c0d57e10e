"""Folders of this machine: for what lives as long as the user is logged in (embedded pools, what
servers are), and for what a pool keeps.

Standard library only, and little of it: `harp-run` starts through here.
"""

import os
import stat
from collections.abc import Mapping

from harp_client import settings
from harp_client.errors import HarpError


def folder(environ: Mapping[str, str] = os.environ) -> str:
    """HARP_STATE_DIR, else `harp` in XDG_RUNTIME_DIR, else `harp-UID` in the folder for temporary
    files; made with mode 0700 where it is missing.

    Raises HarpError when it cannot be made or is somebody else's.
    """
    chosen = settings.HARP_STATE_DIR.get(environ)
    runtime = environ.get("XDG_RUNTIME_DIR")
    if chosen:
        base = chosen
    elif runtime and os.access(runtime, os.W_OK):
        base = os.path.join(runtime, "harp")
    else:
        base = os.path.join(environ.get("TMPDIR") or "/tmp", f"harp-{os.getuid()}")
    advice = f"set {settings.HARP_STATE_DIR.name} to a folder of yours"
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        status = os.lstat(base)
        # In a shared folder for temporary files somebody else may have made it first.
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise HarpError(f"{base} belongs to somebody else", advice)
        os.chmod(base, 0o700)
    except OSError as error:
        raise HarpError(f"cannot make {base}: {error.strerror}", advice) from error
    return base


def cache(environ: Mapping[str, str] = os.environ) -> str:
    """HARP_CACHE_DIR, else `harp` in XDG_CACHE_HOME: what can be had again. It is not made here."""
    chosen = settings.HARP_CACHE_DIR.get(environ)
    if chosen:
        return os.path.abspath(chosen)
    home = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "harp")


def kept(environ: Mapping[str, str] = os.environ) -> str:
    """HARP_STATE_DIR, else /var/lib/harp for root, else `harp` in XDG_STATE_HOME: what outlives a
    restart of the machine. It is not made here."""
    chosen = settings.HARP_STATE_DIR.get(environ)
    if chosen:
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return "/var/lib/harp"
    home = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "harp")
