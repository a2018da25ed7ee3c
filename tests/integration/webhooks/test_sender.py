import asyncio
import gzip
import socket
import ssl
import struct
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook
from yarl import URL

from paywatch.domain.delivery import Answer, Failure
from paywatch.webhooks.guard import Policy
from paywatch.webhooks.sender import Limits, Sender
from paywatch.webhooks.signing import generate_secret, sign
from support.servers import Servers

LOCAL = Policy(allow_private=True)
STRICT = Policy()
BODY = b'{"type": "checkout.session.paid"}'
SHORT = Limits(deadline_s=0.2)


class Names(AbstractResolver):
    """The outside world's name servers."""

    def __init__(self, addresses: Sequence[str] | OSError) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return [
            ResolveResult(hostname=host, host=a, port=port, family=family, proto=0, flags=0)
            for a in self.addresses
        ]

    async def close(self) -> None: ...


async def post(
    url: str,
    *,
    policy: Policy = LOCAL,
    limits: Limits | None = None,
    resolver: AbstractResolver | None = None,
) -> Answer:
    async with Sender(policy, limits, resolver) as sender:
        return await sender.post(url, {"webhook-id": "1"}, BODY)


async def read_request(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(BODY))


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_is_sent_arrives_byte_for_byte_and_verifies(servers: Servers) -> None:
    received: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        received.append((dict(request.headers), await request.read()))
        return web.Response(status=202, text="thanks", headers={"Retry-After": "7"})

    secret = generate_secret()
    url = await servers.http(answer)
    async with Sender(LOCAL) as sender:
        headers = sign([secret], "evt_1", datetime.now(UTC), BODY)
        got = await sender.post(f"{url}/hook", headers, BODY)
    assert (got.status, got.failure, got.excerpt, got.retry_after) == (202, None, b"thanks", "7")
    assert got.duration_s > 0
    [(headers_received, body)] = received
    assert body == BODY
    assert headers_received["Content-Type"] == "application/json"
    assert headers_received["User-Agent"].startswith("paywatch/")
    assert Webhook(secret).verify(body, headers_received) == {"type": "checkout.session.paid"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_lesson_8_a_redirect_is_never_followed(servers: Servers, status: int) -> None:
    paths: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    got = await post(await servers.http(answer) + "/hook")
    assert got.status == status
    assert paths == ["/hook"]


async def test_an_endless_body_is_cut_at_its_bound(servers: Servers) -> None:
    hung_up = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            hung_up.set()

    limits = Limits(deadline_s=30)
    got = await post(await servers.raw(talk), limits=limits)
    await hung_up.wait()
    assert (got.status, got.failure) == (200, None)
    assert got.excerpt == b"x" * 4096


async def test_exactly_the_bound_is_read_of_a_body(servers: Servers) -> None:
    """Nothing is taken in beyond the bound: memory is bounded whatever a server says."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"0123456789")

    url = await servers.http(answer)
    assert (await post(url, limits=Limits(body_bytes=10))).excerpt == b"0123456789"
    assert (await post(url, limits=Limits(body_bytes=4))).excerpt == b"0123"
    assert (await post(url, limits=Limits(excerpt_bytes=3))).excerpt == b"012"


async def test_a_body_that_never_ends_in_time_is_a_timeout_with_its_beginning(
    servers: Servers,
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning")
        await for_ever()

    got = await post(await servers.raw(talk), limits=SHORT)
    assert (got.status, got.failure, got.excerpt) == (200, Failure.TIMEOUT, b"beginning")
    assert got.error == "timeout: no complete answer within 0.2 s"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_decompression_bomb_fills_no_memory(servers: Servers, encoding: str) -> None:
    compressed = gzip.compress(b"\0" * (64 << 20))

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=compressed, headers={"Content-Encoding": encoding})

    url = await servers.http(answer)
    tracemalloc.start()
    try:
        got = await post(url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    if encoding == "gzip":
        assert (got.status, got.failure, got.excerpt) == (200, None, b"\0" * 4096)
    else:  # not what it says it is
        assert (got.status, got.failure) == (200, Failure.BROKEN)


@pytest.mark.parametrize(
    "beginning",
    [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["silent", "in the status line", "in a header", "after an interim answer"],
)
async def test_a_hanging_server_is_left_at_the_deadline(servers: Servers, beginning: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(beginning)
        await for_ever()

    got = await post(await servers.raw(talk), limits=SHORT)
    assert (got.status, got.failure) == (None, Failure.TIMEOUT)
    assert got.duration_s >= 0.2


async def test_a_server_that_takes_no_request_is_left_at_the_deadline() -> None:
    """A listening socket that nobody accepts from: the kernel connects, then silence."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        got = await post(f"http://127.0.0.1:{listening.getsockname()[1]}/", limits=SHORT)
    assert (got.status, got.failure) == (None, Failure.TIMEOUT)


async def test_a_connection_reset_in_mid_answer_is_no_success(servers: Servers) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        reset = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.transport.abort()

    got = await post(await servers.raw(talk))
    assert (got.status, got.failure) == (200, Failure.BROKEN)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x15\x03\x01\x00\x02\x02F",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 100_000 + b"\r\n",
    ],
    ids=lambda said: repr(said[:40]),
)
async def test_an_answer_that_is_not_http_is_a_failure_in_printable_words(
    servers: Servers, said: bytes
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said)
        await writer.drain()

    got = await post(await servers.raw(talk) + "/?token=merchants-own")
    assert got.failure is Failure.BROKEN
    assert got.detail.isprintable()
    assert 0 < len(got.detail) <= 300
    assert "merchants-own" not in got.detail


async def test_a_closed_port_is_a_failure_to_connect() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        got = await post(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (got.status, got.failure) == (None, Failure.CONNECT)


async def test_a_name_that_does_not_resolve_is_told() -> None:
    names = Names(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    got = await post("https://a.example/", policy=STRICT, resolver=names)
    assert (got.status, got.failure) == (None, Failure.DNS)
    assert "Name or service not known" in got.detail


@pytest.mark.parametrize("addresses", [("1.1.1.1", "10.0.0.1"), ("::1",), ("169.254.169.254",)])
async def test_lesson_8_a_name_with_a_private_address_is_refused_at_connect(
    addresses: tuple[str, ...],
) -> None:
    names = Names(addresses)
    got = await post("https://a.example/", policy=STRICT, resolver=names)
    assert names.asked == ["a.example"]
    assert (got.status, got.failure) == (None, Failure.REFUSED)
    assert got.error is not None
    assert got.error.startswith("refused: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::1]"])
async def test_a_private_target_is_never_connected_to(servers: Servers, host: str) -> None:
    """aiohttp does not ask its resolver about literal addresses."""
    connected = asyncio.Event()

    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        connected.set()

    port = URL(await servers.raw(talk)).port
    assert port
    policy = Policy(ports=frozenset({port}))
    got = await post(f"https://{host}:{port}/", policy=policy)
    assert got.failure is Failure.REFUSED
    assert not connected.is_set()


async def test_a_real_name_is_resolved_by_the_system_and_guarded(servers: Servers) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    port = URL(await servers.http(answer)).port
    assert (await post(f"http://localhost:{port}/")).status == 200


async def test_the_vetted_address_is_connected_to_with_the_original_name(servers: Servers) -> None:
    hosts: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        hosts.append(request.headers["Host"])
        return web.Response()

    port = URL(await servers.http(answer)).port
    names = Names(["127.0.0.1"])
    got = await post(f"http://merchant.example:{port}/", resolver=names)
    assert got.status == 200
    assert hosts == [f"merchant.example:{port}"]
    assert names.asked == ["merchant.example"]


def self_signed(name: str, directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    servers: Servers, tmp_path: Path
) -> None:
    context = self_signed("merchant.example", tmp_path)
    asked_for: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked_for.append(name)
    told = asyncio.Event()

    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        told.set()

    port = URL(await servers.raw(talk, context)).port
    got = await post(f"https://merchant.example:{port}/", resolver=Names(["127.0.0.1"]))
    assert (got.status, got.failure) == (None, Failure.TLS)
    assert asked_for == ["merchant.example"]
    assert not told.is_set()


async def test_proxies_of_the_environment_are_not_used(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async def proxy(_: web.Request) -> web.Response:
        return web.Response(status=200)

    proxy_url = await servers.http(proxy)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy_url)
    assert (await post(await servers.http(answer))).status == 204


async def test_cookies_are_not_kept(servers: Servers) -> None:
    cookies: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "tracked=1; Path=/"})

    url = (await servers.http(answer)).replace("127.0.0.1", "merchant.example")
    async with Sender(LOCAL, resolver=Names(["127.0.0.1"])) as sender:
        for _ in range(2):
            await sender.post(url, {}, BODY)
    assert cookies == [None, None]


async def test_a_connection_is_used_again_after_a_whole_answer_only(servers: Servers) -> None:
    connections: list[object] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        connections.append(request.transport.get_extra_info("peername"))
        return web.Response(body=b"x" * (1000 if len(connections) == 1 else 200_000))

    url = await servers.http(answer)
    async with Sender(LOCAL) as sender:
        for _ in range(3):
            assert (await sender.post(url, {}, BODY)).status == 200
    first, second, third = connections
    assert first == second
    assert second != third


async def test_300_posts_are_in_flight_at_once_and_a_hanging_one_delays_none(
    servers: Servers,
) -> None:
    arrived: list[str] = []
    all_here, let_go = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        arrived.append(request.path)
        if len(arrived) == 300:
            all_here.set()
        await (let_go if request.path == "/dead" else all_here).wait()
        return web.Response()

    url = await servers.http(answer)
    async with Sender(LOCAL, Limits(deadline_s=60)) as sender, asyncio.TaskGroup() as group:
        dead = group.create_task(sender.post(f"{url}/dead", {}, BODY))
        others = [group.create_task(sender.post(f"{url}/{n}", {}, BODY)) for n in range(299)]
        answers = await asyncio.gather(*others)
        assert not dead.done()
        let_go.set()
    assert {got.status for got in answers} == {200}
    assert dead.result().status == 200


async def test_a_dead_name_server_delays_nobody_else(servers: Servers) -> None:
    let_go = asyncio.Event()

    class SomeNamesHang(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            await (let_go.wait() if host == "dead.example" else asyncio.sleep(0))
            return await super().resolve(host, port, family)

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    port = URL(await servers.http(answer)).port
    names = SomeNamesHang(["127.0.0.1"])
    async with Sender(LOCAL, resolver=names) as sender, asyncio.TaskGroup() as group:
        dead = group.create_task(sender.post(f"http://dead.example:{port}/", {}, BODY))
        answers = await asyncio.gather(
            *(sender.post(f"http://merchant{n}.example:{port}/", {}, BODY) for n in range(50))
        )
        assert not dead.done()
        let_go.set()
    assert {got.status for got in answers} == {200}


async def test_a_canceled_post_is_canceled_and_not_an_answer(servers: Servers) -> None:
    arrived = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await for_ever()

    url = await servers.raw(talk)
    async with Sender(LOCAL) as sender:
        task = asyncio.create_task(sender.post(url, {}, BODY))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_posting_before_entering_is_a_bug_of_ours() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Sender(LOCAL).post("http://127.0.0.1/", {}, BODY)
