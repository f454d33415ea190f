"""The outbound door: security checklist 23 to 28, against real servers."""

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import ssl
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateways.addresses import AllowList, is_metadata, is_public
from gateways.errors import OutboundFailed, OutboundRefused, OutboundTooLarge
from gateways.outbound import Outbound
from tests.gateways.peer import Peer, Request, plain

LIMITS = {"max_bytes": 100_000, "timeout": 5.0}


@contextlib.asynccontextmanager
async def opened(*allow: str, **options: object) -> AsyncIterator[Outbound]:
    outbound = Outbound(allow, **options)
    try:
        yield outbound
    finally:
        await outbound.close()


# --- the corpus ---------------------------------------------------------------------------------

PRIVATE_V4 = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3",
    "192.0.0.1", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255", "198.51.100.7",
    "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "100.100.100.200", "169.254.170.2",
]  # fmt: skip


def spellings(address: str) -> list[str]:
    """Hosts that some resolver or parser takes for the IPv4 address."""
    a, b, c, d = (int(part) for part in address.split("."))
    number = int(ipaddress.IPv4Address(address))
    high, low = number >> 16, number & 0xFFFF
    return [
        address,
        address + ".",
        str(number),
        hex(number),
        f"0{number:o}",
        f"{a}.{b * 65536 + c * 256 + d}",
        f"{a}.{b}.{c * 256 + d}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a:03}.{b:03}.{c:03}.{d:03}",
        address.replace(".", "。"),
        address.replace(".", "%2e"),
        "".join(chr(ord(char) - ord("0") + 0xFF10) if char.isdigit() else char for char in address),
        f"[::ffff:{address}]",
        f"[::ffff:{high:x}:{low:x}]",
        f"[0:0:0:0:0:FFFF:{high:X}:{low:X}]",
        f"[::{address}]",
        f"[64:ff9b::{address}]",
        f"[64:ff9b:1::{address}]",
        f"[2002:{high:x}:{low:x}::]",
        f"[2001:0:0:0:0:0:{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}]",
    ]


FORMS = [
    *(f"http://{host}{{port}}/" for v4 in PRIVATE_V4 for host in spellings(v4)),
    *(
        f"http://[{host}]{{port}}/"
        for host in (
            "::1",
            "::",
            "0:0:0:0:0:0:0:1",
            "fe80::1",
            "fe80::1%25lo",
            "fe80::1%lo",
            "fc00::1",
            "fd00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "4000::1",
            "::127.1",
            "1",
        )
    ),
    "http://localhost{port}/",
    "http://LOCALHOST{port}/",
    "http://localhost.{port}/",
    "http://0{port}/",
    "http://127.1{port}/",
    "http://0x7f.1{port}/",
    "http://user@127.0.0.1{port}/",
    "http://user:secret@example.com{port}/",
    "http://@example.com{port}/",
    "http://example.com@127.0.0.1{port}/",
    "http://127.0.0.1{port}@example.com/",
    "http://example.com\\@127.0.0.1{port}/",
    "http:\\\\127.0.0.1{port}/",
    "http://127.0.0.1{port}\\.example.com/",
    "http://127.0.0.1{port}#@example.com/",
    "http://127.0.0.1{port}?@example.com/",
    "http://127.0.0.1 {port}/",
    " http://127.0.0.1{port}/",
    "http://127.0.0.1{port}/\r\nHost: example.com",
    "http://exa\tmple.com{port}/",
    "http://example.com{port}/\x00",
    "http://%31%32%37.0.0.1{port}/",
    "http://localhost%00.example.com{port}/",
    "http://localhost%23.example.com{port}/",
    "http://ⓛocalhost{port}/",
    "http://①②⑦.⓪.⓪.①{port}/",
    "http://127.0.0.1\u200b{port}/",
    "http://[127.0.0.1]{port}/",
    "http://[::1{port}/",
    "http://::1{port}/",
    "http:///127.0.0.1{port}/",
    "http://",
    "http:",
    "",
    "//127.0.0.1{port}/",
    "127.0.0.1{port}/",
    "/etc/passwd",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http://example.com:-1/",
    "http://example.com:port/",
    "http://exam ple.com/",
    "http://ex<script>.com/",
    "http://-example.com/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 200 + "com/",
    "http://example.com/" + "a" * 9000,
    *(
        f"{scheme}127.0.0.1{{port}}/"
        for scheme in (
            "file://",
            "gopher://",
            "ftp://",
            "dict://",
            "ldap://",
            "ws://",
            "wss://",
            "jar:http://",
            "data:text/plain,",
            "javascript:",
            "unix://",
            "netdoc://",
            "tftp://",
            "view-source:http://",
            "url:http://",
            "http+unix://",
            "https:http://",
            "HTTP:/",
            "h\nttp://",
        )
    ),
]  # fmt: skip


def test_the_corpus_is_large_enough() -> None:
    assert len(set(FORMS)) >= 200


async def test_no_form_of_the_corpus_reaches_anything(peer: Peer) -> None:
    let_through = []
    async with opened() as outbound:
        for form in FORMS:
            url = form.format(port=f":{peer.port}") if "{port}" in form else form
            with contextlib.suppress(OutboundRefused):
                await outbound.fetch("fetch", url, **LIMITS)
                let_through.append(url)
            with contextlib.suppress(OutboundRefused):
                await outbound.check("fetch", url)
                let_through.append(url)
    assert let_through == []
    assert peer.connections == 0


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111"])
async def test_public_addresses_pass_the_check(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    await Outbound().check("fetch", f"https://{host}/path?x=%20#f")


async def test_a_name_is_judged_by_its_addresses() -> None:
    names = {
        "good.example": ["93.184.216.34", "2606:4700::1111"],
        "xn--bcher-kva.example": ["93.184.216.34"],
        "mixed.example": ["93.184.216.34", "10.0.0.1"],
        "scoped.example": ["fe80::1%eth0"],
        "odd.example": ["not an address"],
        "none.example": [],
    }

    async def resolve(host: str, port: int) -> list[str]:
        return names[host]

    async with opened(resolve=resolve) as outbound:
        await outbound.check("fetch", "https://good.example/")
        await outbound.check("fetch", "https://GOOD.example.:8443/")
        await outbound.check("fetch", "https://bücher.example/")
        for bad in ("mixed", "scoped", "odd"):
            with pytest.raises(OutboundRefused):
                await outbound.check("fetch", f"https://{bad}.example/")
        with pytest.raises(OutboundFailed):
            await outbound.check("fetch", "https://none.example/")


async def test_a_name_without_an_address_fails() -> None:
    async with opened() as outbound:
        with pytest.raises(OutboundFailed):
            await outbound.fetch("fetch", "http://nothing.invalid/", **LIMITS)


# --- the allow-list -----------------------------------------------------------------------------


async def test_the_operator_opens_a_host_for_one_purpose(peer: Peer) -> None:
    peer.routes["/"] = plain(body="hello", media_type="text/html; charset=utf-8")
    async with opened(f"model=127.0.0.1:{peer.port}") as outbound:
        answer = await outbound.fetch("model", peer.url + "/", **LIMITS)
        assert (answer.status, answer.body) == (200, b"hello")
        assert (answer.media_type, answer.charset) == ("text/html", "utf-8")
        for purpose, url in [("fetch", peer.url), ("model", "http://127.0.0.1:1/")]:
            with pytest.raises(OutboundRefused):
                await outbound.fetch(purpose, url, **LIMITS)
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("entry", "url", "open_"),
    [
        ("model=10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("search=10.0.0.0/8", "http://10.1.2.3/", False),
        ("model=10.0.0.0/8", "http://11.1.2.3/", True),
        ("model=10.0.0.0/8", "http://192.168.1.1/", False),
        ("model=[fd00::1]:8080", "http://[fd00::1]:8080/", True),
        ("model=[fd00::1]:8080", "http://[fd00::1]/", False),
        ("model=fd00::/8", "http://[fd00::1]/", True),
        ("model=10.1.2.3", "http://10.1.2.3:81/", True),
        ("model=10.1.2.3", "http://[::ffff:10.1.2.3]/", False),
        ("0.0.0.0/0", "http://169.254.169.254/", False),
        ("169.254.169.254", "http://169.254.169.254/", False),
        ("::/0", "http://[fd00:ec2::254]/", False),
        ("::/0", "http://[::ffff:169.254.169.254]/", False),
        ("::/0", "http://[64:ff9b::a9fe:a9fe]/", False),
        ("::/0", "http://[2002:a9fe:a9fe::]/", False),
    ],
)
async def test_what_an_entry_opens(entry: str, url: str, open_: bool) -> None:
    outbound = Outbound([entry])
    if open_:
        await outbound.check("model", url)
    else:
        with pytest.raises(OutboundRefused):
            await outbound.check("model", url)


@pytest.mark.parametrize(
    "entry", ["", "model=", "=host", "model=[::1", "model=host:port", "h:0", "10.0.0.0/33", "a b=c"]
)
def test_an_entry_that_cannot_be_read_stops_the_start(entry: str) -> None:
    with pytest.raises(ValueError):
        AllowList([entry])


def test_metadata_is_recognised_inside_other_addresses() -> None:
    for text in ("::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fd00:ec2::254"):
        assert is_metadata(ipaddress.ip_address(text))
    assert not is_metadata(ipaddress.ip_address("8.8.8.8"))


# --- rebinding ----------------------------------------------------------------------------------


async def test_a_name_that_moves_inside_after_the_check_is_refused(peer: Peer) -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])

    async def resolve(host: str, port: int) -> list[str]:
        return next(answers)

    async with opened(resolve=resolve) as outbound:
        await outbound.check("fetch", f"http://rebind.example:{peer.port}/")
        with pytest.raises(OutboundRefused):
            await outbound.fetch("fetch", f"http://rebind.example:{peer.port}/", **LIMITS)
    assert peer.connections == 0


async def test_the_connection_goes_to_the_address_that_was_checked(peer: Peer) -> None:
    """The name exists for our resolver only, and is asked for once: nobody resolves it again."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    peer.routes["/"] = plain(body="pinned")
    async with opened("fetch=pinned.example", resolve=resolve) as outbound:
        answer = await outbound.fetch("fetch", f"http://pinned.example:{peer.port}/", **LIMITS)
    assert answer.body == b"pinned"
    assert asked == ["pinned.example"]
    assert peer.requests[0].headers["host"] == f"pinned.example:{peer.port}"


async def test_tls_keeps_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str | None] = []
    certificate = self_signed(tmp_path, "named.example")
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    server_side.sni_callback = lambda _socket, name, _context: names.append(name)
    peer = await Peer().start(tls=server_side)
    peer.routes["/"] = plain(body="secret")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with opened("127.0.0.1/32", resolve=resolve) as outbound:
        answer = await outbound.fetch("fetch", f"https://named.example:{peer.port}/", **LIMITS)
        assert answer.body == b"secret"
        assert names == ["named.example"]
        with pytest.raises(OutboundFailed):
            await outbound.fetch("fetch", f"https://other.example:{peer.port}/", **LIMITS)
    await peer.stop()


def self_signed(folder: Path, name: str) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


# --- redirects ----------------------------------------------------------------------------------


async def test_redirects_are_followed_three_times(peer: Peer) -> None:
    for i in range(4):
        peer.routes[f"/{i}"] = plain(302, location=f"/{i + 1}")
    peer.routes["/4"] = plain(body="too far")
    async with opened("127.0.0.1") as outbound:
        answer = await outbound.fetch("fetch", peer.url + "/1", **LIMITS)
        assert (answer.body, answer.url) == (b"too far", peer.url + "/4")
        with pytest.raises(OutboundRefused):
            await outbound.fetch("fetch", peer.url + "/0", **LIMITS)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{other}/", "//127.0.0.1:{other}/", "http://localhost:{other}/",
        "http://[::1]:{other}/", "http://2130706433:{other}/", "http://169.254.169.254/",
        "file:///etc/passwd", "http://user:pass@127.0.0.1:{port}/", "ftp://127.0.0.1/",
    ],
)  # fmt: skip
async def test_a_redirect_is_checked_like_any_url(
    peer: Peer, other_peer: Peer, target: str
) -> None:
    location = target.format(other=other_peer.port, port=peer.port)
    peer.routes["/"] = plain(302, location=location)
    async with opened(f"fetch=127.0.0.1:{peer.port}") as outbound:
        with pytest.raises(OutboundRefused):
            await outbound.fetch("fetch", peer.url + "/", **LIMITS)
        with pytest.raises(OutboundRefused):
            await outbound.client("fetch").get(peer.url + "/", follow_redirects=True)
    assert other_peer.connections == 0


async def test_another_host_gets_no_credentials(peer: Peer, other_peer: Peer) -> None:
    secrets = {"Authorization": "Bearer s", "Cookie": "a=b", "X-API-Key": "s", "Accept": "*/*"}
    peer.routes["/same"] = plain(302, location="/cross")
    peer.routes["/cross"] = plain(302, location=other_peer.url + "/")
    other_peer.routes["/"] = plain(body="done")
    async with opened("127.0.0.1") as outbound:
        await outbound.fetch("fetch", peer.url + "/same", headers=secrets, **LIMITS)
        assert [request.headers.get("authorization") for request in peer.requests] == [
            "Bearer s"
        ] * 2
        seen = other_peer.requests[0].headers
        assert not {"authorization", "cookie", "x-api-key"} & set(seen)
        assert seen["accept"] == "*/*"

        client = outbound.client("fetch")
        await client.get(peer.url + "/same", headers=secrets, follow_redirects=True)
        assert not {"authorization", "cookie"} & set(other_peer.requests[1].headers)


async def test_a_post_is_sent_once(peer: Peer) -> None:
    peer.routes["/"] = plain(307, location="/again")
    async with opened("127.0.0.1") as outbound:
        answer = await outbound.fetch("hook", peer.url + "/", method="POST", content=b"x", **LIMITS)
        assert answer.status == 307
        response = await outbound.client("hook").post(peer.url + "/", content=b"x")
        assert response.status_code == 307
    assert [request.target for request in peer.requests] == ["/", "/"]


async def test_cookies_of_one_user_never_reach_the_next(peer: Peer) -> None:
    peer.routes["/"] = plain(200, set_cookie="session=first; Path=/")
    async with opened("127.0.0.1") as outbound:
        for _ in range(2):
            await outbound.fetch("fetch", peer.url + "/", **LIMITS)
            await outbound.client("fetch").get(peer.url + "/")
    assert [request.headers.get("cookie") for request in peer.requests] == [None] * 4


async def test_a_proxy_of_the_environment_is_not_used(
    peer: Peer, other_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", other_peer.url)
    monkeypatch.setenv("ALL_PROXY", other_peer.url)
    peer.routes["/"] = plain(body="direct")
    async with opened("127.0.0.1") as outbound:
        assert (await outbound.fetch("fetch", peer.url + "/", **LIMITS)).body == b"direct"
    assert other_peer.connections == 0


# --- caps ---------------------------------------------------------------------------------------


async def test_an_answer_of_just_the_allowed_size_is_read(peer: Peer) -> None:
    peer.routes["/fits"] = plain(body=b"x" * 100_000)
    peer.routes["/over"] = plain(body=b"x" * 100_001)
    async with opened("127.0.0.1") as outbound:
        assert len((await outbound.fetch("fetch", peer.url + "/fits", **LIMITS)).body) == 100_000
        with pytest.raises(OutboundTooLarge):
            await outbound.fetch("fetch", peer.url + "/over", **LIMITS)


async def test_an_endless_answer_is_cut(peer: Peer) -> None:
    async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    peer.routes["/"] = endless
    async with opened("127.0.0.1") as outbound:
        with pytest.raises(OutboundTooLarge):
            await outbound.fetch("fetch", peer.url + "/", **LIMITS)


async def test_compressed_answers_are_read_within_the_cap(peer: Peer) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    peer.routes["/small"] = plain(body=gzip.compress(b"text"), content_encoding="gzip")
    peer.routes["/bomb"] = plain(body=bomb, content_encoding="gzip")
    peer.routes["/cut"] = plain(body=gzip.compress(b"text" * 99)[:-9], content_encoding="gzip")
    peer.routes["/not"] = plain(body=b"plain", content_encoding="gzip")
    peer.routes["/deflate"] = plain(body=zlib.compress(b"x"), content_encoding="deflate")
    peer.routes["/br"] = plain(body=b"x", content_encoding="br")
    assert len(bomb) < LIMITS["max_bytes"]
    async with opened("127.0.0.1") as outbound:
        assert (await outbound.fetch("fetch", peer.url + "/small", **LIMITS)).body == b"text"
        with pytest.raises(OutboundTooLarge):
            await outbound.fetch("fetch", peer.url + "/bomb", **LIMITS)
        for target in ("/cut", "/not", "/deflate", "/br"):
            with pytest.raises(OutboundFailed):
                await outbound.fetch("fetch", peer.url + target, **LIMITS)
        asked = {"accept-encoding": "gzip"}
        with pytest.raises(OutboundFailed):
            await outbound.client("fetch").get(peer.url + "/bomb")
        with pytest.raises(OutboundFailed):
            await outbound.client("fetch").get(peer.url + "/bomb", headers=asked)
        async with outbound.session("fetch", headers=asked, timeout=5, max_bytes=10**6) as session:
            with pytest.raises(OutboundFailed):
                await session.get(peer.url + "/bomb")


async def test_a_slow_answer_ends_at_the_time_cap(peer: Peer) -> None:
    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    peer.routes["/"] = drip
    async with opened("127.0.0.1") as outbound:
        with pytest.raises(OutboundFailed, match="within"):
            await outbound.fetch("fetch", peer.url + "/", max_bytes=1000, timeout=0.1)


async def test_broken_answers_fail(peer: Peer) -> None:
    peer.routes["/garbage"] = b"\x00\x01\x02 not http\r\n\r\n"
    peer.routes["/short"] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"
    peer.routes["/empty"] = b""
    peer.routes["/huge-header"] = b"HTTP/1.1 200 OK\r\nx: " + b"y" * 500_000 + b"\r\n\r\n"
    async with opened("127.0.0.1") as outbound:
        for target in peer.routes:
            with pytest.raises(OutboundFailed):
                await outbound.fetch("fetch", peer.url + target, **LIMITS)
        await peer.stop()
        with pytest.raises(OutboundFailed):
            await outbound.fetch("fetch", peer.url + "/", **LIMITS)
