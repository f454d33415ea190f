"""A cheap client: raw HTTP/1.1 over kept connections, so that two cores are left to the server."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

HEADERS = "host: 127.0.0.1\r\nuser-agent: bench\r\naccept: */*\r\n"


def request(
    method: str, path: str, *, token: str = "", body: Mapping[str, Any] | None = None
) -> bytes:
    """The bytes of one request; a body is sent as JSON."""
    head = f"{method} {path} HTTP/1.1\r\n{HEADERS}"
    if token:
        head += f"authorization: Bearer {token}\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    content = json.dumps(body).encode()
    head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Refused(Exception):
    """A server answered something other than 200."""


class Connection(asyncio.Protocol):
    """One kept connection; one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._expected = -1
        self._body_at = 0
        self._waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if self._expected < 0:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._body_at = end + 4
            head = bytes(buffer[:end]).lower()
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._expected = self._body_at + int(length)
        if len(buffer) >= self._expected and self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            status, body = bytes(buffer[9:12]), bytes(buffer[self._body_at : self._expected])
            buffer.clear()
            self._expected = -1
            if status == b"200":
                waiter.set_result(body)
            else:
                waiter.set_exception(Refused(f"{status.decode()}: {body[:300]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError("the server closed the connection"))

    def ask(self, content: bytes) -> asyncio.Future[bytes]:
        """Send one request; the body of its answer. Raises Refused."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(content)
        return self._waiter

    def close(self) -> None:
        self._transport.close()


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, "127.0.0.1", port
    )
    return connection


async def ask(port: int, content: bytes) -> Any:
    """One request over a connection of its own: the `data` of the envelope it answers."""
    connection = await connect(port)
    try:
        return json.loads(await connection.ask(content))["data"]
    finally:
        connection.close()


async def load(port: int, make: Callable[[], bytes], count: int, connections: int) -> None:
    """`count` requests over that many connections, each busy all the time."""
    left = count

    async def worker(connection: Connection) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await connection.ask(make())

    opened = [await connect(port) for _ in range(connections)]
    try:
        await asyncio.gather(*(worker(connection) for connection in opened))
    finally:
        for connection in opened:
            connection.close()
