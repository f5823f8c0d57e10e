"""A pool from nothing: its first start, tokens, and joining, by the commands that people use."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harp_client import credentials
from harp_client.errors import HarpError
from harp_client.joining import Door, JoinToken
from harp_client.scheduler import OPTIONS
from harp_scheduler.service import process
from harp_scheduler.store.store import Store
from harp_server.ca import Authority
from harp_server.logs import Log
from pool.standins import HARP, HARP_RUN, wait_until
from scheduler.clock import WallClock
from scheduler.cluster import BOUND, PROGRAM, Cluster, JoinCommand

HOUR = 3600


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler that has just been started for the first time."""
    cluster = Cluster(tmp_path, is_new=True)
    cluster.scheduler("scheduler", "--pool", "lab", "--workload", f"{tmp_path}/workload.jsonl")
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same, for tests that only ask who may join."""
    cluster = Cluster(tmp_path_factory.mktemp("pool"), is_new=True)
    cluster.scheduler("scheduler", "--pool", "lab")
    yield cluster
    cluster.close()


def refused(done: subprocess.CompletedProcess[str], status: int, text: str) -> None:
    """Asserts that a command failed in one line, which says so."""
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Next: " in done.stderr


def recorded(pool: Cluster) -> list[str]:
    """What the scheduler has recorded of its workload."""
    lines = (pool.folder / "workload.jsonl").read_text().splitlines()
    return [said["workload"] for said in map(json.loads, lines) if "workload" in said]


def test_a_pool_grows_from_nothing_by_tokens(new: Cluster) -> None:
    joined = new.join(new.token("--role", "server"), "servers/gpu1", "--name", "gpu1")
    assert joined.returncode == 0, joined.stderr
    assert joined.stdout.startswith("spiffe://lab/server/gpu1: credentials in ")
    assert f"harp server --scheduler {new.addresses['scheduler']}" in joined.stdout
    new.server("gpu1")

    token = new.token("--role", "user", "--name", "alice")
    joined = new.join(token, "alice")
    assert joined.returncode == 0, joined.stderr
    assert "  harp-run --gpus 1 -- python train.py" in joined.stdout
    # The context that joining has made is all that is needed.
    done = subprocess.run(
        [*HARP_RUN, "--gpus", "1", "--", *PROGRAM],
        env=new.environ,
        input="",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("using 1")
    wait_until(lambda: recorded(new)[-1:] == ["end"], "the lease's end is recorded")
    assert recorded(new) == ["machine", "arrival", "grant", "end"]

    keys = {path: stat.S_IMODE(path.stat().st_mode) for path in new.folder.rglob("*.key")}
    assert {path.parent.name for path in keys} == {"ca", "admin", "gpu1", "alice"}
    assert set(keys.values()) == {0o600}
    stored = b"".join(path.read_bytes() for path in new.folder.glob("pool.db*"))
    assert token.text.split(".")[2].encode() in stored
    assert token.text.split(".")[3].encode() not in stored


def test_a_second_start_is_the_same_pool_and_another_name_is_refused(new: Cluster) -> None:
    ca = (new.ca / "ca.pem").read_bytes()
    new.kill("scheduler")
    new.scheduler("scheduler", "--pool", "lab")
    assert (new.ca / "ca.pem").read_bytes() == ca
    other = new.harp("scheduler", "--state", str(new.folder), "--pool", "other")
    refused(other, 2, "is that of pool lab, not of other")


def test_a_first_start_that_fails_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    workload = ["--workload", str(tmp_path / "workload.jsonl")]
    command = [*HARP, "scheduler", "--state", str(tmp_path / "pool"), *workload]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HARP_", "XDG_"))}
    for wrong in (("--database", str(tmp_path / "none" / "pool.db")), ("--join-listen", "x:1")):
        listen = ["--listen", "127.0.0.1:0", *wrong]
        done = subprocess.run([*command, *listen], env=kept, capture_output=True, text=True)
        assert done.returncode, done.stdout
        assert "Next: " in done.stderr
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"], env=kept, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        said = [started.stdout.readline() for _ in range(2)]
        started.terminate()
    assert f"its admin's credentials are in {tmp_path / 'pool' / 'admin'}" in said[1]
    store = Store.open(f"sqlite:///{tmp_path / 'pool' / 'pool.db'}")
    assert [known.identity for known in store.certificates()] == [
        "spiffe://harp/tenant/system/user/admin"
    ]
    store.close()


def test_another_authority_is_sent_nothing(pool: Cluster) -> None:
    token = pool.token("--role", "host")
    _, _, name, secret = token.text.split(".")
    wrong = JoinCommand(token.address, f"harp1.{'0' * 64}.{name}.{secret}")
    refused(pool.join(wrong, "h1"), 4, "belongs to another authority than the token says")
    main = JoinCommand(pool.addresses["scheduler"], token.text)
    refused(pool.join(main, "h1"), 6, f"no scheduler at {main.address}")
    assert pool.join(token, "h1", "--name", "h1").returncode == 0


def test_a_token_lets_in_as_often_and_as_long_as_it_says(pool: Cluster) -> None:
    once = pool.token("--role", "host")
    assert pool.join(once, "h2", "--name", "h2").returncode == 0
    refused(pool.join(once, "h3", "--name", "h3"), 4, "is used up")
    short = pool.token("--role", "host", "--ttl", "1s")
    pool.wait(lambda: "expired" in pool.harp("get", "tokens").stdout, "it has expired")
    refused(pool.join(short, "h3", "--name", "h3"), 4, "expired at")
    recalled = pool.token("--role", "host")
    number = recalled.text.split(".")[2]
    assert pool.harp("token", "revoke", number).stdout == f"token {number}: revoked\n"
    refused(pool.join(recalled, "h3", "--name", "h3"), 4, f"{number} was revoked")
    unknown = JoinCommand(once.address, once.text[:-1] + ("1" if once.text[-1] == "0" else "0"))
    refused(pool.join(unknown, "h3", "--name", "h3"), 4, "there is no such join token")
    refused(pool.join(JoinCommand(once.address, "K10abc"), "h3"), 2, "this is no join token")
    assert not (pool.folder / "h3").exists()
    assert pool.log("scheduler").count("joining refused") >= 4


def test_a_token_is_not_used_up_where_nothing_can_be_written(pool: Cluster) -> None:
    token = pool.token("--role", "host")
    (pool.folder / "file").touch()
    refused(pool.join(token, "file/h4", "--name", "h4"), 1, "cannot write into")
    assert pool.join(token, "h4", "--name", "h4").returncode == 0
    assert {path.name for path in (pool.folder / "h4").iterdir()} == {
        *("ca.pem", "client.key", "client.pem")
    }


def test_credentials_are_replaced_all_or_none(tmp_path: Path) -> None:
    def replace_in(folder: Path, failure: OSError | None = None) -> dict[str, str]:
        with suppress(OSError), credentials.prepared(folder) as partial:
            credentials.write(partial / "client.key", b"new")
            if failure is not None:
                raise failure
        return {path.name: path.read_text() for path in tmp_path.iterdir()}

    (tmp_path / "client.key").write_text("old")
    for folder in (tmp_path, tmp_path / "none"):
        assert replace_in(folder, OSError("the disk is full")) == {"client.key": "old"}
    assert replace_in(tmp_path) == {"client.key": "new"}


def test_a_name_is_one_members_unless_a_token_says_otherwise(pool: Cluster) -> None:
    some = pool.token("--role", "server", "--uses", "2")
    assert pool.join(some, "g1", "--name", "g1").returncode == 0
    refused(pool.join(some, "g1b", "--name", "g1"), 5, "server g1 has joined already")
    refused(pool.join(some, "g1b", "--name", "g1", "--replace"), 5, "harp join --replace")
    long = pool.join(some, "g1b", "--name", "G" * 5000)
    refused(long, 2, "cannot name a server")
    assert len(long.stderr) < 500
    for_it = pool.token("--role", "server", "--name", "g1")
    refused(pool.join(for_it, "g1b", "--name", "g2"), 4, "lets in g1 alone")
    refused(pool.join(for_it, "g1", "--name", "g1"), 5, "holds credentials already")
    refused(pool.join(for_it, "g1b"), 5, "server g1 has joined already")
    assert pool.join(for_it, "g1b", "--replace").returncode == 0
    assert pool.join(some, "g2", "--name", "g2").returncode == 0


def test_operators_let_in_users_of_their_tenant_and_nobody_else(pool: Cluster) -> None:
    assert pool.join(pool.token("--role", "user", "--name", "olga"), "olga").returncode == 0
    create = ("token", "create", "--role")
    refused(pool.harp(*create, "user", user="olga"), 4, "is not operator of tenant default")
    olga = "spiffe://lab/tenant/default/user/olga"
    granted = pool.harp("role", "grant", olga, "operator", "--tenant", "default")
    assert granted.stdout.splitlines()[1].split() == [olga, "default", "operator"]
    token = pool.token("--role", "user", user="olga")
    refused(pool.harp(*create, "server", user="olga"), 4, "is not admin of the pool")
    system = pool.harp(*create, "user", "--tenant", "system", user="olga")
    refused(system, 4, "is not admin of the pool")
    nowhere = pool.harp(*create, "user", "--tenant", "nowhere")
    refused(nowhere, 3, "there is no tenant nowhere")

    # Nobody gets by joining what the one who let him in has not.
    paul = "spiffe://lab/tenant/default/user/paul"
    assert pool.harp("role", "grant", paul, "admin").returncode == 0
    refused(pool.join(token, "paul", "--name", "paul"), 4, f"paul is admin, and {olga} is not")
    named = pool.harp(*create, "user", "--name", "paul", user="olga")
    refused(named, 4, f"{paul} is admin")
    anybody = pool.token("--role", "user")
    refused(pool.join(anybody, "paul", "--name", "paul"), 4, "no token for any name")
    assert pool.join(token, "nina", "--name", "nina").returncode == 0

    last = pool.token("--role", "user", user="olga")
    assert pool.harp("role", "revoke", olga, "--tenant", "default").returncode == 0
    refused(pool.join(last, "rita", "--name", "rita"), 4, "olga is not operator of tenant default")
    refused(pool.harp(*create, "user", user="olga"), 4, "is not operator of tenant default")
    listed = pool.harp("role", "list", "-o", "name").stdout.split("\n")
    assert listed[:2] == ["role/spiffe://lab/tenant/system/user/admin *", f"role/{paul} *"]


@pytest.mark.parametrize(("shift", "said"), [(-HOUR, "not valid yet"), (30 * HOUR, "expired")])
def test_clocks_that_disagree_are_both_named(pool: Cluster, shift: int, said: str) -> None:
    token = pool.token("--role", "host")
    clock = WallClock(pool.folder, "late", shift)
    done = pool.join(token, "late", "--name", "late", **clock.environ)
    refused(done, 5, f"the scheduler's certificate is {said}: this machine's clock says ")
    assert ", the scheduler's about " in done.stderr
    assert (
        pool.join(token, "late" if shift < 0 else "early", "--name", f"c{said[0]}").returncode == 0
    )


def test_who_is_refused_again_and_again_has_to_wait(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, is_new=True)
    try:
        cluster.scheduler("scheduler", "--pool", "lab", "--metrics", "127.0.0.1:0")
        good = cluster.token("--role", "host")
        guessed = JoinToken.parse(good.text.rpartition(".")[0] + "." + "0" * 64)
        stranger, member = (
            Door(good.address, token) for token in (guessed, JoinToken.parse(good.text))
        )
        said: list[str] = []

        def is_kept_out(door: Door) -> bool:
            try:
                door.look()
            except HarpError as error:
                said.append(error.cause)
                return error.cause.startswith("too many refused joins, try again in ")
            return False

        # Not even with a token that is one. There is room again soon: then it is tried again.
        def both() -> bool:
            while not is_kept_out(stranger):
                pass
            return is_kept_out(member)

        cluster.wait(both, "nobody of this address is looked at")
        assert said[:30] == ["there is no such join token"] * 30
        # Who is a member already is not concerned.
        assert cluster.harp("get", "devices").returncode == 0
        lines = cluster.log("scheduler").count("joining refused")
        assert lines == said.count("there is no such join token")
        _, text = cluster.metrics("scheduler")
        samples = {
            sample.labels["cause"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "harp_joins_refused_total"
        }
        assert samples["TokenRefused"] == lines
        assert samples["TooMany"] == len(said) - lines
        cluster.wait(lambda: not is_kept_out(member), "there is room again")
        stranger.close()
        member.close()
    finally:
        cluster.close()


def test_calls_that_say_nothing_do_not_keep_others_out_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_age(name: str) -> bool:
        return name.startswith("grpc.max_connection_age")

    options = [(name, 3000 if is_age(name) else value) for name, value in process.JOIN_OPTIONS]
    monkeypatch.setattr(process, "JOIN_OPTIONS", options)
    places = 4
    monkeypatch.setattr(process, "JOINING_AT_ONCE", places)
    authority, store = Authority.create("lab"), Store.open(f"sqlite:///{tmp_path / 'pool.db'}")
    trusted = grpc.ssl_channel_credentials(authority.trusted_pem())

    async def look(address: str, stranger: int = 0) -> grpc.StatusCode:
        """What a stranger is told; one who has a number says nothing after the call's name."""
        own = ("grpc.use_local_subchannel_pool", 1)
        async with grpc.aio.secure_channel(address, trusted, [*OPTIONS, own]) as channel:
            path = "/harp.control.v1.Joining/Look"
            call = channel.stream_unary(path)() if stranger else channel.unary_unary(path)(b"")
            return await call.code()

    async def run() -> None:
        log = Log("plain", "error")
        scheduler = process.Scheduler(process.Settings("127.0.0.1:0", authority), store, log)
        await scheduler.start()
        address = scheduler.join_address
        # One more than there are places for: it alone is answered before the others grow old.
        holding = [asyncio.create_task(look(address, 1 + number)) for number in range(places + 1)]
        async with asyncio.timeout(BOUND):
            await asyncio.wait(holding, return_when=asyncio.FIRST_COMPLETED)
            [answered] = [call for call in holding if call.done()]
            assert answered.result() is grpc.StatusCode.RESOURCE_EXHAUSTED
            while await look(address) is grpc.StatusCode.RESOURCE_EXHAUSTED:
                await asyncio.sleep(0.1)
            await asyncio.gather(*holding)
        await scheduler.stop()

    asyncio.run(run())
    store.close()


def test_the_token_is_not_taken_from_the_command_line(pool: Cluster) -> None:
    done = pool.harp("join", "127.0.0.1:1")
    refused(done, 2, "there is no token")
    text = subprocess.run(
        [sys.executable, "-m", "harp_client.cli", "join", "--help"], capture_output=True, text=True
    ).stdout
    assert "--token-file" in text
    assert "--token " not in text
