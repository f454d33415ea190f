"""Chat: the streams of sage (document 000, "Chat and streaming"). Lines: lines.py."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial

import msgspec

from domain.caller import Caller
from domain.errors import Unauthenticated
from domain.quartet import Quartet
from domain.runs.life import Found
from domain.turn.plan import TurnRequest
from domain.turn.telling import ENDED
from generated.sage.models import ActiveSession, ChatRequest, StreamRequest
from handlers.sage.lines import HEARTBEAT, View, fallback, rendered
from handlers.wire import Origin, Stream

TEXT = "text/plain; charset=utf-8"
EVENTS = "text/event-stream"
TICK_S = 0.5
"""How often an idle stream looks whether its login session has ended."""


async def create(quartet: Quartet, caller: Caller, body: ChatRequest, origin: Origin) -> Stream:
    return await _begin(quartet, caller, body, origin, stops_with_client=True)


async def stream(quartet: Quartet, caller: Caller, body: StreamRequest, origin: Origin) -> Stream:
    return await _begin(quartet, caller, body, origin, stops_with_client=True)


async def stream_web(
    quartet: Quartet, caller: Caller, body: StreamRequest, origin: Origin
) -> Stream:
    return await _begin(quartet, caller, body, origin, interrupts=True)


async def resume(
    quartet: Quartet, caller: Caller, session_id: str, last_index: int, run_id: str | None
) -> Stream:
    found = await quartet.runs.find(caller, session_id, run_id)
    if found is None:
        return Stream(_nothing(), TEXT)
    lines = await quartet.runs.lines_of(found.run.id)
    if not found.run.live and last_index >= lines:
        return _stream(_one(fallback(found.conversation.session_id, time.time())), found)
    return _stream(_lines(quartet, caller, found, last_index, heartbeats=True), found)


async def stream_sessions(quartet: Quartet, caller: Caller) -> Stream:
    return Stream(_sessions(quartet, caller), EVENTS)


async def replay(quartet: Quartet, caller: Caller, run_id: str) -> Stream:
    """The stream of a run that a request under an Idempotency-Key began, from its first line."""
    found = await quartet.runs.get(caller, run_id)
    if found is None:
        return Stream(_nothing(), TEXT)
    return _stream(
        _lines(quartet, caller, found, 0, heartbeats=not found.run.stops_with_client), found
    )


async def _begin(
    quartet: Quartet,
    caller: Caller,
    body: ChatRequest | StreamRequest,
    origin: Origin,
    *,
    stops_with_client: bool = False,
    interrupts: bool = False,
) -> Stream:
    asked = msgspec.convert(msgspec.to_builtins(body), TurnRequest)
    started = await quartet.runs.start(
        caller,
        asked,
        language=origin.language,
        stops_with_client=stops_with_client,
        interrupts=interrupts,
        user_id=body.user_id or None,
    )
    found = Found(started.run, started.conversation)
    lines = _lines(quartet, caller, found, 0, heartbeats=not stops_with_client)
    if not stops_with_client:
        return _stream(lines, found)
    return _stream(_Attended(lines, partial(quartet.runs.client_left, found.run.id)), found)


class _Attended:
    """The lines of a run that stops with its client: closed before their end, even before their
    first, they tell that the client has left."""

    def __init__(self, lines: AsyncGenerator[bytes, None], left: Callable[[], None]) -> None:
        self._lines = lines
        self._left = left
        self._ended = False

    def __aiter__(self) -> "_Attended":
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._lines)
        except StopAsyncIteration:
            self._ended = True
            raise

    async def aclose(self) -> None:
        await self._lines.aclose()
        if not self._ended:
            self._ended = True
            self._left()


def _stream(source: AsyncIterator[bytes], found: Found) -> Stream:
    return Stream(source, TEXT, (("X-Run-Id", found.run.id),))


async def _lines(
    quartet: Quartet, caller: Caller, found: Found, from_line: int, *, heartbeats: bool
) -> AsyncGenerator[bytes, None]:
    """The run's lines behind `from_line` until it ends. Raises Unauthenticated once the login
    session has ended."""
    run, runs = found.run, quartet.runs
    view = View(
        found.conversation.session_id,
        run.request.get("agent_name", ""),
        run.request.get("language", "zh"),
    )
    revoked = quartet.identity.ended(caller)
    task = asyncio.current_task()

    def cut() -> None:
        """Nobody takes the lines: end the connection, which waits for its client."""
        if task is not None:
            task.cancel()

    beat_at = time.monotonic() + runs.heartbeat_s
    received = False
    async with runs.follow(run.id, from_line, idle_s=TICK_S, on_cut=cut) as follower:
        async for records in follower:
            if revoked.is_set():
                raise Unauthenticated("auth.expired")
            if records:
                if lines := rendered(records, view):
                    received = True
                    beat_at = time.monotonic() + runs.heartbeat_s
                    yield lines
                if records[-1].type == ENDED:
                    return
            elif from_line and not received and not await runs.is_live(run.id):
                yield fallback(view.session_id, time.time())
                return
            elif heartbeats and time.monotonic() >= beat_at:
                beat_at = time.monotonic() + runs.heartbeat_s
                yield HEARTBEAT


async def _sessions(quartet: Quartet, caller: Caller) -> AsyncGenerator[bytes, None]:
    """The caller's active sessions at once, and whenever that list changes. Raises
    Unauthenticated once the login session has ended."""
    runs = quartet.runs
    revoked = quartet.identity.ended(caller)
    head = await runs.account_head(caller.user_id)
    beat_at = time.monotonic() + runs.heartbeat_s
    sent = b""
    async with runs.follow_account(caller.user_id, head, idle_s=TICK_S) as follower:
        while True:
            data = b"data: " + msgspec.json.encode(await _active(quartet, caller)) + b"\n\n"
            if data != sent:
                sent = data
                yield data
            while not await anext(follower):
                if revoked.is_set():
                    raise Unauthenticated("auth.expired")
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + runs.heartbeat_s
                    yield HEARTBEAT


async def _active(quartet: Quartet, caller: Caller) -> list[ActiveSession]:
    return [
        ActiveSession(
            session_id=one.session_id,
            created_at=one.created_at,
            is_completed=one.state == "cancelled",
            status="interrupted" if one.state == "cancelled" else "running",
            last_activity=one.changed_at,
            query=one.query,
        )
        for one in await quartet.runs.active(caller)
    ]


async def _one(line: bytes) -> AsyncGenerator[bytes, None]:
    yield line


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""
