"""Credentials folders: private keys made here, requests for their certificates, and the files.

    user, host   ca.pem, client.pem, client.key
    server       ca.pem, agent.pem, agent.key (towards the scheduler), server.pem, server.key

A key is made when its owner joins and stays as long as it is a member: what is renewed is the
certificate, one file, so that whoever reads the folder meanwhile never sees a key and a certificate
that do not belong together.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harp_client.durable import give_to_owner_of, put_in_place
from harp_client.errors import HarpError
from harp_client.leaf import Leaf

if TYPE_CHECKING:  # each is slow to load, and who only looks at a certificate's times needs none
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from harp_api.control.v1 import join_pb2 as api

CLIENT = {"server": "agent", "host": "client", "user": "client"}
"""What the files are called that show who one is to the scheduler, by role."""

SERVER = "server"
"""What the files of a server's intermediate are called."""

CLOCK_SKEW = datetime.timedelta(hours=12)
"""How long before it is made every certificate of the pool is valid already: so a clock may be as
far behind as it may be ahead, where certificates live for a day and are renewed at half of that."""

CHECK = 30.0
"""Longest time in seconds between looks whether a certificate is to be renewed: the clock may be
set."""

RETRY = 5.0
"""Seconds before another attempt to renew it, where one fails."""


class Keys(NamedTuple):
    """The private keys of one member."""

    client: ec.EllipticCurvePrivateKey
    server: ec.EllipticCurvePrivateKey | None = None

    @classmethod
    def new(cls, role: str) -> Keys:
        """Makes those that a role needs."""
        from cryptography.hazmat.primitives.asymmetric import ec

        curve = ec.SECP256R1()
        server = ec.generate_private_key(curve) if role == "server" else None
        return cls(ec.generate_private_key(curve), server)

    @classmethod
    def load(cls, folder: Path, role: str) -> Keys:
        """Reads those of a folder. Raises HarpError."""
        client = _load_key(folder / f"{CLIENT[role]}.key")
        return cls(client, _load_key(folder / f"{SERVER}.key") if role == "server" else None)

    def requests(self) -> api.Requests:
        """What the pool's authority is to sign."""
        from harp_api.control.v1 import join_pb2 as api  # slow, and embedded pools need it not

        return api.Requests(
            client=_request(self.client), server=_request(self.server) if self.server else b""
        )

    def save(self, folder: Path, role: str) -> None:
        """Writes them, readable by their owner alone."""
        write(folder / f"{CLIENT[role]}.key", _pem(self.client))
        if self.server is not None:
            write(folder / f"{SERVER}.key", _pem(self.server))


def save(folder: Path, role: str, signed: api.Credentials) -> None:
    """Writes the certificates that the pool's authority signed, each file whole or not at all."""
    write(folder / "ca.pem", signed.authority)
    if signed.server:
        write(folder / f"{SERVER}.pem", signed.server)
    write(folder / f"{CLIENT[role]}.pem", signed.client)


@contextlib.contextmanager
def prepared(folder: Path) -> Iterator[Path]:
    """A folder within `folder`, whose files get into that at the end; where anything goes wrong
    before, `folder` stays as it was. Raises OSError, at once where nothing can be written there."""
    import shutil
    import tempfile  # slow to load, and who only reads a folder needs none

    is_new = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        opened = os.open(partial, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            give_to_owner_of(folder, opened)
        finally:
            os.close(opened)
        yield partial
        for path in sorted(partial.iterdir()):
            put_in_place(path, folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # there is something in it, as there should be
                folder.rmdir()


def certificate(path: Path) -> x509.Certificate:
    """Reads one. Raises HarpError."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise HarpError(f"no credentials: {path}: {error.strerror}", "harp join") from error
    except ValueError as error:
        raise HarpError(f"{path} is not a PEM certificate", "harp join") from error


def half_life(found: x509.Certificate | Leaf) -> datetime.datetime:
    """When it is to be renewed."""
    began = found.not_valid_before_utc + CLOCK_SKEW
    return began + (found.not_valid_after_utc - began) / 2


def rest(found: x509.Certificate) -> float:
    """Seconds that a certificate which was just made is left alone, whatever the clock here says:
    one that is ahead by half of its life would have it renewed again and again."""
    life = found.not_valid_after_utc - found.not_valid_before_utc - CLOCK_SKEW
    return life.total_seconds() / 8


def write(path: Path, data: bytes, lasts: bool = True) -> None:
    """Writes a file that only its owner reads, whole or not at all, in a folder of mode 0700.

    Its owner is who writes it; where that is root, the folder's owner, whose service reads it.
    `lasts`: whether it is to be there after the power has failed, which takes time."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    # Never through a link that the folder's owner has put there.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            give_to_owner_of(path.parent, descriptor)
            file.write(data)
        if lasts:
            put_in_place(partial, path)
        else:
            partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise HarpError(f"cannot read {path}: {error.strerror}", "harp join") from error
    except (ValueError, TypeError) as error:
        raise HarpError(f"{path} is not a PEM private key without a passphrase") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HarpError(f"{path} is not an elliptic-curve key")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request for a certificate. It names nobody: the authority decides that."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
