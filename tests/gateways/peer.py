"""A small real HTTP server whose answers a test writes by hand."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable


class Request:
    """A request as it came over the wire; header names in lower case."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def plain(
    status: int = 200, body: bytes | str = b"", media_type: str = "text/plain", **headers: str
) -> bytes:
    """A whole HTTP/1.1 answer; `_` in a header's name becomes `-`."""
    data = body.encode() if isinstance(body, str) else body
    lines = {"content-type": media_type, "content-length": str(len(data)), "connection": "close"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + data


class Peer:
    """Listens on 127.0.0.1 and counts. `routes` maps a target to bytes or to a coroutine function
    that writes; a target it does not know is 404."""

    def __init__(self) -> None:
        self.routes: dict[str, bytes | Answer] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, tls: ssl.SSLContext | None = None) -> "Peer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {
                name.strip().lower(): value.strip()
                for name, value in (line.split(":", 1) for line in lines)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Request(method, target, headers, body)
            self.requests.append(request)
            answer = self.routes.get(target.split("?")[0], plain(404, "no such route"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(request, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()
