"""Slowloris against server/protocol.py, with its times made short."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvicorn

from server import protocol
from server.listening import listen
from tests.chaos.deployment import Kept

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"


async def application(scope: dict, receive: object, send: object) -> None:
    """Reads the body, or, at /unread, waits; then says how much came."""
    size, more = 0, True
    if scope["path"] == "/unread":
        await asyncio.sleep(0.5)
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def base(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setattr(protocol, "HEADERS_TIMEOUT_S", 0.3)
    monkeypatch.setattr(protocol, "BODY_TIMEOUT_S", 0.3)
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        application, http=protocol.limited(32 * 1024), lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def dripped(connection: Kept, data: bytes, every_s: float) -> None:
    for byte in data:
        await connection.send(bytes([byte]))
        await asyncio.sleep(every_s)


async def test_headers_that_drip_are_408(base: str) -> None:
    connection = await Kept.to(base)
    dripping = asyncio.create_task(dripped(connection, HEAD, 0.05))
    assert (await connection.rest()).startswith(b"HTTP/1.1 408 ")
    dripping.cancel()


async def test_a_connection_that_says_nothing_is_closed(base: str) -> None:
    connection = await Kept.to(base)
    assert (await connection.rest(5)).startswith(b"HTTP/1.1 408 ")


async def test_a_second_request_has_no_longer(base: str) -> None:
    connection = await Kept.to(base)
    await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await connection.head()
    await connection.exactly(1)
    dripping = asyncio.create_task(dripped(connection, HEAD, 0.05))
    assert (await connection.rest()).startswith(b"HTTP/1.1 408 ")
    dripping.cancel()


async def test_a_body_that_stalls_ends_the_connection(base: str) -> None:
    connection = await Kept.to(base)
    await connection.send(HEAD + b"\r\n" + b"x" * 50)
    assert await connection.rest(5) == b""


async def test_a_body_that_drips_but_goes_on_is_read(base: str) -> None:
    connection = await Kept.to(base)
    await connection.send(HEAD + b"Connection: close\r\n\r\n")
    await dripped(connection, b"x" * 100, 0.01)
    assert (await connection.rest()).endswith(b"\r\n\r\n100")


async def test_a_body_that_the_application_does_not_read_is_not_the_clients_fault(
    base: str,
) -> None:
    size = 1024 * 1024
    connection = await Kept.to(base)
    await connection.send(
        b"POST /unread HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (size, b"x" * size)
    )
    assert (await connection.rest()).endswith(b"\r\n\r\n%d" % size)


async def test_a_header_without_an_end_is_refused_when_it_is_too_large(base: str) -> None:
    connection = await Kept.to(base)
    await connection.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 1024 * 1024)
    assert (await connection.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_large_body_before_a_pipelined_head_is_not_counted_as_headers(base: str) -> None:
    size = 256 * 1024
    connection = await Kept.to(base)
    await connection.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (size, b"x" * size)
        + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: "
    )
    await asyncio.sleep(0.1)
    await connection.send(b"close\r\n\r\n")
    answer = await connection.rest()
    assert answer.count(b"HTTP/1.1 200 OK") == 2
