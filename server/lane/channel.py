"""One websocket of a contract, compiled: who may open it, how it is counted, how it closes.

What is refused before it opens has the HTTP status of the refusal, but for a credential that is no
good: clients of deployed servers see 403 there. Afterwards the close code tells (rules, "Fields").
"""

import asyncio
import base64
import binascii
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from domain.caller import Caller
from domain.errors import DomainError, Forbidden, Throttled
from server.lane.errors import refusal_of
from server.lane.operation import REQUEST_ID, Around, render_refusal, request_id_of
from server.lane.origin import language_of, origin_of
from server.lane.parameters import argument_name
from server.lane.refusals import Refusal
from server.lane.replies import JSON, SLOW_CLIENT_S
from server.lane.shapes import Shape

logger = logging.getLogger("quartet.lane")

CREDENTIAL = "token"
"""The query parameter in which a browser sends its access token."""
NORMAL, FAULT, LATER, REVOKED = 1000, 1011, 1013, 4401
"""Close codes (RFC 6455 §7.4, and the contract's own)."""
_GIVEN = frozenset({"quartet", "caller", "origin"})


class Gone(Exception):
    """The client closed the socket, or fell too far behind."""


class Socket:
    """An open websocket that carries bytes both ways (handlers.wire.Socket)."""

    def __init__(self, receive: Receive, send: Send, *, encoded: bool) -> None:
        self._receive = receive
        self._send = send
        self._encoded = encoded

    async def receive(self) -> bytes:
        """The next message. Raises Gone when there is none any more."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            raise Gone
        data = message.get("bytes")
        if data is None:
            data = message["text"].encode()
        if not self._encoded:
            return bytes(data)
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise Gone from None

    async def send(self, data: bytes) -> None:
        """Send one message. Raises Gone when the client left or takes nothing for a minute."""
        message: dict[str, Any] = {"type": "websocket.send"}
        if self._encoded:
            message["text"] = base64.b64encode(data).decode()
        else:
            message["bytes"] = data
        try:
            async with asyncio.timeout(SLOW_CLIENT_S):
                await self._send(message)
        except (OSError, RuntimeError, TimeoutError) as error:
            raise Gone from error


class Channel:
    """A compiled channel; `serve` takes one websocket from its handshake to its end."""

    def __init__(
        self,
        *,
        channel_id: str,
        declared: Mapping[str, Any],
        handler: Callable[..., Awaitable[Callable[[Socket], Awaitable[None]]]],
        shape: Shape,
        around: Around,
    ) -> None:
        self.channel_id = channel_id
        self.path: str = declared["address"]
        self._handler = handler
        self._shape = shape
        self._around = around
        self._admin = declared["x-role"] == "admin"
        self._writes = declared["x-effect"] == "write"
        self._rate = declared.get("x-rate-limit", "")
        self._place = declared.get("x-stream-limit", "")
        self._subprotocols: list[str] = declared.get("x-subprotocols", [])
        query = declared.get("bindings", {}).get("ws", {}).get("query", {}).get("properties", {})
        self._query = frozenset(query) - {CREDENTIAL}
        self._parameters = [part[1:-1] for part in self.path.split("/") if part.startswith("{")]
        self._names = frozenset(inspect.signature(handler).parameters)
        takes = {argument_name(name) for name in (*self._parameters, *self._query)}
        self.misfits = [
            f"{channel_id}: the handler and the channel differ in {sorted(odd)}"
            for odd in [(self._names - _GIVEN) ^ takes]
            if odd
        ]

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, captured: tuple[str, ...]
    ) -> None:
        """Answer one handshake and carry what follows."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = request_id_of(headers)
        REQUEST_ID.set(request_id)
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            caller = await self._admit(scope, headers)
            work = await self._handler(**self._values(scope, headers, captured, caller))
        except Exception as error:
            await self._refuse(scope, send, error, headers, request_id)
            return
        offered = scope.get("subprotocols", [])
        chosen = next((each for each in self._subprotocols if each in offered), None)
        await send(
            {
                "type": "websocket.accept",
                "subprotocol": chosen,
                "headers": [(b"x-request-id", request_id)],
            }
        )
        code = await self._carry(work, Socket(receive, send, encoded=chosen == "base64"), caller)
        if code:
            with contextlib.suppress(OSError, RuntimeError):  # it may have left meanwhile
                await send({"type": "websocket.close", "code": code})

    async def _admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Caller:
        """Who opens it. Raises Unauthenticated, Forbidden, Refusal 403 (another site's page)."""
        door = self._around.door
        door.refuse_other_origins(headers)
        credential = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get(CREDENTIAL)
        if credential and b"authorization" not in headers:
            headers = {**headers, b"authorization": b"Bearer " + credential.encode("latin-1")}
        caller = await door.caller({"method": "GET", **scope}, headers, cookies=False)
        if self._admin and not caller.is_admin:
            raise Forbidden("auth.forbidden")
        if self._writes and caller.role == "viewer":
            raise Forbidden("auth.viewer")
        return caller

    def _values(
        self,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        captured: tuple[str, ...],
        caller: Caller,
    ) -> dict[str, Any]:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        values: dict[str, Any] = {
            argument_name(name): value
            for name, value in zip(self._parameters, captured, strict=True)
        }
        values.update({argument_name(name): query.get(name, "") for name in self._query})
        given = {
            "quartet": self._around.quartet,
            "caller": caller,
            "origin": origin_of(scope, headers, self._around.proxies),
        }
        return {**values, **{name: value for name, value in given.items() if name in self._names}}

    async def _carry(
        self, work: Callable[[Socket], Awaitable[None]], socket: Socket, caller: Caller
    ) -> int:
        """The close code with which the socket ends; 0 when the client closed it."""
        around = self._around
        try:
            if self._rate:
                await around.rates.hit(self._rate, caller.user_id)
            async with around.leases.place(self._place, caller.user_id):
                return await self._work(work, socket, caller)
        except Throttled:
            return LATER
        except Refusal:
            return FAULT

    async def _work(
        self, work: Callable[[Socket], Awaitable[None]], socket: Socket, caller: Caller
    ) -> int:
        ended = asyncio.create_task(self._around.door.ended(caller).wait())
        working = asyncio.ensure_future(work(socket))
        self._around.drain.add(working, caller.user_id)
        try:
            await asyncio.wait((working, ended), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                return REVOKED
            if working.cancelled():
                return LATER
            error = working.exception()
        finally:
            for task in (working, ended):
                task.cancel()
            await asyncio.gather(working, ended, return_exceptions=True)
        if error is None:
            return NORMAL
        if isinstance(error, Gone):
            return 0
        if not isinstance(error, DomainError):
            logger.error("%s failed", self.channel_id, exc_info=error)
        return LATER if isinstance(error, Throttled) else FAULT

    async def _refuse(
        self,
        scope: Scope,
        send: Send,
        error: Exception,
        headers: Mapping[bytes, bytes],
        request_id: bytes,
    ) -> None:
        refusal = refusal_of(error, {}, {})
        if refusal is None:
            logger.error("%s failed in its handshake", self.channel_id, exc_info=error)
            refusal = Refusal(500, "request.fault")
        elif refusal.status == 401:
            refusal = Refusal(403, refusal.key, details=refusal.details)
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})
            return
        body = render_refusal(self._shape, refusal, language_of(headers))
        await send(
            {
                "type": "websocket.http.response.start",
                "status": refusal.status,
                "headers": [
                    (b"content-type", JSON),
                    (b"content-length", b"%d" % len(body)),
                    (b"x-request-id", request_id),
                ],
            }
        )
        await send({"type": "websocket.http.response.body", "body": body})
