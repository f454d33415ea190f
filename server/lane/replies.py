"""Handler results become ASGI messages."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
from starlette.types import Receive, Send

logger = logging.getLogger("quartet.lane")

SLOW_CLIENT_S = 60.0
BASE_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
STREAM_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"referrer-policy", b"no-referrer"),
)
JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
encode = msgspec.json.Encoder().encode


async def send_body(
    send: Send,
    status: int,
    media_type: bytes,
    body: bytes,
    request_id: bytes,
    extra: list[tuple[bytes, bytes]] | tuple[tuple[bytes, bytes], ...] = (),
    *,
    bodyless: bool = False,
) -> None:
    """One whole response. `bodyless` keeps the headers and leaves the body out (HEAD, 304)."""
    length = (b"content-length", b"%d" % len(body))
    described = () if status == 204 else ((b"content-type", media_type), length)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                *described,
                (b"x-request-id", request_id),
                *BASE_HEADERS,
                *extra,
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if bodyless else body})


class Drain:
    """The streams under way, so that a shutdown can cut them (rules, "Settings"), and how many an
    account has open, so that none takes them all (security 58)."""

    def __init__(self, per_user: int = 200) -> None:
        self._per_user = per_user
        self._streams: set[asyncio.Task[None]] = set()
        self._open: Counter[str] = Counter()

    def add(self, task: asyncio.Task[None], user_id: str = "") -> None:
        self._streams.add(task)
        self._open[user_id] += 1
        task.add_done_callback(partial(self._ended, user_id))

    def is_full(self, user_id: str) -> bool:
        """Whether an account has as many streams open as it may."""
        return self._open[user_id] >= self._per_user

    def _ended(self, user_id: str, task: asyncio.Task[None]) -> None:
        self._streams.discard(task)
        self._open[user_id] -= 1
        if not self._open[user_id]:
            del self._open[user_id]

    def __len__(self) -> int:
        return len(self._streams)

    async def cut(self) -> None:
        """End every stream without a terminal line; clients resume elsewhere."""
        for task in tuple(self._streams):
            task.cancel()
        if self._streams:
            await asyncio.wait(tuple(self._streams), timeout=5)


async def send_stream(
    send: Send,
    receive: Receive,
    source: AsyncIterator[bytes],
    media_type: bytes,
    request_id: bytes,
    extra: list[tuple[bytes, bytes]],
    drain: Drain,
    user_id: str = "",
    *,
    bodyless: bool = False,
) -> None:
    """Send chunks as they come until the source ends, the client leaves or falls behind.

    Only a source that ended by itself gets the terminating chunk: anything else closes the
    connection, so that a cut is never taken for the end.
    """
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", media_type),
                (b"x-request-id", request_id),
                *STREAM_HEADERS,
                *extra,
            ],
        }
    )
    if bodyless:
        await _close(source)
        await send({"type": "http.response.body", "body": b""})
        return
    pump = asyncio.create_task(_pump(send, source))
    drain.add(pump, user_id)
    listener = asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait((pump, listener), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (pump, listener):
            if not task.done():
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(pump, listener, return_exceptions=True)
        await _close(source)
    if not pump.cancelled() and (error := pump.exception()) is not None:
        logger.warning("stream cut: %s", type(error).__name__, exc_info=error)


async def _close(source: AsyncIterator[bytes]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()


async def _pump(send: Send, source: AsyncIterator[bytes]) -> None:
    async for chunk in source:
        async with asyncio.timeout(SLOW_CLIENT_S):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class BrokenContract(AssertionError):
    """A response that its spec does not allow; raised where responses are checked."""


class ResponseCheck:
    """The responses one operation declares: status → media type → validator."""

    def __init__(self, responses: dict[str, dict[str, Any]]) -> None:
        self._responses = responses

    def __call__(self, status: int, media_type: str, body: bytes) -> None:
        """Raise BrokenContract unless the answer is one the spec declares."""
        declared = self._responses.get(str(status))
        if declared is None:
            raise BrokenContract(f"status {status} is not declared")
        if not declared:
            return
        media = media_type.partition(";")[0]
        if media not in declared and "*/*" not in declared:
            raise BrokenContract(f"{media} is not declared for {status}")
        validator = declared.get(media)
        if validator is not None and media == "application/json":
            value = msgspec.json.decode(body)
            if not validator.accepts(value):
                from server.lane.schemas import Violation

                try:
                    validator.check(value)
                except Violation as violation:
                    raise BrokenContract(f"{status}: {violation.errors}") from None
