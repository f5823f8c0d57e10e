"""Stock gRPC peers speak with the native transport: it is gRPC, not something like it."""

import datetime
import json
import pathlib
import subprocess
from concurrent import futures

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wire.stock import SERVER_NAME, UNLIMITED, Session, channel

ROOT = pathlib.Path(__file__).resolve().parents[2]
USER = "spiffe://test/tenant/a/user/b"
# Below, at and above the default window of HTTP/2, and several windows of gRPC's own.
SIZES = [0, 1, 1000, 16_384, 65_535, 65_536, 200_000, 5_000_000]


@pytest.fixture(scope="session")
def examples():
    """Paths of the transport crate's example programs."""
    build = subprocess.run(
        ["cargo", "build", "-q", "-p", "harp-transport", "--examples", "--message-format=json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    artefacts = [json.loads(line) for line in build.stdout.splitlines()]
    return {a["target"]["name"]: a["executable"] for a in artefacts if a.get("executable")}


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """A directory with ca.pem and, for server and client, NAME.pem and NAME.key."""
    directory = tmp_path_factory.mktemp("pool")
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test pool")])

    def certificate(subject, key, extensions):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    ca = certificate(ca_name, ca_key, [(x509.BasicConstraints(ca=True, path_length=None), True)])
    (directory / "ca.pem").write_bytes(ca)
    names = {
        "server": [x509.DNSName(SERVER_NAME)],
        "client": [x509.UniformResourceIdentifier(USER)],
    }
    for name, alternatives in names.items():
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        extensions = [(x509.SubjectAlternativeName(alternatives), False)]
        (directory / f"{name}.pem").write_bytes(certificate(subject, key, extensions))
        (directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return directory


@pytest.fixture
def echo_server(examples, pool):
    """The native echo server: its process and address."""
    command = [examples["echo_server"], pool / "ca.pem", pool / "server.pem", pool / "server.key"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize(
    "options",
    [
        [],
        [("grpc.http2.lookahead_bytes", 1000)],
        [("grpc.http2.max_frame_size", 16_384), ("grpc.http2.bdp_probe", 0)],
    ],
    ids=["defaults", "small-window", "small-frames"],
)
def test_stock_client(stubs, pool, echo_server, options):
    process, address = echo_server
    with channel(pool, address, options) as open_channel:
        session = Session(stubs).begin(open_channel)
        welcome = session.receive().welcome
        assert (welcome.version.major, welcome.session) == (1, "stock")
        assert welcome.snapshot.decode() == USER
        for size in SIZES:
            body = bytes(index * 7 % 251 for index in range(size))
            session.send(calls=body)
            frame = session.receive()
            assert frame.WhichOneof("body") == "replies"
            assert frame.replies == body
            assert frame.ack == session.sent
        session.send(ping=session.messages.Ping(token=9))
        assert session.receive().pong.token == 9
        session.finish()
        assert session.receive().WhichOneof("body") == "bye"
        assert next(session.incoming, None) is None
        assert session.incoming.code() == grpc.StatusCode.OK
    assert process.stdout.readline() == f"echoed {len(SIZES)} frames\n"


def test_stock_client_writes_ahead(stubs, pool, echo_server):
    _, address = echo_server
    with channel(pool, address) as open_channel:
        session = Session(stubs).begin(open_channel)
        session.receive()
        bodies = [bytes([index]) * 300_000 for index in range(40)]
        for body in bodies:
            session.send(calls=body)
        assert [session.receive().replies for _ in bodies] == bodies
        session.finish()


def test_other_version_is_refused(stubs, pool, echo_server):
    process, address = echo_server
    with channel(pool, address) as open_channel:
        session = Session(stubs, major=9, minor=4).begin(open_channel)
        refused = session.receive().refused
        assert refused.reason == session.messages.Refused.REASON_VERSION
        assert refused.version.major == 1
        assert "1.1" in refused.text
        assert "9.4" in refused.text
        with pytest.raises(grpc.RpcError) as error:
            session.receive()
        assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "1.1" in error.value.details()
        assert "9.4" in error.value.details()
        session.finish()
    assert process.stdout.readline() == "refused version 9.4\n"


def test_gap_in_the_sequence_ends_the_session(stubs, pool, echo_server):
    process, address = echo_server
    with channel(pool, address) as open_channel:
        session = Session(stubs).begin(open_channel)
        session.receive()
        session.sent += 1
        session.send(calls=b"x")
        with pytest.raises(grpc.RpcError):
            session.receive()
        session.finish()
    assert process.stdout.readline() == "ended: the peer sent frame 3 where 2 was next\n"


def test_another_service_is_unimplemented(pool, echo_server):
    _, address = echo_server
    with channel(pool, address) as open_channel:
        call = open_channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.RpcError) as error:
            call(b"", timeout=10)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def serve(stubs, pool, open_session, options=()):
    """A stock server that answers Open with `open_session(messages, frames)`; and its address."""
    messages, services = stubs

    class Servicer(services.SessionServicer):
        def Open(self, request_iterator, context):  # noqa: N802 (the .proto's name)
            yield from open_session(messages, request_iterator)

    server = grpc.server(futures.ThreadPoolExecutor(4), options=[*UNLIMITED, *options])
    services.add_SessionServicer_to_server(Servicer(), server)
    credentials = grpc.ssl_server_credentials(
        [((pool / "server.key").read_bytes(), (pool / "server.pem").read_bytes())],
        (pool / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, f"127.0.0.1:{port}"


def echo(messages, frames):
    """The echo session, by a stock server."""
    for seq, frame in enumerate(frames, start=1):
        assert frame.seq == seq
        kind = frame.WhichOneof("body")
        if kind == "hello":
            assert (frame.hello.version.major, frame.hello.program) == (1, "echo_client")
            welcome = messages.Welcome(version=frame.hello.version, session="stock")
            yield messages.ServerFrame(seq=seq, ack=seq, welcome=welcome)
        elif kind == "calls":
            yield messages.ServerFrame(seq=seq, ack=seq, replies=frame.calls)
        elif kind == "ping":
            pong = messages.Pong(token=frame.ping.token)
            yield messages.ServerFrame(seq=seq, ack=seq, pong=pong)


def run_client(examples, pool, address, *sizes):
    return subprocess.run(
        [
            examples["echo_client"],
            address,
            pool / "ca.pem",
            pool / "client.pem",
            pool / "client.key",
            *map(str, sizes),
        ],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "options",
    [[], [("grpc.http2.lookahead_bytes", 1000), ("grpc.http2.bdp_probe", 0)]],
    ids=["defaults", "small-window"],
)
def test_stock_server(stubs, examples, pool, options):
    server, address = serve(stubs, pool, echo, options)
    try:
        client = run_client(examples, pool, address, *SIZES)
    finally:
        server.stop(None)
    lines = client.stdout.splitlines()
    assert lines[0].startswith("session stock TLSv1.3 TLS_"), client.stdout
    assert lines[1:] == [f"{size} bytes came back" for size in SIZES] + ["goodbye"]
    assert client.returncode == 0


def test_stock_server_of_another_service(examples, pool):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials(
        [((pool / "server.key").read_bytes(), (pool / "server.pem").read_bytes())]
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        client = run_client(examples, pool, f"127.0.0.1:{port}")
    finally:
        server.stop(None)
    assert client.returncode == 1
    assert "not a HARP server" in client.stdout


def test_status_of_a_stock_server_is_told(stubs, examples, pool):
    def refuse(messages, frames):
        raise RuntimeError("out of order")
        yield

    server, address = serve(stubs, pool, refuse)
    try:
        client = run_client(examples, pool, address)
    finally:
        server.stop(None)
    assert client.returncode == 1
    assert "out of order" in client.stdout
