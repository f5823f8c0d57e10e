"""What the parts of a pool tell Prometheus, and the dashboard that asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import re
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.parser import text_string_to_metric_families

from harp_api.control.v1 import agent_pb2 as agent
from harp_client import credentials
from harp_client.commands import host
from harp_client.endpoint import parse
from harp_client.errors import HarpError
from harp_client.host_metrics import HostCollector, Seen
from harp_client.scheduler import Scheduler
from harp_server.ca import Authority, KeyPair, save_user
from harp_server.exposition import REQUESTS_AT_ONCE, Exposition, Health, registry
from harp_server.logs import Log
from harp_server.metrics import ServerCollector, Snapshot, nvml_figures
from harp_server.nvml import Nvml
from harp_server.session import Totals
from scheduler.cluster import BOUND, DEVICE_MEMORY, Cluster, end, first_line
from scheduler.store.postgres import Postgres

ROOT = Path(__file__).parents[2]
OPEN = ("--metrics", "127.0.0.1:0")
MIB = 1 << 20

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler and a server with two devices, both open to Prometheus."""
    cluster = Cluster(tmp_path)
    cluster.scheduler("scheduler", *OPEN)
    cluster.server("gpu1", 2, *OPEN)
    yield cluster
    cluster.close()


def scrape(cluster: Cluster, part: str) -> Samples:
    """The samples of a part, by name and labels."""
    status, text = cluster.metrics(part)
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels."""
    found = [
        v for (n, own), v in samples.items() if n == name and labels.items() <= dict(own).items()
    ]
    assert found, f"no {name}"
    return sum(found)


def test_a_scrape_follows_what_happens_to_the_pool(cluster: Cluster) -> None:
    before = scrape(cluster, "scheduler")
    assert value(before, "harp_leading") == 1
    assert value(before, "harp_servers", state="ready") == 1
    assert value(before, "harp_devices", kind="gpu", state="ready") == 2
    assert value(before, "harp_device_memory_bytes") == 2 * DEVICE_MEMORY
    assert value(before, "harp_device_memory_leased_bytes") == 0
    assert value(before, "harp_grants_total") == 0

    program = cluster.run("--gpus", "1", "--memory", "64MiB")
    assert first_line(program).startswith("using")
    waiting = cluster.run("--gpus", "2", "--queue-timeout", "2s")
    cluster.wait(lambda: cluster.get("queue"), "one waits")
    during = scrape(cluster, "scheduler")
    assert value(during, "harp_leases", tenant="default", state="Pending") == 1
    assert value(during, "harp_queue_length") == 1
    assert value(during, "harp_tenant_devices", tenant="default") == 1
    assert value(during, "harp_device_memory_leased_bytes", kind="gpu") == 64 * MIB
    assert value(during, "harp_grants_total") == 1
    assert value(during, "harp_commit_seconds_count") >= 1
    assert value(during, "harp_decision_seconds_count") >= 1
    at_server = scrape(cluster, "gpu1")
    assert value(at_server, "harp_server_sessions") == 1
    assert value(at_server, "harp_server_leases", state="admitted") == 1
    used = value(at_server, "DCGM_FI_DEV_FB_USED", gpu="0", modelName="HARP Soft GPU")
    assert used + value(at_server, "DCGM_FI_DEV_FB_USED", gpu="1") == 64
    free = value(at_server, "DCGM_FI_DEV_FB_FREE")
    assert free == 2 * DEVICE_MEMORY // MIB - 64
    (labels,) = {frozenset(dict(own)) for name, own in at_server if name == "DCGM_FI_DEV_FB_USED"}
    assert labels >= {"gpu", "UUID", "pci_bus_id", "device", "modelName", "hostname"}

    assert end(waiting)[0] == 125
    assert end(program)[0] == 0
    assert cluster.harp("detach", "nothing").returncode == 3
    assert cluster.harp("delete", "profile", "nothing").returncode == 3
    cluster.wait(
        lambda: value(scrape(cluster, "gpu1"), "harp_server_sessions") == 0, "the session is over"
    )
    after = scrape(cluster, "gpu1")
    assert value(after, "harp_server_sessions_started_total") == 1
    assert value(after, "harp_server_sessions_ended_total", how="ended") == 1
    assert value(after, "harp_server_calls_total") >= 1
    assert value(after, "harp_server_received_bytes_total") >= 1
    pool = scrape(cluster, "scheduler")
    assert value(pool, "harp_refusals_total", cause="NotFound") == 1
    assert value(pool, "harp_device_memory_leased_bytes") == 0


def hosts_key(authority: Authority) -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    life = datetime.timedelta(hours=1)
    return KeyPair(authority.sign_host("web1", key.public_key(), life), key)


def test_a_host_tells_what_is_attached_to_it(cluster: Cluster, tmp_path: Path) -> None:
    for words in (("attach", "web1", "--count", "2"), ("attach", "web2", "--memory", "1MiB")):
        attached = cluster.harp(*words, "--tenant", "default", "--user", "alice")
        assert attached.returncode == 0, attached.stderr
    program = cluster.run(host="web1")
    assert first_line(program) == "using 2"
    authority = Authority.load(cluster.ca)
    save_user(tmp_path / "web1", authority.trusted_pem(), hosts_key(authority))
    scheduler = ("--scheduler", cluster.addresses["scheduler"])
    cluster.start("web1", ["host", *scheduler, "--credentials", str(tmp_path / "web1"), *OPEN])

    def told(name: str) -> float:
        return value(scrape(cluster, "web1"), name)

    cluster.wait(lambda: told("harp_host_scheduler_connected") == 1, "a scheduler answers")
    seen = scrape(cluster, "web1")
    assert value(seen, "harp_host_leases") == 1
    assert value(seen, "harp_host_leases", state="InUse") == 1
    assert value(seen, "harp_host_devices") == 2
    assert value(seen, "harp_host_programs") == 1
    assert value(seen, "harp_host_certificate_left_seconds") > 60
    assert value(seen, "harp_host_scheduler_silence_seconds") >= 0
    assert value(seen, "harp_build_info", part="host") == 1
    healthy = "the certificate is valid; the scheduler "
    assert cluster.metrics("web1", "healthz") == (200, f"{healthy}answers\n")
    assert end(program)[0] == 0
    cluster.kill("scheduler")
    cluster.wait(lambda: told("harp_host_scheduler_connected") == 0, "it is found to be away")
    assert "harp_host_devices" not in {name for name, _ in scrape(cluster, "web1")}
    assert cluster.metrics("web1", "healthz") == (200, f"{healthy}is out of reach\n")
    cluster.kill("web1", signal.SIGTERM)


def test_renewals_of_a_host_are_counted_by_how_they_went(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority.create("lab")
    save_user(tmp_path, authority.trusted_pem(), hosts_key(authority))
    certificate = tmp_path / "client.pem"
    scheduler = Scheduler(["127.0.0.1:1"], str(tmp_path))
    seen = Seen(host.expiry(certificate))

    def renews(answer: bool | HarpError) -> float:
        def keep_fresh(*_: object) -> bool:
            if isinstance(answer, HarpError):
                raise answer
            return answer

        monkeypatch.setattr("harp_client.renewing.keep_fresh", keep_fresh)
        return host.freshen(scheduler, certificate, seen, Log("plain", "critical"))

    assert renews(False) == credentials.CHECK, "it is not time"
    assert not seen.renewals
    assert renews(True) > 0
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    monkeypatch.setattr("harp_client.credentials.half_life", lambda _: past)
    assert renews(False) == credentials.RETRY, "it was time"
    assert renews(HarpError("expired")) == credentials.CHECK
    samples = {
        (sample.labels["outcome"], sample.value)
        for family in HostCollector(seen).collect()
        for sample in family.samples
        if sample.name == "harp_host_renewals_total"
    }
    assert samples == {("done", 1), ("failed", 2)}


def test_lost_leases_are_counted(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, grace=2.0)
    try:
        cluster.scheduler("scheduler", *OPEN)
        cluster.server("gpu1")
        attached = cluster.harp("attach", "web1", "--tenant", "default", "--wait")
        assert attached.returncode == 0, attached.stderr
        cluster.kill("gpu1")
        cluster.wait(
            lambda: value(scrape(cluster, "scheduler"), "harp_leases_lost_total") == 1, "it is lost"
        )
        assert value(scrape(cluster, "scheduler"), "harp_servers", state="out of reach") == 1
    finally:
        cluster.close()


def test_health_follows_the_leader_and_says_who_leads(cluster: Cluster) -> None:
    assert cluster.metrics("scheduler", "healthz") == (200, "leads, in term 1\n")
    cluster.scheduler("scheduler2", *OPEN)
    cluster.wait(
        lambda: cluster.metrics("scheduler2", "healthz")[1] == "follows scheduler, of term 1\n",
        "it follows",
    )
    assert value(scrape(cluster, "scheduler2"), "harp_leading") == 0
    cluster.wait(
        lambda: "is connected" in cluster.metrics("gpu1", "healthz")[1], "the agent is connected"
    )
    cluster.kill("scheduler")
    cluster.wait(
        lambda: cluster.metrics("scheduler2", "healthz") == (200, "leads, in term 2\n"), "it leads"
    )
    assert cluster.metrics("gpu1", "nowhere")[0] == 404


def test_who_cannot_reach_the_database_is_not_well(tmp_path: Path, postgres: Postgres) -> None:
    cluster = Cluster(tmp_path, postgres.new_database())
    try:
        cluster.scheduler("scheduler", *OPEN)
        cluster.wait(
            lambda: cluster.metrics("scheduler", "healthz") == (200, "leads, in term 1\n"), "leads"
        )
        postgres.stop()
        try:
            status, text = cluster.metrics("scheduler", "healthz")
            assert status == 503
            assert text.startswith("the database does not answer")
        finally:
            postgres.start()
        cluster.wait(lambda: cluster.metrics("scheduler", "healthz")[0] == 200, "it is well again")
    finally:
        cluster.close()


def test_nobody_listens_where_nobody_asked(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.scheduler()
        assert '"metrics"' not in cluster.log("scheduler")
    finally:
        cluster.close()


def asked(client: Callable[[tuple[str, int]], bytes]) -> bytes:
    """What a client gets of a port that it is given the address of."""

    async def well() -> Health:
        return Health(True, "well")

    async def run() -> bytes:
        port = Exposition("127.0.0.1:0", registry("test"), well)
        try:
            host, number = parse(port.address, port.address)
            return await asyncio.to_thread(client, (host, number))
        finally:
            await port.close()

    return asyncio.run(run())


def test_the_port_is_opened_without_name_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(name: str = "") -> str:
        raise AssertionError(f"{name} is asked for")

    def get(where: tuple[str, int]) -> bytes:
        with socket.create_connection(where, timeout=BOUND) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return client.makefile("rb").read()

    monkeypatch.setattr(socket, "getfqdn", ask)
    assert asked(get).endswith(b"\r\n\r\nwell\n")


def test_a_client_that_never_comes_to_its_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harp_server.exposition.SLOW_SECONDS", 0.5)

    def trickle(where: tuple[str, int]) -> bytes:
        with (
            socket.create_connection(where, timeout=BOUND) as client,
            contextlib.suppress(ConnectionError),
        ):
            for _ in range(round(BOUND / 0.1)):
                client.send(b"X")
                if select.select([client], [], [], 0.1)[0]:
                    return client.recv(1)
            return b"still open"
        return b""

    assert asked(trickle) == b""


@pytest.mark.parametrize("kind", [threading.Thread, threading.Timer])
def test_requests_that_get_no_thread_take_no_place(
    monkeypatch: pytest.MonkeyPatch, kind: type[threading.Thread]
) -> None:
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if type(self) is kind:
            raise RuntimeError("can't start new thread")
        start(self)

    def get(where: tuple[str, int]) -> bytes:
        with (
            socket.create_connection(where, timeout=BOUND) as client,
            contextlib.suppress(ConnectionError),
        ):
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return client.makefile("rb").read()
        return b""

    def client(where: tuple[str, int]) -> bytes:
        with monkeypatch.context() as changed:
            changed.setattr(threading.Thread, "start", refuse)
            for _ in range(REQUESTS_AT_ONCE):
                assert get(where) == b""
        return get(where)

    assert asked(client).endswith(b"\r\n\r\nwell\n")


class NvmlError(Exception):
    pass


class FakeNvml:
    """As much of `pynvml` as is read; a device that does not measure power."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"580.105.08"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-1":
            raise NvmlError
        return uuid

    def nvmlDeviceGetMemoryInfo(self, device: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=3 * MIB, free=5 * MIB)

    def nvmlDeviceGetUtilizationRates(self, device: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=70, memory=20)

    def nvmlDeviceGetRemappedRows(self, device: str) -> tuple[int, int, int, int]:  # noqa: N802
        return 1, 2, 1, 0

    def nvmlDeviceGetTemperature(self, device: str, sensor: int) -> int:  # noqa: N802
        return 40 + sensor

    def nvmlDeviceGetPowerUsage(self, device: str) -> int:  # noqa: N802
        raise NvmlError

    def nvmlDeviceGetTotalEnergyConsumption(self, device: str) -> int:  # noqa: N802
        return 9000

    def nvmlDeviceGetClockInfo(self, device: str, clock: int) -> int:  # noqa: N802
        return {1: 1410, 2: 1593}[clock]


def test_what_nvml_knows_has_the_names_of_dcgm() -> None:
    assert nvml_figures(Nvml(FakeNvml()), "GPU-1") == {
        "DCGM_FI_DEV_FB_USED": 3,
        "DCGM_FI_DEV_FB_FREE": 5,
        "DCGM_FI_DEV_GPU_UTIL": 70,
        "DCGM_FI_DEV_MEM_COPY_UTIL": 20,
        "DCGM_FI_DEV_GPU_TEMP": 40,
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": 1,
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": 2,
        "DCGM_FI_DEV_ROW_REMAP_FAILURE": 0,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 9000,
        "DCGM_FI_DEV_SM_CLOCK": 1410,
        "DCGM_FI_DEV_MEM_CLOCK": 1593,
    }
    assert nvml_figures(Nvml(FakeNvml()), "GPU-2") == {}


def test_what_the_module_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    before = nvml_figures(Nvml(FakeNvml()), "GPU-1")
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetTemperature")
    del before["DCGM_FI_DEV_GPU_TEMP"]
    assert nvml_figures(Nvml(FakeNvml()), "GPU-1") == before


def test_leases_say_what_is_used_of_a_device_that_nvml_does_not_know() -> None:
    labels = {"uuid": "GPU-2", "pci-bus-id": "0000:2b:00.0"}
    devices = [agent.Device(ordinal=3, model="m", memory=8 * MIB, labels=labels)]
    seen = Snapshot(0, Totals(), {}, {3: 2 * MIB}, None)
    told = {
        sample.name: sample.value
        for family in ServerCollector(lambda: seen, devices, Nvml(FakeNvml())).collect()
        for sample in family.samples
        if "gpu" in sample.labels
    }
    assert told == {"DCGM_FI_DEV_FB_USED": 2, "DCGM_FI_DEV_FB_FREE": 6}


def test_the_last_xid_of_each_device_is_told_where_somebody_waits_for_them() -> None:
    labels = {"uuid": "GPU-1", "pci-bus-id": "0000:1b:00.0"}
    devices = [agent.Device(ordinal=ordinal, model="m", labels=labels) for ordinal in (0, 1)]
    seen = Snapshot(0, Totals(), {}, None, None)

    def told(xids: dict[int, int] | None) -> list[tuple[str, str, float]]:
        collector = ServerCollector(lambda: seen, devices, Nvml(FakeNvml()), xids)
        return [
            (sample.labels["gpu"], sample.labels["DCGM_FI_DRIVER_VERSION"], sample.value)
            for family in collector.collect()
            for sample in family.samples
            if sample.name == "DCGM_FI_DEV_XID_ERRORS"
        ]

    assert told({1: 79}) == [("0", "580.105.08", 0), ("1", "580.105.08", 79)]
    assert told(None) == []


def test_who_asks_while_the_driver_hangs_gets_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harp_server.metrics.ASK_SECONDS", 0.05)
    asked, answers = threading.Event(), threading.Event()

    class Hanging(FakeNvml):
        def nvmlDeviceGetPowerUsage(self, device: str) -> int:  # noqa: N802
            asked.set()
            answers.wait()
            return 1000

    labels = {"uuid": "GPU-1", "pci-bus-id": "0000:1b:00.0"}
    devices = [agent.Device(ordinal=0, model="m", labels=labels)]
    seen = Snapshot(0, Totals(), {}, None, None)
    collector = ServerCollector(lambda: seen, devices, Nvml(Hanging()))

    def names() -> set[str]:
        return {family.name for family in collector.collect()}

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(names)
        try:
            assert asked.wait(BOUND)
            without = names()
        finally:
            answers.set()
        assert "harp_server_sessions" in without
        assert first.result(BOUND) - without == names() - without != set()


def test_every_metric_of_the_dashboard_is_in_a_scrape(cluster: Cluster) -> None:
    attached = cluster.harp("attach", "web1", "--tenant", "default", "--wait")
    assert attached.returncode == 0, attached.stderr
    known = {name for part in ("scheduler", "gpu1") for name, _ in scrape(cluster, part)}
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "harp.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\b(?:harp|DCGM)_\w+", query)}
    assert len(asked) > 15
    assert asked <= known
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
