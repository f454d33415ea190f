"""sandbox: sessions and their chats (document 002, "Session Module"). Events: events.py."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any

from domain.caller import Caller
from domain.errors import Unauthenticated, Unusable
from domain.quartet import Quartet
from domain.sessions import Chat
from gateways.sandbox.confining import WORKSPACE
from generated.sandbox import models
from handlers.relay import relay
from handlers.sandbox import events
from handlers.sandbox.file import info
from handlers.wire import Carry, Origin, Socket, Stream
from storage.conversations import SessionRow

EVENTS = "text/event-stream; charset=utf-8"
KEPT_ALIVE = (("Connection", "keep-alive"),)
TICK_S = 0.5
"""How often an idle chat looks whether its login session has ended."""
PING_S = 15.0
"""How long a chat says nothing at most; shorter where HEARTBEAT_S is."""
STATUSES = {
    None: "pending",
    "queued": "pending",
    "running": "running",
    "waiting": "waiting",
    "paused": "waiting",
}
"""By the state of a session's latest run, as long as that has not ended: the session's status."""


async def create(quartet: Quartet, caller: Caller) -> models.CreateSessionResponse:
    return models.CreateSessionResponse(session_id=await quartet.sessions.create(caller))


async def list_(quartet: Quartet, caller: Caller) -> dict[str, Any]:
    return shown(await quartet.sessions.list(caller))


async def stream(quartet: Quartet, caller: Caller) -> Stream:
    return Stream(_lists(quartet, caller), EVENTS, KEPT_ALIVE)


async def get(quartet: Quartet, caller: Caller, session_id: str) -> dict[str, Any]:
    session, runs = await quartet.sessions.history(caller, session_id)
    told = [one for run, records in runs for one in events.summed_up(run, records)]
    return {
        "session_id": session.id,
        "title": session.title,
        "status": status(runs[-1][0].state if runs else None),
        "events": [{"event": name, "data": data} for name, data in told],
    }


async def chat(
    quartet: Quartet, caller: Caller, session_id: str, body: models.ChatRequest, origin: Origin
) -> Stream:
    after = None
    if body.event_id:
        after = events.position_of(body.event_id)
        if after is None:
            raise Unusable("session.event")
    begun = await quartet.sessions.chat(
        caller,
        session_id,
        body.message or None,
        attachments=body.attachments or (),
        event_id=after,
        language=origin.language,
    )
    return _stream(quartet, caller, begun)


async def replay(quartet: Quartet, caller: Caller, run_id: str) -> Stream:
    """The stream of a run that a request under an Idempotency-Key began."""
    begun = await quartet.sessions.chat_of_run(caller, run_id)
    if begun is None:
        return Stream(_nothing(), EVENTS, KEPT_ALIVE)
    return _stream(quartet, caller, begun)


async def stop(quartet: Quartet, caller: Caller, session_id: str) -> None:
    await quartet.sessions.stop(caller, session_id)


async def clear_unread_count(quartet: Quartet, caller: Caller, session_id: str) -> None:
    await quartet.sessions.clear_unread(caller, session_id)


async def delete(quartet: Quartet, caller: Caller, session_id: str) -> None:
    await quartet.sessions.delete(caller, session_id)


async def list_files(quartet: Quartet, caller: Caller, session_id: str) -> dict[str, Any]:
    found = await quartet.sessions.files(caller, session_id)
    return {"files": [info(file, f"{WORKSPACE}/{file.path}") for file in found]}


async def read_file(
    quartet: Quartet, caller: Caller, session_id: str, body: models.FileReadRequest
) -> models.FileReadResponse:
    content = await quartet.sessions.read_file(caller, session_id, body.filepath)
    return models.FileReadResponse(filepath=body.filepath, content=content)


async def read_shell(
    quartet: Quartet, caller: Caller, session_id: str, body: models.ShellReadRequest
) -> models.ShellReadResponse:
    output, records = await quartet.sessions.console(caller, session_id, body.session_id)
    console = [
        models.ConsoleRecord(ps1=one.ps1, command=one.command, output=one.output) for one in records
    ]
    return models.ShellReadResponse(
        session_id=body.session_id, output=output, console_records=console
    )


def status(state: str | None) -> str:
    """A session's status by the state of its latest run."""
    return STATUSES.get(state, "completed")


def shown(rows: Sequence[SessionRow]) -> dict[str, Any]:
    """ListSessionResponse. Times are left to the encoder: as text they cost more than all the
    rest."""
    return {
        "sessions": [
            {
                "session_id": row.id,
                "title": row.title,
                "latest_message": row.latest_message,
                "latest_message_at": (
                    datetime.fromtimestamp(row.latest_message_at, UTC)
                    if row.latest_message_at
                    else None
                ),
                "status": status(row.state),
                "unread_message_count": row.unread,
            }
            for row in rows
        ]
    }


def _sent(rows: Sequence[SessionRow]) -> bytes:
    return events.sse("sessions", shown(rows))


async def open_vnc(quartet: Quartet, caller: Caller, session_id: str) -> Carry:
    await quartet.sessions.find(caller, session_id)

    async def carry(socket: Socket) -> None:
        await relay(socket, *await quartet.sessions.display(caller, session_id))

    return carry


class _Open:
    """A chat's stream while its client reads it: closed, even before its first event, it tells
    that nobody reads any more."""

    def __init__(self, quartet: Quartet, caller: Caller, begun: Chat) -> None:
        self._sessions = quartet.sessions
        self._begun: Chat | None = begun
        self._told = _told(quartet, caller, begun)
        self._sessions.began(begun)

    def __aiter__(self) -> "_Open":
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._told)
        except StopAsyncIteration:
            self._leave()
            raise

    async def aclose(self) -> None:
        await self._told.aclose()
        self._leave()

    def _leave(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            self._sessions.left(begun)


def _stream(quartet: Quartet, caller: Caller, begun: Chat) -> Stream:
    return Stream(_Open(quartet, caller, begun), EVENTS, KEPT_ALIVE)


async def _told(quartet: Quartet, caller: Caller, begun: Chat) -> AsyncGenerator[bytes, None]:
    """The chat's events. Raises Unauthenticated once the login session has ended."""
    revoked = quartet.identity.ended(caller)
    task = asyncio.current_task()

    def cut() -> None:
        """Nobody takes the events: end the connection, which waits for its client."""
        if task is not None:
            task.cancel()

    ping_s = min(PING_S, quartet.runs.heartbeat_s)
    ping_at = time.monotonic() + ping_s
    async for passage in quartet.sessions.told(begun, idle_s=TICK_S, on_cut=cut):
        if revoked.is_set():
            raise Unauthenticated("auth.expired")
        told = [events.opening(passage.run)] if passage.opens else []
        told += events.rendered(passage.run, passage.records, passage.part)
        if told:
            ping_at = time.monotonic() + ping_s
            yield b"".join([events.sse(name, data) for name, data in told])
        elif time.monotonic() >= ping_at:
            ping_at = time.monotonic() + ping_s
            yield events.ping()


async def _lists(quartet: Quartet, caller: Caller) -> AsyncGenerator[bytes, None]:
    """The caller's list at once and whenever it is time. Raises Unauthenticated once the login
    session has ended."""
    revoked = quartet.identity.ended(caller)
    async with quartet.sessions.feed(caller, _sent) as feed:
        data = await feed.first()
        while not revoked.is_set():
            yield data
            data = await feed.next()
    raise Unauthenticated("auth.expired")


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""
