"""What a check of `harp doctor` finds, and the checks that every part of a pool needs."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harp_client import endpoint
from harp_client.errors import HarpError
from harp_client.target import EXAMPLE, open_key

if TYPE_CHECKING:
    from cryptography import x509

SOON = 4
"""A certificate that has less than this part of its life left is about to expire."""

CONNECT_SECONDS = 3.0


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    ok: bool
    text: str
    next_step: str = ""


def certificate(
    name: str, folder: Path, file: str, root: str = "ca.pem", how: str = ""
) -> Iterator[Finding]:
    """Checks FOLDER/FILE.pem: that it belongs to FILE.key, that ROOT has issued it, and that it is
    valid now. `how`: to get another one."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization

    try:
        found = x509.load_pem_x509_certificate((folder / f"{file}.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{file}.key").read_bytes(), None)
        roots = x509.load_pem_x509_certificates((folder / root).read_bytes())
    except OSError as error:
        yield Finding(name, False, f"{error.filename}: {error.strerror}", how)
        return
    except (ValueError, TypeError) as error:
        yield Finding(name, False, f"a file of {folder} cannot be read: {error}", how)
        return
    pem = folder / f"{file}.pem"
    encoding = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if found.public_key().public_bytes(*encoding) != key.public_key().public_bytes(*encoding):
        yield Finding(name, False, f"{pem} does not belong to {file}.key", how)
        return
    for one in roots:
        try:
            found.verify_directly_issued_by(one)
            break
        except (ValueError, TypeError, InvalidSignature):
            continue
    else:
        yield Finding(name, False, f"{pem} was not issued by {folder / root}", how)
        return
    yield validity(name, found, how)
    if warning := open_key(str(folder), f"{file}.key"):
        yield failed(name, warning)


def validity(name: str, found: x509.Certificate, how: str) -> Finding:
    """Whether a certificate is valid now, and for how long."""
    from harp_server.ca import identity

    now = datetime.datetime.now(datetime.UTC)
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    whose = identity(found) or found.subject.rfc4514_string()
    if now < begins:
        cause = f"{whose} is valid only from {begins:%Y-%m-%d %H:%M} UTC on"
        return Finding(name, False, cause, "is this machine's clock right? (timedatectl)")
    if now >= ends:
        return Finding(name, False, f"{whose} has expired on {ends:%Y-%m-%d %H:%M} UTC", how)
    left = ends - now
    text = f"{whose}, valid until {ends:%Y-%m-%d %H:%M} UTC"
    return Finding(name, True, text, f"soon: {how}" if left < (ends - begins) / SOON else "")


def reachable(name: str, address: str) -> Finding:
    """Whether something listens at `HOST:PORT`."""
    try:
        socket.create_connection(endpoint.parse(address, EXAMPLE), CONNECT_SECONDS).close()
    except HarpError as error:
        return failed(name, error)
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else error
        return Finding(
            name, False, f"nothing answers at {address}: {cause}", "does it run there? a firewall?"
        )
    return Finding(name, True, f"{address} answers")


def failed(name: str, error: HarpError) -> Finding:
    """What a failure says."""
    return Finding(name, False, error.cause, error.next_step)
