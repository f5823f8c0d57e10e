"""Tokens let in as often as they say; roles and certificates are kept."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from sqlalchemy import select

from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import TokenRefused
from harp_scheduler.store.identities import Certificate, RoleBinding, Token
from harp_scheduler.store.schema import tokens
from harp_scheduler.store.store import Store

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOLD = [AuditEntry("admin", "test", "subject")]


def create(store: Store, uses: int = 1, **more: object) -> tuple[Token, str]:
    return store.create_token(
        "server", expires=NOW + HOUR, now=NOW, creator="admin", uses=uses, **more
    )  # type: ignore[arg-type]


def test_a_token_lets_in_once(store: Store) -> None:
    token, secret = create(store, name="gpu1", labels=(("rack", "7"),), audit=TOLD)
    taken = store.take_token(token.id, secret, NOW, TOLD)
    assert taken == token
    assert (taken.role, taken.name, taken.labels) == ("server", "gpu1", (("rack", "7"),))
    with pytest.raises(TokenRefused, match="used up"):
        store.take_token(token.id, secret, NOW, TOLD)
    assert [left.uses_left for left in store.tokens()] == [0]
    assert len(list(store.audit())) == 2, "one creation, one use, and no refusal"


def test_of_many_that_take_it_at_once_as_many_get_in_as_it_has_uses(
    url: str, open_store: Callable[[str], Store]
) -> None:
    stores = [open_store(url) for _ in range(5)]
    token, secret = create(stores[0], uses=3)

    def take(store: Store) -> bool:
        try:
            store.take_token(token.id, secret, NOW)
        except TokenRefused:
            return False
        return True

    with ThreadPoolExecutor(5) as threads:
        taken = list(threads.map(take, stores * 2))
    assert taken.count(True) == 3


def test_a_wrong_secret_is_told_nothing(store: Store) -> None:
    token, secret = create(store)
    other, _ = create(store)
    store.revoke_token(other.id)
    for name, said in ((token.id, "0" * 64), (other.id, secret), ("none", secret), (token.id, "")):
        with pytest.raises(TokenRefused, match="no such join token"):
            store.take_token(name, said, NOW)
    assert store.take_token(token.id, secret, NOW) == token


def test_a_token_ends_by_time_and_by_word(store: Store) -> None:
    (token, secret), (revoked, other) = create(store), create(store)
    with pytest.raises(TokenRefused, match="expired at 2026-11-26 13:00:00 UTC"):
        store.take_token(token.id, secret, NOW + HOUR)
    assert store.take_token(token.id, secret, NOW + HOUR - timedelta.resolution) == token
    assert store.revoke_token(revoked.id)
    assert not store.revoke_token("none")
    with pytest.raises(TokenRefused, match="was revoked"):
        store.take_token(revoked.id, other, NOW)
    assert store.forget_tokens(NOW) == 0
    assert store.forget_tokens(NOW + 2 * HOUR) == 2
    assert store.tokens() == []


def test_looking_at_a_token_does_not_use_it_up(store: Store) -> None:
    token, secret = create(store)
    assert store.check_token(token.id, secret, NOW) == token
    assert store.check_token(token.id, secret, NOW) == token
    with pytest.raises(TokenRefused, match="no such join token"):
        store.check_token(token.id, "0" * 64, NOW)
    store.take_token(token.id, secret, NOW)
    with pytest.raises(TokenRefused, match="used up"):
        store.check_token(token.id, secret, NOW)


def told(verb: str, subject: str, request: str) -> AuditEntry:
    return AuditEntry(caller="root", verb=verb, subject=subject, tenant="", request=request)


def test_an_identity_is_revoked_with_the_tokens_that_it_has_made(store: Store) -> None:
    (first, secret), (second, _) = create(store), create(store)
    other, others = store.create_token("host", expires=NOW + HOUR, now=NOW, creator="bob")
    store.revoke_token(second.id)
    store.record_certificate(f"{1:040x}", "admin", NOW + HOUR)
    revoking = told("revoke identity", "admin", "one")
    assert store.revoke_identity(revoking) == (1, 1)
    with pytest.raises(TokenRefused, match="was revoked"):
        store.take_token(first.id, secret, NOW)
    assert store.take_token(other.id, others, NOW) == other
    # The same request again gets the same answer, and leaves nothing in the audit; another finds
    # nothing to revoke.
    rows = store.audited()
    assert store.revoke_identity(revoking) == (1, 1)
    assert store.audited() == rows
    assert store.revoke_identity(told("revoke identity", "admin", "two")) == (0, 0)
    assert store.verify_audit() is None


def test_no_secret_is_stored(store: Store, url: str) -> None:
    _, secret = create(store)
    assert len(bytes.fromhex(secret)) == 32
    database = Database(url)
    with database.reading() as connection:
        (row,) = connection.execute(select(tokens))
    database.close()
    assert secret not in str(row)


def test_roles_are_bound_once_per_tenant(store: Store) -> None:
    store.bind_role("alice", "viewer")
    store.bind_role("alice", "operator", "research", TOLD)
    store.bind_role("bob", "user", "research")
    store.bind_role("alice", "admin", "research")
    assert store.roles("alice") == [
        RoleBinding("alice", "*", "viewer"),
        RoleBinding("alice", "research", "admin"),
    ]
    assert len(store.roles()) == 3
    taking = told("revoke role", "alice", "one")
    assert store.unbind_role("alice", "research", [taking])
    assert store.unbind_role("alice", "research", [taking]), "the same request again"
    assert not store.unbind_role("alice", "research", [told("revoke role", "alice", "two")])
    assert store.roles("alice") == [RoleBinding("alice", "*", "viewer")]
    with pytest.raises(ValueError, match="no role 'root'"):
        store.bind_role("alice", "root")


def test_certificates_are_revoked_by_identity(store: Store) -> None:
    serials = (f"{number:040x}" for number in count(1))
    for identity, valid in (("server/a", HOUR), ("server/a", 2 * HOUR), ("server/b", HOUR)):
        store.record_certificate(next(serials), identity, NOW + valid)
    assert [known.serial[-1] for known in store.certificates("server/a")] == ["1", "2"]
    assert store.revoke_certificates("server/a") == 2
    assert store.revoke_certificates("server/a") == 0
    assert store.certificates("server/b") == [
        Certificate(f"{3:040x}", "server/b", NOW + HOUR, False)
    ]
    assert store.revoked_serials(NOW) == {f"{1:040x}", f"{2:040x}"}
    assert store.revoked_serials(NOW + HOUR) == {f"{2:040x}"}
    forgotten = store.forget_certificates(NOW + HOUR + timedelta.resolution)
    assert forgotten == {f"{1:040x}", f"{3:040x}"}
    assert [known.serial[-1] for known in store.certificates()] == ["2"]
