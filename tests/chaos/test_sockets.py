"""What no well-behaved client sends: a clean refusal, or the end of the connection, and a server
that goes on serving."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.chaos.deployment import Kept, Site, deployed, entered
from tests.chaos.disconnects import Answer
from tests.serving import Server

HEADERS_MAX = 32 * 1024
BODY_MAX = 1024 * 1024
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: x\r\n"
CREATE = b"POST /api/agent/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with deployed(tmp_path_factory.mktemp("sockets") / "data") as running:
        yield running


@pytest.fixture
async def site(server: Server) -> AsyncIterator[Site]:
    """A login; what the test has sent has hurt nobody, and the server logged no fault."""
    before = len(server.logged())
    made = await entered(server)
    yield made
    assert (await made.call("GET", "/api/agent/list")).status == 200
    assert server.process.poll() is None
    assert "Traceback" not in server.logged()[before:]


def answers(raw: bytes) -> list[Answer]:
    """Every HTTP/1.1 response on a connection."""
    found = []
    while raw:
        head, separator, rest = raw.partition(b"\r\n\r\n")
        assert separator, raw[:200]
        answer = Answer()
        answer.feed(head + separator)
        length = int(answer.headers.get("content-length", 0))
        if not answer.ended:
            answer.feed(rest[:length])
        assert answer.ended, raw[:200]
        found.append(answer)
        raw = rest[length:]
    return found


async def exchanged(site: Site, *parts: bytes, leaves: bool = False) -> list[Answer]:
    """The answers to bytes sent as they are; a client that `leaves` then ends its side."""
    connection = await Kept.to(site.base)
    for part in parts:
        await connection.send(part)
    if leaves:
        await connection.end()
    return answers(await connection.rest())


# --- what is too large --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        HEALTH + b"X-Long: " + b"x" * (HEADERS_MAX + 1) + b"\r\n\r\n",
        HEALTH + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 90) for n in range(400)) + b"\r\n",
        b"GET /api/health?" + b"q" * (HEADERS_MAX + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        HEALTH + b"x" * (HEADERS_MAX + 1) + b": 1\r\n\r\n",
        HEALTH + b"X-Never-Ends: " + b"x" * (8 * HEADERS_MAX),
    ],
    ids=["one header", "many headers", "a query", "a name", "without an end"],
)
async def test_headers_beyond_the_limit_are_431(site: Site, request_: bytes) -> None:
    (answer,) = await exchanged(site, request_)
    assert answer.status == 431
    assert answer.headers["connection"] == "close"


async def test_headers_below_the_limit_pass(site: Site) -> None:
    wide = HEALTH + b"X-Long: " + b"x" * (HEADERS_MAX - 2000) + b"\r\nConnection: close\r\n\r\n"
    (answer,) = await exchanged(site, wide)
    assert answer.status == 200


async def test_a_body_beyond_the_limit_is_413_however_it_is_framed(site: Site) -> None:
    token = f"Authorization: Bearer {site.token}\r\n".encode()
    declared = CREATE + token + b"Content-Length: %d\r\n\r\n" % (BODY_MAX + 1)
    told = answers(await first_answer(site, declared))
    assert told[0].status == 413
    assert json.loads(told[0].body)["code"] == 413

    chunk = b"%x\r\n%s\r\n" % (65536, b" " * 65536)
    chunked = CREATE + token + b"Transfer-Encoding: chunked\r\n\r\n"
    told = answers(await first_answer(site, chunked, *[chunk] * (BODY_MAX // 65536 + 2)))
    assert told[0].status == 413
    many = b"1\r\n \r\n" * 200_000
    told = answers(await first_answer(site, chunked, *[many] * 6))
    assert told[0].status == 413


async def first_answer(site: Site, *parts: bytes) -> bytes:
    """The first answer's bytes, read while the request may still be under way."""
    connection = await Kept.to(site.base)
    for part in parts:
        await connection.send(part)
    head = await connection.head()
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = await connection.exactly(length)
    connection.close()
    return head + body


async def test_a_length_that_is_no_number_or_astronomic_is_refused(site: Site) -> None:
    for length in (b"-1", b"1e3", b"0x10", b"+5", b"5 5", b"", b"9" * 400, b"18446744073709551617"):
        told = await exchanged(
            site, CREATE + b"Content-Length: " + length + b"\r\n\r\n", leaves=True
        )
        assert all(answer.status in (400, 401, 413) for answer in told), (length, told)


# --- smuggling: no second request comes out of one ----------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Content-Length: 0\r\nContent-Length: 60\r\n",
        b"Content-Length: 60\r\nContent-Length: 0\r\n",
        b"Content-Length: 0, 60\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length : 4\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"X: y\nTransfer-Encoding: chunked\n",
        b"X: a\rTransfer-Encoding: chunked\r\n",
        b"X: a\0b\r\n",
        b" Content-Length: 4\r\n",
        b"Content-Length: 4\r\n\tfolded\r\n",
    ],
)
async def test_no_second_request_comes_out_of_an_ambiguous_one(site: Site, head: bytes) -> None:
    told = await exchanged(site, CREATE + head + b"\r\n", b"0\r\n\r\n" + SMUGGLED, leaves=True)
    assert [answer.status for answer in told] == [400]


@pytest.mark.parametrize(
    "body",
    [
        b"5;\nx\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
    ],
)
async def test_malformed_chunks_end_the_connection(site: Site, body: bytes) -> None:
    token = f"Authorization: Bearer {site.token}\r\n".encode()
    head = CREATE + token + b"Transfer-Encoding: chunked\r\n\r\n"
    told = await exchanged(site, head, body + SMUGGLED, leaves=True)
    assert len(told) <= 1, [answer.status for answer in told]
    assert all(answer.status == 400 for answer in told)


# --- unusual, and right -------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    paths = [b"/api/health", b"/nowhere", b"/active", b"/api/agent/list", b"/api/health"]
    requests = [b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths[:-1]]
    last = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % paths[-1]
    told = await exchanged(site, b"".join([*requests, last]))
    assert [answer.status for answer in told] == [200, 404, 200, 401, 200]


async def test_a_request_may_come_byte_by_byte(site: Site) -> None:
    parts = [bytes([byte]) for byte in HEALTH + b"Connection: close\r\n\r\n"]
    (answer,) = await exchanged(site, *parts)
    assert answer.status == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET http://x/api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        (
            b"GET http://other.example/api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            200,
        ),
        (b"GET /api/%00health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"GET /api/%ff%fe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"GET //api//health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /api/../api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 0),
        (b"TRACE /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        (b"BREW /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 0),
        (b"GET /api/health HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\r\n\r\n\r\nGET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
    ],
)
async def test_unusual_request_lines(site: Site, request_: bytes, status: int) -> None:
    """0: refused in whatever way, but refused."""
    told = await exchanged(site, request_, leaves=True)
    assert len(told) <= 1
    if status:
        assert [answer.status for answer in told] == [status]
    for answer in told:
        assert answer.status == status or 400 <= answer.status < 500


async def test_http_1_0_is_answered_and_closed(site: Site) -> None:
    connection = await Kept.to(site.base)
    await connection.send(b"GET /api/health HTTP/1.0\r\n\r\n")
    raw = await connection.rest()
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["code"] == 200


async def test_a_stream_over_http_1_0_is_framed_by_the_close(site: Site) -> None:
    turn = (
        site.turn("old", '[{"tokens": 3}]')
        .encoded("x")
        .replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    )
    connection = await Kept.to(site.base)
    await connection.send(turn)
    head, _, body = (await connection.rest()).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert json.loads(body.splitlines()[-1])["type"] == "stream_end"


async def test_a_websocket_to_nowhere_is_refused(site: Site) -> None:
    for path in (b"/nowhere", b"/api/health", b"/ws"):
        told = await exchanged(
            site,
            b"GET "
            + path
            + b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            leaves=True,
        )
        assert all(answer.status in (200, 403, 404, 426) for answer in told)
        assert not any(answer.status == 101 for answer in told)


async def test_half_requests_by_the_hundred_hold_nobody_up(site: Site) -> None:
    halves = [await Kept.to(site.base) for _ in range(300)]
    for half in halves:
        await half.send(HEALTH)
    assert (await site.call("GET", "/api/health", timeout_s=10)).status == 200
    for half in halves:
        half.close()
    await asyncio.sleep(0)
