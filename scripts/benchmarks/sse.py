"""A client of server-sent events that looks for what it expects in the bytes as they come."""

import asyncio
import time
from collections import deque

RECENT = 4
"""Pieces that are kept of what has arrived."""
OK = b"HTTP/1.1 200 "


class Listener(asyncio.Protocol):
    """One request whose answer stays open. It keeps what came last."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._recent: deque[tuple[float, bytes]] = deque(maxlen=RECENT)
        self._begun = False
        self._expected: dict[bytes, asyncio.Future[float]] = {}
        self._failed: Exception | None = None
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.sent_at = time.perf_counter()
        transport.write(self._content)

    def data_received(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            if not data.startswith(b"HTTP/1.1 200 "):
                self._fail(RuntimeError(f"a stream was refused: {data[:500]!r}"))
        if b"event: error" in data:
            self._fail(RuntimeError(f"a stream told of an error: {data[-500:]!r}"))
        before = self._recent[-1][1] if self._recent else b""
        self._recent.append((time.perf_counter(), data))
        for text in [text for text in self._expected if text in before[1 - len(text) :] + data]:
            self._expected.pop(text).set_result(self._recent[-1][0])

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError("the server ended a stream"))

    def _fail(self, error: Exception) -> None:
        self._failed = self._failed or error
        for waiting in self._expected.values():
            if not waiting.done():
                waiting.set_exception(self._failed)
        self._expected.clear()

    async def heard(
        self, text: bytes, *, since: float | None = None, within_s: float = 20.0
    ) -> float:
        """When the text has arrived, from now on or, if it is among what came last, since then.
        Raises RuntimeError for an answer that is not 200 or tells of an error, ConnectionError,
        TimeoutError."""
        if self._failed is not None:
            raise self._failed
        seen = b""
        for at, data in self._recent:
            if since is not None and at >= since:
                seen += data
                if text in seen:
                    return at
        waiting: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._expected[text] = waiting
        try:
            async with asyncio.timeout(within_s):
                return await waiting
        finally:
            self._expected.pop(text, None)

    def close(self) -> None:
        self._transport.abort()


async def listen(port: int, content: bytes) -> Listener:
    """Ask, and listen to the answer."""
    _, listener = await asyncio.get_running_loop().create_connection(
        lambda: Listener(content), "127.0.0.1", port
    )
    return listener
