"""A sandbox's way to the network: an HTTP proxy whose socket is inside and whose connections are
the server's own, made through its one door to the outside (gateways.outbound).

The sandbox itself has a network of its own with nobody else in it. A program that knows the proxy
(`http_proxy`, `https_proxy`) asks for a host by its name (RFC 9110 §9.3.6, RFC 9112 §3.2.2), and is
led to an address that was checked. One connection is for one request or one tunnel.
"""

import asyncio
import re
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus

import h11

from gateways.errors import OutboundFailed, OutboundRefused
from gateways.outbound import target

Connect = Callable[[str, int], Awaitable[tuple[StreamReader, StreamWriter]]]
"""A connection to a host's port. Raises OutboundRefused, OutboundFailed."""

HEAD_MAX = 16 * 1024
HEAD_S = 30.0
IDLE_S = 300.0
"""A tunnel through which nothing comes for so long is closed."""
CONNECTIONS_MAX = 64
_PIECE = 65_536
_AUTHORITY = re.compile(rb"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]@/]+)):([0-9]{1,5})")
_HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"} | {
    b"proxy-connection",
    b"te",
    b"upgrade",
    b"host",
}


class Egress:
    """The proxy of one sandbox."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def begin(self, listening: socket.socket) -> None:
        """Serve who connects to a socket that listens, which is the proxy's from then on."""
        self._server = await asyncio.start_server(self._take, sock=listening)

    def close(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
        for serving in self._serving:
            serving.cancel()

    def _take(self, reader: StreamReader, writer: StreamWriter) -> None:
        if len(self._serving) >= CONNECTIONS_MAX:
            _refuse(writer, HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            writer.close()
            return
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_S):
                request, sent = await _head(reader)
            await self._answer(request, sent, reader, writer)
        except (h11.RemoteProtocolError, TimeoutError):
            _refuse(writer, HTTPStatus.BAD_REQUEST, "the request cannot be read")
        except OutboundRefused as error:
            _refuse(writer, HTTPStatus.FORBIDDEN, str(error))
        except OutboundFailed as error:
            _refuse(writer, HTTPStatus.BAD_GATEWAY, str(error))
        except OSError:
            pass
        finally:
            writer.close()

    async def _answer(
        self, request: h11.Request, sent: bytes, reader: StreamReader, writer: StreamWriter
    ) -> None:
        if request.method == b"CONNECT":
            host, port = _authority(request.target)
            first = b""
        else:
            host, port, first = _forwarded(request)
        _check_port(port)
        outer, out = await self._connect(host, port)
        try:
            if not first:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            out.write(first + sent)
            await _relay((reader, out), (outer, writer))
        finally:
            out.close()


async def _head(reader: StreamReader) -> tuple[h11.Request, bytes]:
    """The request, and what came after its head. Raises h11.RemoteProtocolError."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(HEAD_MAX))
    if not isinstance(event, h11.Request):
        raise h11.RemoteProtocolError("no request")
    return event, connection.trailing_data[0]


def _authority(asked: bytes) -> tuple[str, int]:
    if (found := _AUTHORITY.fullmatch(asked)) is None:
        raise h11.RemoteProtocolError("no authority")
    return (found[1] or found[2]).decode("ascii", "replace"), int(found[3])


def _forwarded(request: h11.Request) -> tuple[str, int, bytes]:
    """Where a request goes, and its head as it is sent there."""
    url = target(request.target.decode("ascii", "replace"))
    if url.scheme != "http":
        raise OutboundRefused("https goes through CONNECT")
    named = {
        word.strip().lower()
        for name, value in request.headers
        if name == b"connection"
        for word in value.split(b",")
    }
    lines = [b"%b %b HTTP/1.1" % (request.method, url.path), b"Host: " + url.authority]
    lines += [
        b"%b: %b" % (name, value)
        for name, value in request.headers.raw_items()
        if name.lower() not in _HOP_BY_HOP | named
    ]
    return url.host, url.port, b"\r\n".join([*lines, b"Connection: close", b"", b""])


def _check_port(port: int) -> None:
    """The ports of the system, mail's above all, are not for programs of agents."""
    if port not in (80, 443) and not 1024 <= port < 65536:
        raise OutboundRefused(f"port {port} is not open to sandboxes")


async def _relay(*ways: tuple[StreamReader, StreamWriter]) -> None:
    """Carry bytes both ways until both sides have ended. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()

    async def carry(source: StreamReader, sink: StreamWriter) -> None:
        while piece := await source.read(_PIECE):
            idle.reschedule(loop.time() + IDLE_S)
            sink.write(piece)
            await sink.drain()
        sink.write_eof()

    with suppress(TimeoutError):
        async with asyncio.timeout(IDLE_S) as idle:
            carrying = [asyncio.create_task(carry(*way)) for way in ways]
            try:
                await asyncio.gather(*carrying)
            finally:
                for each in carrying:
                    each.cancel()


def _refuse(writer: StreamWriter, status: HTTPStatus, reason: str) -> None:
    said = f"{reason}\n".encode()
    head = f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
    head += f"Content-Length: {len(said)}\r\nConnection: close\r\n\r\n"
    with suppress(OSError):
        writer.write(head.encode() + said)
