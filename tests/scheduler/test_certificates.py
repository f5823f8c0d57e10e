"""Certificates in a pool's real processes: how they are renewed, and revoked."""

from __future__ import annotations

import asyncio
import datetime
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.x509 import Certificate

from harp_client.credentials import certificate
from harp_scheduler.service import process
from harp_scheduler.service.members import KEPT, SWEEP, Lives, Members, Signed
from harp_scheduler.service.process import Certificate as Shown
from harp_scheduler.store.store import Store
from harp_server import rotation
from harp_server.ca import Authority, save_user
from scheduler.cluster import BOUND, Cluster, end, first_line
from scheduler.test_joining import refused

LIFE = "40s"
"""Of certificates that are to be renewed while a test runs, on a machine that may be busy."""

HOUR = datetime.timedelta(hours=1)
ALICE = "spiffe://lab/tenant/default/user/alice"


def test_what_has_long_expired_is_forgotten(tmp_path: Path) -> None:
    store, authority = Store.open(f"sqlite:///{tmp_path / 'pool.db'}"), Authority.create("lab")
    members = Members(authority, store, ThreadPoolExecutor(1), Lives())
    now = datetime.datetime.now(datetime.UTC)
    for name, until in (("old", now - KEPT - HOUR), ("late", now - KEPT + HOUR)):
        store.record_certificate(name, ALICE, until)
        store.create_token("user", expires=until, now=until - HOUR, creator=ALICE, name=name)
    signed = Signed(b"", authority.issue_user("default", "alice").certificate, None)
    asyncio.run(members.load())
    for swept, kept in ((now, ["old", "late"]), (now - SWEEP - HOUR, ["late"])):
        members._swept = swept
        members.record(signed, ())
        assert [token.name for token in store.tokens()] == kept
        assert [known.serial for known in store.certificates()][: len(kept)] == kept
        assert members._known == {known.serial for known in store.certificates()}
        signed = Signed(b"", authority.issue_user("default", "alice").certificate, None)
    store.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A pool that nobody but its admin has joined, with a server's credentials made by hand."""
    cluster = Cluster(tmp_path, is_new=True)
    yield cluster
    cluster.close()


def serial(path: Path) -> int:
    return certificate(path).serial_number


def has_expired(path: Path) -> bool:
    return certificate(path).not_valid_after_utc < datetime.datetime.now(datetime.UTC)


def test_certificates_are_renewed_and_nothing_is_dropped(cluster: Cluster) -> None:
    cluster.scheduler("scheduler", "--member-life", LIFE, "--user-life", LIFE)

    def join(role: str, name: str, into: str) -> Path:
        joined = cluster.join(cluster.token("--role", role), into, "--name", name)
        assert joined.returncode == 0, joined.stderr
        return cluster.folder / into

    folder = join("server", "gpu1", "servers/gpu1")
    first = {name: (folder / name).read_bytes() for name in ("agent.pem", "server.pem")}
    (cluster.folder / "first.pem").write_bytes(first["agent.pem"])
    cluster.server("gpu1", 2)
    web1 = join("host", "web1", "web1")
    hosts = serial(web1 / "client.pem")
    host = ["host", "--scheduler", cluster.addresses["scheduler"]]
    cluster.start("web1", [*host, "--credentials", str(web1)])
    key = (join("user", "alice", "alice") / "client.key").read_bytes()
    join("user", "bob", "bob")
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")

    users = cluster.folder / "alice" / "client.pem"
    before = serial(users)

    def renewed_in_passing() -> bool:
        assert cluster.harp("get", "devices", user="alice").returncode == 0
        return serial(users) != before

    cluster.wait(renewed_in_passing, "the user's certificate is renewed", 60)
    assert (cluster.folder / "alice" / "client.key").read_bytes() == key

    cluster.wait(
        lambda: has_expired(cluster.folder / "first.pem"), "the first ones have expired", 60
    )
    assert all((folder / name).read_bytes() != pem for name, pem in first.items())
    cluster.wait(
        lambda: has_expired(cluster.folder / "bob" / "client.pem"), "bob's has expired", 60
    )
    late = cluster.harp("get", "devices", user="bob")
    refused(late, 4, "expired at")
    assert "join again" in late.stderr
    # What begins now is served with the new certificates, and what ran went on.
    assert end(cluster.run("--gpus", "1"))[0] == 0
    assert end(program)[:2] == (0, "ended")
    assert serial(cluster.folder / "web1" / "client.pem") != hosts
    assert "certificate renewed" in cluster.log("gpu1")
    assert "out of reach" not in cluster.log("gpu1")
    cluster.kill("web1", signal.SIGTERM)


def test_a_revoked_user_is_out_at_once_until_he_joins_again(cluster: Cluster) -> None:
    cluster.scheduler("scheduler", "--pool", "lab")
    cluster.server("gpu1")
    token = cluster.token("--role", "user", "--name", "alice", "--uses", "2")
    assert cluster.join(token, "alice").returncode == 0
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")
    revoked = cluster.harp("revoke", ALICE)
    assert revoked.stdout == f"{ALICE}: 1 certificates and 0 tokens revoked\n", revoked.stderr
    refused(cluster.harp("get", "devices", user="alice"), 4, "the certificate was revoked")
    assert end(program)[1].startswith("failed")
    assert "the certificate of its user was revoked" in cluster.log("gpu1")
    cluster.wait(lambda: not cluster.get("lease"), "the lease is taken back")
    assert cluster.join(token, "alice", "--replace").returncode == 0
    program = cluster.run("--gpus", "1")
    assert end(program)[0] == 0


def test_certificates_that_were_made_by_hand_can_be_revoked_too(cluster: Cluster) -> None:
    cluster.scheduler("scheduler", "--pool", "lab")
    authority = Authority.load(cluster.ca)
    user = authority.issue_user("default", "carol")
    save_user(cluster.folder / "carol", authority.trusted_pem(), user)
    assert cluster.harp("get", "devices", user="carol").returncode == 0
    carol = "spiffe://lab/tenant/default/user/carol"
    cluster.wait(lambda: ": 1 cert" in cluster.harp("revoke", carol).stdout, "it is known")
    refused(cluster.harp("get", "devices", user="carol"), 4, "the certificate was revoked")

    cluster.server("gpu1")
    assert cluster.harp("revoke", "spiffe://lab/server/gpu1").returncode == 0
    gone = lambda: not any(s["connected"] for s in cluster.get("server"))  # noqa: E731
    cluster.wait(gone, "the server is cut off")
    cluster.wait(lambda: "the certificate was revoked" in cluster.log("gpu1"), "it is told why")


def test_a_revoked_server_has_nothing_any_more(cluster: Cluster) -> None:
    cluster.scheduler("scheduler", "--pool", "lab")
    for name in ("gpu1", "gpu2"):
        joined = cluster.join(cluster.token("--role", "server"), f"servers/{name}", "--name", name)
        assert joined.returncode == 0, joined.stderr
        cluster.server(name)
    assert cluster.join(cluster.token("--role", "user"), "alice", "--name", "alice").returncode == 0
    words = ("--tenant", "default", "--user", "alice", "--wait")
    for name in ("one", "two"):
        assert cluster.harp("attach", "web1", "--name", name, *words).returncode == 0
    devices = {lease["name"]: lease["targets"][0]["device"] for lease in cluster.get("lease")}
    assert devices == {"one": "gpu1/0", "two": "gpu2/0"}
    program = cluster.run(host="web1")
    assert first_line(program) == "using 2"

    assert cluster.harp("revoke", "spiffe://lab/server/gpu1").returncode == 0
    two, one = (cluster.get("lease", name)[0] for name in ("two", "one"))
    assert (one["state"], one["reason"]) == ("Lost", "server gpu1 was revoked")
    assert two["state"] in ("InUse", "Available")
    status, out, error = end(program)
    assert (status, out) == (3, "failed 46")
    assert "the pool trusts this server no more: its certificate was revoked" in error
    program = cluster.run("-v", host="web1")
    assert first_line(program) == "using 1"
    assert "lease one: Lost, server gpu1 was revoked" in end(program)[2]

    # Started again it still is not trusted, whoever asks it.
    direct = {"HARP_SCHEDULER": "", "HARP_SERVER": f"{one['id']}@{cluster.addresses['gpu1']}"}
    cluster.kill("gpu1", signal.SIGTERM)
    listen = ("--listen", cluster.addresses["gpu1"], "--scheduler", *cluster.schedulers)
    folder = cluster.folder / "servers" / "gpu1"
    cluster.start("gpu1", ["server", "--credentials", str(folder), *listen])
    cluster.own_environ["away"] = direct
    assert "its certificate was revoked" in end(cluster.run(host="away"))[2]

    # With a token it may come back, and the lease gets its device again.
    cluster.kill("gpu1", signal.SIGTERM)
    token = cluster.token("--role", "server", "--name", "gpu1")
    joined = cluster.join(token, "servers/gpu1", "--name", "gpu1", "--replace")
    assert joined.returncode == 0, joined.stderr
    cluster.server("gpu1")
    assert cluster.harp("start", "one", "--tenant", "default").returncode == 0
    cluster.wait(lambda: cluster.get("lease", "one")[0]["state"] == "Available", "it is back")
    assert end(cluster.run(host="web1"))[:2] == (0, "using 2\nended")


def test_the_root_is_changed_while_everybody_goes_on(cluster: Cluster) -> None:
    cluster.scheduler("scheduler", "--pool", "lab", "--member-life", LIFE, "--user-life", LIFE)
    folder, alice = cluster.folder / "servers" / "gpu1", cluster.folder / "alice"
    joined = cluster.join(cluster.token("--role", "server"), "servers/gpu1", "--name", "gpu1")
    assert joined.returncode == 0, joined.stderr
    cluster.server("gpu1", 2)
    token = cluster.token("--role", "user", "--name", "alice")
    assert cluster.join(token, "alice").returncode == 0
    program = cluster.run("--gpus", "1")
    assert first_line(program).startswith("using")
    old = certificate(cluster.ca / "ca.pem")

    def trusted(number: int) -> bool:
        assert cluster.harp("get", "devices", user="alice").returncode == 0
        found = [(each / "ca.pem").read_bytes().count(b"BEGIN") for each in (folder, alice)]
        return found == [number, number]

    def signed_by_the_new_one() -> bool:
        assert cluster.harp("get", "devices", user="alice").returncode == 0
        root = certificate(cluster.ca / "ca.pem")
        used = [folder / "server.pem", folder / "agent.pem", alice / "client.pem"]
        return {is_issued_by(certificate(path), root) for path in used} == {True}

    rotate = ("ca", "rotate", str(cluster.ca))
    refused(cluster.harp(*rotate, "--switch"), 5, "no rotation was begun")
    assert cluster.harp(*rotate).returncode == 0
    refused(cluster.harp(*rotate), 5, "a rotation is under way")
    refused(cluster.harp(*rotate, "--switch"), 5, "not everybody has renewed before")
    refused(cluster.harp(*rotate, "--finish", "--after", "0s"), 5, "no new root signs")
    cluster.wait(lambda: trusted(2), "both roots are trusted", 90)
    assert cluster.harp(*rotate, "--switch", "--after", "0s").returncode == 0
    assert certificate(cluster.ca / "ca.pem") != old
    cluster.wait(signed_by_the_new_one, "the new root has signed everything", 90)
    assert end(cluster.run("--gpus", "1"))[0] == 0
    assert cluster.harp(*rotate, "--finish", "--after", "0s").returncode == 0
    cluster.wait(lambda: trusted(1), "the old root is trusted no more", 90)
    assert end(cluster.run("--gpus", "1"))[0] == 0
    assert end(program)[:2] == (0, "ended")
    assert "out of reach" not in cluster.log("gpu1")


def is_issued_by(one: Certificate, root: Certificate) -> bool:
    try:
        one.verify_directly_issued_by(root)
    except InvalidSignature:
        return False
    return True


def test_grpc_is_given_a_certificate_only_where_it_has_to_be_another() -> None:
    """What it had before is freed under the handshakes that have begun with it."""
    authority = Authority.create("lab")
    lasting, used_up = Shown(authority, "scheduler"), Shown(authority, "scheduler", HOUR * 0)
    for shown in (lasting, used_up):
        assert shown.another() is not None
    assert [lasting.another() for _ in range(3)] == [None] * 3
    assert None not in [used_up.another() for _ in range(3)]
    lasting.use(authority)
    assert lasting.another() is not None
    assert lasting.another() is None


class Said:
    """A log of which a test sees what was said."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.changed = asyncio.Event()

    def error(self, event: str, cause: str, **_: object) -> None:
        self.errors.append(f"{event}: {cause}")

    def info(self, event: str, **_: object) -> None:
        self.changed.set()


def test_an_authority_that_cannot_be_read_is_said_once_and_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "AUTHORITY_AGAIN", 0.0)
    authority, ca = Authority.create("lab"), tmp_path / "ca"
    authority.save(ca)
    store, log = Store.open(f"sqlite:///{tmp_path / 'pool.db'}"), Said()
    settings = process.Settings("127.0.0.1:0", authority, ca=ca)
    scheduler = process.Scheduler(settings, store, log)  # type: ignore[arg-type]
    (ca / "trusted.pem").mkdir()

    async def run() -> None:
        watching = asyncio.create_task(scheduler._watch_authority())
        async with asyncio.timeout(BOUND):
            while not log.errors:
                await asyncio.sleep(0)
            for _ in range(3 * process.AUTHORITY_FAILS):
                await asyncio.sleep(0)
            (ca / "trusted.pem").rmdir()
            rotation.begin(ca)
            await log.changed.wait()
        watching.cancel()

    asyncio.run(run())
    store.close()
    assert log.errors == [f"authority not read: cannot read {ca / 'trusted.pem'}: Is a directory"]


def test_only_admins_revoke(cluster: Cluster) -> None:
    cluster.scheduler("scheduler", "--pool", "lab")
    token = cluster.token("--role", "user", "--name", "alice")
    assert cluster.join(token, "alice").returncode == 0
    bob = "spiffe://lab/tenant/default/user/bob"
    refused(cluster.harp("revoke", bob, user="alice"), 4, "is not admin of tenant default")
    refused(cluster.harp("revoke", "bob"), 4, "bob names nobody of this pool")
