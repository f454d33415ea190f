"""The defences around websockets: attacks, and what takes each defence away.

Imported, it adds its checks to those of defences.py.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

from domain.caller import Caller
from domain.sessions import Sessions
from server.lane.leases import Leases
from tests.security import asgi
from tests.security.defences import DEFENCES as DEFENCES
from tests.security.defences import answering, without
from tests.security.place import Account, Place
from tests.security.session_defences import _any_session

REVOKED, LATER = 4401, 1013
SOON_S = 1.0
MOST = 5
"""Websockets of an account at the same time (document 002, "Rate limit")."""


class Opened:
    """A websocket straight into the application; `told` is what came of its handshake."""

    def __init__(self, place: Place, target: str, headers: asgi.Headers) -> None:
        scope = {**asgi.scope_of("GET", target, headers, "192.0.2.10"), "type": "websocket"}
        scope |= {"subprotocols": [], "extensions": {"websocket.http.response": {}}}
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.create_task(
            place.application(scope, self._said.get, self._sent.put)  # type: ignore[arg-type]
        )

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            return await self._sent.get()

    async def status(self) -> int:
        """The HTTP status of the handshake."""
        told = await self.next()
        return 101 if told["type"] == "websocket.accept" else told.get("status", 0)

    async def code(self, within: float) -> int:
        """The close code. Raises TimeoutError."""
        async with asyncio.timeout(within):
            while (told := await self._sent.get())["type"] != "websocket.close":
                pass
        return int(told["code"])

    async def leave(self) -> None:
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1001})
        with contextlib.suppress(Exception, asyncio.CancelledError):
            async with asyncio.timeout(5):
                await self._task


@contextlib.asynccontextmanager
async def opened(
    place: Place, who: Account | None, session: str, *, origin: str = ""
) -> AsyncIterator[Opened]:
    target = f"/sandbox/api/sessions/{session}/vnc"
    target += f"?token={who.token}" if who else ""
    made = Opened(place, target, [(b"origin", origin.encode())] if origin else [])
    try:
        yield made
    finally:
        await made.leave()


async def _screen(*_: Any) -> tuple[asyncio.StreamReader, mock.Mock]:
    """A screen that shows nothing."""
    return asyncio.StreamReader(), mock.Mock(drain=mock.AsyncMock(), wait_closed=mock.AsyncMock())


def dark() -> Any:
    """What is asked here is who gets to a screen; a sandbox for each would only take time."""
    return mock.patch.object(Sessions, "display", _screen)


@without(45, origin={"server.lane.access:Door.refuse_other_origins": lambda self, headers: None})
async def another_sites_page_opens_no_socket(place: Place) -> None:
    with dark():
        for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example:8000"):
            async with opened(place, place.owner, place.conversation, origin=origin) as socket:
                assert await socket.status() == 403, origin
        own = "http://127.0.0.1:8000"
        async with opened(place, place.owner, place.conversation, origin=own) as socket:
            assert await socket.status() == 101


_ANYBODY = {"server.lane.access:Door.caller": answering(Caller(user_id="", role="admin"))}


@without(1, caller=_ANYBODY)
@without(14, own={"domain.sessions:Sessions.find": _any_session})
async def a_screen_is_its_owners(place: Place) -> None:
    with dark():
        for who, status in ((None, 403), (place.stranger, 403), (place.owner, 101)):
            async with opened(place, who, place.conversation) as socket:
                assert await socket.status() == status, who


@without(5, signal={"domain.identity.known:Known._end": lambda self, key: None})
async def a_ban_closes_open_sockets_within_a_second(place: Place) -> None:
    account = await place.account("watcher")
    made = await asgi.ask(
        place.application,
        "POST",
        "/sandbox/api/sessions",
        headers={"authorization": f"Bearer {account.token}"},
    )
    with dark():
        async with opened(place, account, made.data["session_id"]) as socket:
            assert await socket.status() == 101
            await place.quartet.users.set_status(place.root, account.id, "banned")
            try:
                assert await socket.code(within=SOON_S) == REVOKED
            except TimeoutError:
                raise AssertionError("the socket of a banned account stays open") from None


@contextlib.asynccontextmanager
async def _unheld(self: Leases, bucket: str, user_id: str) -> AsyncIterator[None]:
    yield


@without(58, sockets={"server.lane.leases:Leases.held": _unheld})
async def an_account_holds_so_many_sockets(place: Place) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(dark())
        for _ in range(MOST):
            more = await stack.enter_async_context(opened(place, place.owner, place.conversation))
            assert await more.status() == 101
        async with opened(place, place.owner, place.conversation) as last:
            try:
                assert await last.code(within=SOON_S) == LATER
            except TimeoutError:
                raise AssertionError("one more stays open") from None
