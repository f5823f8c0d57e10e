"""The certificate authority: who its certificates let in, by an independent verifier."""

import contextlib
import datetime
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import verification

from harp_client.credentials import write
from harp_client.errors import HarpError
from harp_client.target import SERVER_NAME
from harp_server import rotation
from harp_server.ca import Authority, SessionIssuer, identity, save_user

OWNER = 60_000
"""Whose folder it is: nobody of this machine."""


def chain_of(text: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(text.encode())


def verify_as_client(
    authority: Authority, chain: list[x509.Certificate], name: str = SERVER_NAME
) -> list[x509.Certificate]:
    """What a client does with the server's chain: chain, usage, validity, DNS name."""
    store = verification.Store([authority.root.certificate])
    verifier = verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name))
    return verifier.verify(chain[0], chain[1:])


def verify_as_server(
    authority: Authority, chain: list[x509.Certificate]
) -> verification.VerifiedClient:
    """What a worker does with the client's certificate."""
    store = verification.Store([authority.root.certificate])
    return (
        verification.PolicyBuilder()
        .store(store)
        .build_client_verifier()
        .verify(chain[0], chain[1:])
    )


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("lab")


def test_session_chain_verifies_for_the_pools_name_only(authority: Authority) -> None:
    chain = chain_of(authority.issue_server("gpu1").issue("abc123")[0])
    assert len(verify_as_client(authority, chain)) == 3
    assert identity(chain[0]) == "spiffe://lab/session/abc123"
    assert identity(chain[1]) == "spiffe://lab/server/gpu1"
    with pytest.raises(verification.VerificationError):
        verify_as_client(authority, chain, "elsewhere")


def test_session_leaf_lives_a_day_and_is_new_each_time(authority: Authority) -> None:
    issuer = authority.issue_server("gpu1")
    first, second = (chain_of(issuer.issue(name)[0])[0] for name in ("a", "b"))
    assert first.public_key() != second.public_key()
    assert first.serial_number != second.serial_number
    life = first.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(hours=23) < life <= datetime.timedelta(hours=24)


def test_user_verifies_as_client_and_not_as_server(authority: Authority) -> None:
    user = authority.issue_user("research", "alice").certificate
    verified = verify_as_server(authority, [user])
    assert verified.subjects is not None
    assert identity(user) == "spiffe://lab/tenant/research/user/alice"
    with pytest.raises(verification.VerificationError):
        verify_as_client(authority, [user])


def test_another_pools_certificates_are_refused(authority: Authority) -> None:
    other = Authority.create("lab")
    with pytest.raises(verification.VerificationError):
        verify_as_client(authority, chain_of(other.issue_server("gpu1").issue("a")[0]))
    with pytest.raises(verification.VerificationError):
        verify_as_server(authority, [other.issue_user("t", "u").certificate])


def test_a_servers_key_cannot_mint_users(authority: Authority) -> None:
    """A stolen intermediate is limited to server use."""
    intermediate = authority.issue_server("gpu1").intermediate
    forged = Authority("lab", intermediate).issue_user("research", "mallory").certificate
    with pytest.raises(verification.VerificationError):
        verify_as_server(authority, [forged, intermediate.certificate])


def test_a_servers_key_cannot_mint_servers(authority: Authority) -> None:
    """The path length of an intermediate is 0."""
    intermediate = authority.issue_server("gpu1").intermediate
    deeper = Authority("lab", intermediate).issue_server("gpu2")
    chain = [*chain_of(deeper.issue("a")[0]), intermediate.certificate]
    with pytest.raises(verification.VerificationError):
        verify_as_client(authority, chain)


def test_files_are_private_and_load_again(authority: Authority, tmp_path: Path) -> None:
    authority.save(tmp_path / "ca")
    loaded = Authority.load(tmp_path / "ca")
    assert loaded == Authority(authority.pool, loaded.root)
    loaded.issue_server("gpu1").save(tmp_path / "server")
    save_user(tmp_path / "user", authority.root.certificate_pem(), loaded.issue_user("t", "u"))
    assert SessionIssuer.load(tmp_path / "server").pool == "lab"
    for file in tmp_path.rglob("*.*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700, file.parent


def test_credentials_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[tuple[bool, str]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        is_named = (tmp_path / "ca.key").exists()
        stored.append((is_named, path.read_text() if path.is_file() else path.name))

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "ca.key", b"secret")
    assert stored == [(False, "secret"), (True, tmp_path.name)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_writes_is_its_folders_owners(authority: Authority, tmp_path: Path) -> None:
    authority.save(tmp_path)
    for path in (tmp_path, *tmp_path.iterdir()):
        os.chown(path, OWNER, OWNER)
    rotation.begin(tmp_path)
    rotation.switch(tmp_path, datetime.timedelta())
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {OWNER}
    # Nor does it follow what the owner puts in its way.
    elsewhere, link = tmp_path / "elsewhere", tmp_path / f".trusted.pem.{os.getpid()}"
    link.symlink_to(elsewhere)
    write(tmp_path / "trusted.pem", b"new")
    assert not elsewhere.exists()


@pytest.mark.parametrize("cut_off", range(5))
def test_both_roots_are_trusted_at_any_moment_of_a_switch(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off: int
) -> None:
    authority.save(tmp_path)
    rotation.begin(tmp_path)
    both = roots(Authority.load(tmp_path).trusted_pem())
    for name in (rotation.TRUSTED, rotation.NEXT_CERTIFICATE, rotation.NEXT_KEY):
        os.utime(tmp_path / name, (0, 0))
    left = [write] * cut_off

    def write_or_end(path: Path, data: bytes) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()(path, data)

    monkeypatch.setattr(rotation, "write", write_or_end)
    with contextlib.suppress(KeyboardInterrupt):
        rotation.switch(tmp_path, datetime.timedelta(days=7))
    signing = (tmp_path / "ca.pem").read_bytes() + (tmp_path / rotation.TRUSTED).read_bytes()
    assert roots(signing) == both
    monkeypatch.undo()
    if (tmp_path / rotation.NEXT_KEY).exists():
        rotation.switch(tmp_path, datetime.timedelta(days=7))
    switched = Authority.load(tmp_path)
    assert switched.root.certificate != authority.root.certificate
    assert switched.also_trusted == authority.root.certificate_pem()
    rotation.finish(tmp_path, datetime.timedelta())
    assert Authority.load(tmp_path).trusted_pem() == switched.root.certificate_pem()


def roots(pem: bytes) -> set[x509.Certificate]:
    return set(x509.load_pem_x509_certificates(pem))


def test_an_authority_is_not_overwritten(authority: Authority, tmp_path: Path) -> None:
    authority.save(tmp_path)
    before = (tmp_path / "ca.key").read_bytes()
    with pytest.raises(HarpError, match="already holds an authority"):
        Authority.create("lab").save(tmp_path)
    assert (tmp_path / "ca.key").read_bytes() == before


@pytest.mark.parametrize("name", ["", "Alice", "a/b", "-a", "a b", "a" * 64])
def test_names_that_do_not_fit_an_identity_are_refused(authority: Authority, name: str) -> None:
    with pytest.raises(HarpError, match="cannot name a user"):
        authority.issue_user("research", name)


def test_server_credentials_are_checked_when_loaded(authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    with pytest.raises(HarpError, match="no server credentials"):
        SessionIssuer.load(folder)
    authority.issue_server("gpu1").save(folder)
    (folder / "ca.pem").write_bytes(Authority.create("lab").root.certificate_pem())
    with pytest.raises(HarpError, match="was not issued by"):
        SessionIssuer.load(folder)
    user = authority.issue_user("t", "u")
    (folder / "ca.pem").write_bytes(authority.root.certificate_pem())
    (folder / "server.pem").write_bytes(user.certificate_pem())
    with pytest.raises(HarpError, match="does not belong to"):
        SessionIssuer.load(folder)
    (folder / "server.key").write_bytes(user.key_pem())
    with pytest.raises(HarpError, match="cannot sign sessions"):
        SessionIssuer.load(folder)
