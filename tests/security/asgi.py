"""Requests straight into an ASGI application: what was read of the body shows, and a stream can be
held open."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

Headers = list[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """A whole answer. `read` counts how often the application asked for the body."""

    http: int
    headers: dict[str, str]
    body: bytes
    read: int

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def status(self) -> int:
        """The effective one: the envelope's where HTTP says 200 (rules, "Measuring")."""
        if self.http != 200 or not self.headers.get("content-type", "").startswith("application/j"):
            return self.http
        code = self.json().get("code", 200)
        return code if isinstance(code, int) else self.http

    @property
    def data(self) -> Any:
        assert self.status == 200, self
        return self.json()["data"]


def form(*parts: tuple[str, str | None, bytes]) -> dict[str, Any]:
    """A multipart body and its header, of parts: name, file name (None for a text), content."""
    made = b""
    for name, filename, content in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        head = f'--PART\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        made += head.encode("utf-8", "surrogatepass") + content + b"\r\n"
    headers = {"content-type": "multipart/form-data; boundary=PART"}
    return {"body": made + b"--PART--\r\n", "headers": headers}


class Exchange:
    """One request under way."""

    def __init__(self, application: Any, scope: dict[str, Any], body: bytes) -> None:
        self.read = 0
        self.status = 0
        self.headers: Headers = []
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.started = asyncio.Event()
        self._body = body
        self._gone = asyncio.Event()
        self.task = asyncio.create_task(self._run(application, scope))

    async def _run(self, application: Any, scope: dict[str, Any]) -> None:
        try:
            await application(scope, self._receive, self._send)
        finally:
            self.started.set()
            self.chunks.put_nowait(None)

    async def _receive(self) -> dict[str, Any]:
        self.read += 1
        if self.read == 1:
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
            self.started.set()
        else:
            self.chunks.put_nowait(message.get("body", b""))
            if not message.get("more_body"):
                self.chunks.put_nowait(None)

    async def rest(self, within: float = 10.0) -> bytes:
        """Everything until the answer ends. Raises TimeoutError."""
        body = b""
        async with asyncio.timeout(within):
            while (chunk := await self.chunks.get()) is not None:
                body += chunk
        return body

    async def leave(self) -> None:
        self._gone.set()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            async with asyncio.timeout(5):
                await self.task


def scope_of(
    method: str, target: str, headers: Headers, peer: str, port: int = 8000
) -> dict[str, Any]:
    path, _, query = target.partition("?")
    from urllib.parse import unquote

    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": (peer, 50000),
        "server": ("127.0.0.1", port),
    }


@contextlib.asynccontextmanager
async def exchange(
    application: Any,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | Headers | None = None,
    body: Any = None,
    peer: str = "192.0.2.10",
) -> AsyncIterator[Exchange]:
    """A request whose answer has begun; the client leaves when the block does. A `body` that is
    not bytes goes as JSON."""
    pairs = (
        list(headers)
        if isinstance(headers, list)
        else [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
    )
    names = {name for name, _ in pairs}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        if b"content-type" not in names:
            pairs.append((b"content-type", b"application/json"))
    if body is not None and b"content-length" not in names:
        pairs.append((b"content-length", b"%d" % len(body)))
    made = Exchange(application, scope_of(method, target, pairs, peer), body or b"")
    try:
        async with asyncio.timeout(20):
            await made.started.wait()
        yield made
    finally:
        await made.leave()


async def ask(application: Any, method: str, target: str, **options: Any) -> Reply:
    """One whole request; of an event stream the first event alone."""
    async with exchange(application, method, target, **options) as made:
        headers = {k.decode().lower(): v.decode("latin-1") for k, v in made.headers}
        if headers.get("content-type", "").startswith("text/event-stream"):
            body = await made.chunks.get() or b""
        else:
            body = await made.rest()
        return Reply(made.status, headers, body, made.read)
