"""The pool's small certificate authority.

    root (ca.pem)
    ├── server intermediate   signs sessions of one server; path length 0, server use only
    │   └── session leaf      made for one session by that server's agent, 24 hours
    ├── agent leaf            that server's agent towards the scheduler, client use only
    ├── host leaf             the agent of a host, client use only
    ├── scheduler leaf        a scheduler towards everybody, server use only
    └── user leaf             a person or a service of a tenant, client use only

Identities are SPIFFE URIs in the certificates. A server intermediate is limited to server use and
to the DNS names of sessions, so that a stolen one can mint neither users nor schedulers: verifiers
check the usage of every certificate of a chain, and the names that it is limited to.
"""

import datetime
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harp_client.credentials import CLOCK_SKEW, write
from harp_client.errors import HarpError
from harp_client.target import SCHEDULER_NAME, SERVER_NAME

ROOT_DAYS = 3650
SERVER_DAYS = 365
USER_DAYS = 365
SESSION_HOURS = 24
REVOKED = "the certificate was revoked"
"""What a scheduler tells whoever shows it a certificate that counts no more."""

REQUEST_MAX = 4096
"""Bytes of a request for a certificate."""

PublicKey = ec.EllipticCurvePublicKey
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
"""What can stand in an identity: of a pool, its members, its tenants and what they name."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        return pem(self.certificate)

    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @classmethod
    def load(cls, certificate: Path, key: Path) -> "KeyPair":
        """Reads both files. Raises HarpError naming the one that does not serve."""
        try:
            loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        except OSError as error:
            raise HarpError(f"cannot read {certificate}: {error.strerror}") from error
        except ValueError as error:
            raise HarpError(f"{certificate} is not a PEM certificate") from error
        try:
            private = serialization.load_pem_private_key(key.read_bytes(), None)
        except OSError as error:
            raise HarpError(f"cannot read {key}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise HarpError(f"{key} is not a PEM private key without a passphrase") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise HarpError(f"{key} is not an elliptic-curve key")
        if private.public_key() != loaded.public_key():
            raise HarpError(f"{key} does not belong to {certificate}")
        return cls(loaded, private)


@dataclass(frozen=True, slots=True)
class SessionIssuer:
    """What one server needs: the root to check users by, and its own intermediate."""

    pool: str
    root_pem: bytes
    intermediate: KeyPair
    agent: KeyPair | None = None
    """What its agent shows the scheduler; None where it serves without one."""

    @property
    def name(self) -> str:
        """The server's name in the pool."""
        return identity(self.intermediate.certificate).rpartition("/")[2]

    @property
    def serials(self) -> frozenset[str]:
        """Serial numbers of its certificates, in hexadecimal digits."""
        own = [self.intermediate] if self.agent is None else [self.intermediate, self.agent]
        return frozenset(f"{pair.certificate.serial_number:x}" for pair in own)

    def issue(self, session: str, names: Sequence[str] = ()) -> tuple[str, str]:
        """A fresh leaf for `session`: (certificate chain, private key), both PEM text.

        Its DNS names are the one of every server, the one that a client asks for to resume this
        session, and `names`.
        """
        key = _new_key()
        leaf = _certificate(
            issuer=self.intermediate,
            key=key.public_key(),
            common_name=f"session {session}",
            uri=f"spiffe://{self.pool}/session/{session}",
            dns=(SERVER_NAME, f"{session}.{SERVER_NAME}", *names),
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            lifetime=datetime.timedelta(hours=SESSION_HOURS),
        )
        chain = pem(leaf) + self.intermediate.certificate_pem()
        return chain.decode("ascii"), KeyPair(leaf, key).key_pem().decode("ascii")

    def save(self, folder: Path) -> None:
        """Writes a server's credentials folder: ca.pem, server.pem, server.key, and for its agent
        agent.pem and agent.key."""
        write(folder / "ca.pem", self.root_pem)
        write(folder / "server.pem", self.intermediate.certificate_pem())
        write(folder / "server.key", self.intermediate.key_pem())
        if self.agent is not None:
            write(folder / "agent.pem", self.agent.certificate_pem())
            write(folder / "agent.key", self.agent.key_pem())

    @classmethod
    def load(cls, folder: Path) -> "SessionIssuer":
        """Reads a server's credentials folder and checks that it is one and is still valid."""
        how = "harp join makes such a folder (or harp ca server): ca.pem, server.pem, server.key"
        try:
            root_pem = (folder / "ca.pem").read_bytes()
            roots = x509.load_pem_x509_certificates(root_pem)
            intermediate = KeyPair.load(folder / "server.pem", folder / "server.key")
            agent = None
            if (folder / "agent.key").exists():
                agent = KeyPair.load(folder / "agent.pem", folder / "agent.key")
        except OSError as error:
            raise HarpError(f"no server credentials in {folder}: {error.strerror}", how) from error
        except ValueError as error:
            raise HarpError(f"{folder / 'ca.pem'} is not a PEM certificate", how) from error
        except HarpError as error:
            raise HarpError(error.cause, how) from error
        certificate = intermediate.certificate
        if not any(_is_issued_by(certificate, root) for root in roots):
            raise HarpError(f"{folder / 'server.pem'} was not issued by {folder / 'ca.pem'}", how)
        if not _is_authority(certificate):
            raise HarpError(
                f"{folder / 'server.pem'} cannot sign sessions: it is not a server's", how
            )
        ended = certificate.not_valid_after_utc
        if ended <= datetime.datetime.now(datetime.UTC):
            raise HarpError(f"{folder / 'server.pem'} expired on {ended:%F at %T} UTC", how)
        return cls(_pool_of(certificate), root_pem, intermediate, agent)


@dataclass(frozen=True, slots=True)
class Authority:
    """The root of one pool."""

    pool: str
    root: KeyPair
    also_trusted: bytes = b""
    """PEM of the other root while one takes the place of the other (harp_server.rotation)."""

    @classmethod
    def create(cls, pool: str) -> "Authority":
        """A new root for the pool named `pool` (its SPIFFE trust domain)."""
        pool = _label(pool, "pool")
        key = _new_key()
        root = _certificate(
            issuer=None,
            key=key,
            common_name=f"HARP pool {pool}",
            uri=f"spiffe://{pool}",
            path_length=1,
            lifetime=datetime.timedelta(days=ROOT_DAYS),
        )
        return cls(pool, KeyPair(root, key))

    @classmethod
    def load(cls, folder: Path) -> "Authority":
        """Reads ca.pem, ca.key and, while a root takes the place of another, trusted.pem. Raises
        HarpError."""
        try:
            root = KeyPair.load(folder / "ca.pem", folder / "ca.key")
        except HarpError as error:
            raise HarpError(error.cause, f"harp ca create {folder}") from error
        other = folder / "trusted.pem"
        try:
            also_trusted = other.read_bytes() if other.exists() else b""
        except OSError as error:
            raise HarpError(f"cannot read {other}: {error.strerror}") from error
        return cls(_pool_of(root.certificate), root, also_trusted)

    def save(self, folder: Path) -> None:
        """Writes ca.pem and ca.key; refuses to overwrite another authority."""
        if (folder / "ca.key").exists():
            raise HarpError(
                f"{folder} already holds an authority",
                "choose another folder: everything issued by the old one would stop working",
            )
        write(folder / "ca.pem", self.root.certificate_pem())
        write(folder / "ca.key", self.root.key_pem())

    def issue_server(self, name: str) -> SessionIssuer:
        """Keys and certificates for the server called `name`, made here."""
        key, agent_key = _new_key(), _new_key()
        life = datetime.timedelta(days=SERVER_DAYS)
        signed = self.sign_server(name, key.public_key(), life)
        agent = self.sign_agent(name, agent_key.public_key(), life)
        return SessionIssuer(
            self.pool, self.trusted_pem(), KeyPair(signed, key), KeyPair(agent, agent_key)
        )

    def issue_scheduler(
        self, name: str, life: datetime.timedelta, skew: datetime.timedelta = CLOCK_SKEW
    ) -> KeyPair:
        """A server certificate for the scheduler called `name`, valid since `skew` before now."""
        key = _new_key()
        signed = _certificate(
            issuer=self.root,
            key=key.public_key(),
            common_name=f"HARP scheduler {name}",
            uri=f"spiffe://{self.pool}/scheduler/{name}",
            dns=(SCHEDULER_NAME,),
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            lifetime=life,
            skew=skew,
        )
        return KeyPair(signed, key)

    def issue_user(self, tenant: str, user: str, days: int = USER_DAYS) -> KeyPair:
        """Key and certificate for `user` of `tenant`, made here."""
        key = _new_key()
        life = datetime.timedelta(days=days)
        return KeyPair(self.sign_user(tenant, user, key.public_key(), life), key)

    def sign_server(self, name: str, key: PublicKey, life: datetime.timedelta) -> x509.Certificate:
        """The intermediate of the server called `name`."""
        return _certificate(
            issuer=self.root,
            key=key,
            common_name=f"HARP server {_label(name, 'server')}",
            uri=f"spiffe://{self.pool}/server/{name}",
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            path_length=0,
            lifetime=life,
        )

    def sign_agent(self, server: str, key: PublicKey, life: datetime.timedelta) -> x509.Certificate:
        """What a server's agent shows the scheduler."""
        name = _label(server, "server")
        return self._sign_client(f"agent of {name}", f"server/{name}", key, life)

    def sign_host(self, name: str, key: PublicKey, life: datetime.timedelta) -> x509.Certificate:
        """What the agent of a host shows the scheduler."""
        return self._sign_client(f"host {_label(name, 'host')}", f"host/{name}", key, life)

    def sign_user(
        self, tenant: str, user: str, key: PublicKey, life: datetime.timedelta
    ) -> x509.Certificate:
        """What `user` of `tenant` shows the scheduler and servers."""
        tenant, user = _label(tenant, "tenant"), _label(user, "user")
        return self._sign_client(f"{user} of {tenant}", f"tenant/{tenant}/user/{user}", key, life)

    def _sign_client(
        self, common_name: str, path: str, key: PublicKey, life: datetime.timedelta
    ) -> x509.Certificate:
        return _certificate(
            issuer=self.root,
            key=key,
            common_name=common_name,
            uri=f"spiffe://{self.pool}/{path}",
            usage=ExtendedKeyUsageOID.CLIENT_AUTH,
            lifetime=life,
        )

    def derive(self, *words: str) -> bytes:
        """32 secret bytes that only who has the root's key can make of these words."""
        key = self.root.key.private_numbers().private_value.to_bytes(32)
        said = b"".join(len(word.encode()).to_bytes(4) + word.encode() for word in words)
        return HKDF(hashes.SHA256(), 32, salt=b"harp", info=said).derive(key)

    def fingerprint(self) -> str:
        """SHA-256 of the root that signs, as join tokens have it."""
        return self.root.certificate.fingerprint(hashes.SHA256()).hex()

    def trusted_pem(self) -> bytes:
        """The certificates that members of the pool trust."""
        return self.root.certificate_pem() + self.also_trusted


def requested_key(request: bytes) -> PublicKey:
    """The key of a request for a certificate (PKCS #10, DER), which whoever made it holds.

    Nothing else in it counts. Raises HarpError where it is none, or not for a P-256 key.
    """
    what = HarpError("this is no request for a certificate of a P-256 key")
    if len(request) > REQUEST_MAX:
        raise what
    try:
        found = x509.load_der_x509_csr(request)
        key = found.public_key()
        signed = found.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise what from error
    if not signed or not isinstance(key, PublicKey) or key.curve.name != "secp256r1":
        raise what
    return key


def save_user(folder: Path, root_pem: bytes, user: KeyPair, lasts: bool = True) -> None:
    """Writes a user's credentials folder: ca.pem, client.pem, client.key. `lasts`: see `write`."""
    write(folder / "ca.pem", root_pem, lasts)
    write(folder / "client.pem", user.certificate_pem(), lasts)
    write(folder / "client.key", user.key_pem(), lasts)


def identity(certificate: x509.Certificate) -> str:
    """The SPIFFE URI of a certificate, or ''."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _certificate(
    *,
    issuer: KeyPair | None,
    key: PublicKey | ec.EllipticCurvePrivateKey,
    common_name: str,
    uri: str,
    lifetime: datetime.timedelta,
    dns: Sequence[str] = (),
    usage: x509.ObjectIdentifier | None = None,
    path_length: int | None = None,
    skew: datetime.timedelta = CLOCK_SKEW,
) -> x509.Certificate:
    """The certificate of `key`; without an issuer it signs itself, and has to be private.

    `path_length` set means: an authority; with a usage, one of sessions' names alone. A certificate
    never outlives its issuer; where that has ended by the clock here, which may be wrong, whoever
    is shown the certificate judges. `skew`: how long before now it is valid.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    until = now + lifetime
    if issuer is not None:
        until = min(until, issuer.certificate.not_valid_after_utc)
    is_authority = path_length is not None
    public = key if isinstance(key, PublicKey) else key.public_key()
    signer = key if issuer is None else issuer.key
    assert not isinstance(signer, PublicKey)
    alternative: list[x509.GeneralName] = [*map(x509.DNSName, dns)]
    alternative.append(x509.UniformResourceIdentifier(uri))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.certificate.subject)
        .public_key(public)
        .serial_number(int.from_bytes(secrets.token_bytes(16)) >> 1 or 1)
        .not_valid_before(min(now, until) - skew)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(is_authority, path_length), critical=True)
        .add_extension(_key_usage(is_authority), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if is_authority:
            names = x509.NameConstraints([x509.DNSName(SERVER_NAME)], None)
            builder = builder.add_extension(names, critical=True)
    return builder.sign(signer, hashes.SHA256())


def _key_usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_issued_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _pool_of(certificate: x509.Certificate) -> str:
    uri = identity(certificate)
    if not uri.startswith("spiffe://"):
        raise HarpError("the certificate names no pool (it has no spiffe:// identity)")
    return uri.removeprefix("spiffe://").partition("/")[0]


def _label(text: str, what: str) -> str:
    """`text` if it can stand in a SPIFFE path or trust domain."""
    if not NAME.fullmatch(text):
        raise HarpError(
            f"{text!r} cannot name a {what}",
            "use lower-case letters and digits, and '.', '_' or '-' between them",
            2,
        )
    return text
