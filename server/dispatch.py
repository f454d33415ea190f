"""Which contract answers: by prefix anywhere, by port at the root (design §1, rules "Routing")."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import jiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.lane.bodies import ClientGone, read_body
from server.lane.contract import Contract
from server.lane.operation import Operation, render_refusal, request_id_of
from server.lane.origin import language_of
from server.lane.refusals import Refusal
from server.lane.replies import JSON, send_body
from server.lane.router import Undecodable
from server.lane.shapes import Shape

logger = logging.getLogger("quartet.dispatch")

_SAGE_KEYS = frozenset({"username_or_email", "verification_code", "phonenum"})
_PREFLIGHT_MAX_AGE_S = 600


class Root:
    """The contracts that share the root of one port, in order of precedence.

    `shape` frames the error for a path that none of them knows; `pages` are this port's own.
    """

    def __init__(
        self,
        contracts: Sequence[Contract],
        shape: Shape,
        pages: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self.contracts = tuple(contracts)
        self.shape = shape
        self.pages = pages or {}

    def find(self, method: str, path: bytes) -> list[tuple[Contract, Operation, tuple[str, ...]]]:
        """Every contract's operation at a path; more than one only for register and login."""
        found = []
        for contract in self.contracts:
            match = contract.router.find(method, path)
            if match is not None:
                found.append((contract, *match))
        return found


def prefers_sage(body: bytes) -> bool:
    """Whether a body at a path that sage and sandbox share is sage's (rules, "Routing").

    A JSON object with one of sage's keys, or anything that is no object at all.
    """
    try:
        value = jiter.from_json(body)
    except ValueError:
        return True
    return not isinstance(value, dict) or not _SAGE_KEYS.isdisjoint(value)


class Dispatch:
    """The ASGI application behind Connexion's middleware: finds the operation and serves it."""

    def __init__(
        self,
        *,
        roots: Mapping[int, Root],
        default_root: Root,
        contracts: Mapping[str, Contract],
        pages: Mapping[str, ASGIApp],
        cors_origins: frozenset[str],
        root_path: str,
        json_limit: int,
    ) -> None:
        self._roots = roots
        self._default = default_root
        self._prefixes = {f"/{name}".encode(): contract for name, contract in contracts.items()}
        self._alone = {
            name: Root([contract], contract.shape) for name, contract in self._prefixes.items()
        }
        self._pages = pages
        self._cors = cors_origins
        self._root_path = root_path.rstrip("/").encode()
        self._json_limit = json_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root, raw, path = self._where(scope)
        if scope["type"] == "websocket":
            await self._open(scope, receive, send, root, path)
            return
        if self._cors:
            send = self._allowing(scope, send)
        method = scope["method"]
        try:
            found = root.find(method, path)
            if not found and method == "HEAD":
                found = root.find("GET", path)
        except Undecodable:
            await self._refuse(scope, send, root.shape, Refusal(400, "request.bad_path"))
            return
        if len(found) == 1:
            _, operation, captured = found[0]
            await operation.serve(scope, receive, send, captured)
        elif found:
            await self._choose(scope, receive, send, found)
        else:
            await self._miss(scope, receive, send, root, raw, path)

    def _where(self, scope: Scope) -> tuple[Root, bytes, bytes]:
        """The contracts that may answer, the path as asked for, and the path in the contract."""
        raw = scope.get("raw_path") or quote(scope["path"]).encode()
        raw = raw.partition(b"?")[0]
        if self._root_path and raw.startswith(self._root_path + b"/"):
            raw = raw[len(self._root_path) :]
        server = scope.get("server")
        root = self._roots.get(server[1], self._default) if server else self._default
        end = raw.find(b"/", 1)
        prefix = raw if end < 0 else raw[:end]
        if prefix in self._alone:
            return self._alone[prefix], raw, raw[len(prefix) :] or b"/"
        return root, raw, raw

    async def _open(
        self, scope: Scope, receive: Receive, send: Send, root: Root, path: bytes
    ) -> None:
        """Serve a websocket; a path that has none is refused in the handshake."""
        for contract in root.contracts:
            with contextlib.suppress(Undecodable):
                found = contract.channels.find("WS", path)
                if found is not None:
                    channel, captured = found
                    await channel.serve(scope, receive, send, captured)
                    return
        await receive()
        await send({"type": "websocket.close"})

    async def _choose(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        found: list[tuple[Contract, Operation, tuple[str, ...]]],
    ) -> None:
        headers = dict(scope["headers"])
        try:
            body = await read_body(receive, self._json_limit, headers.get(b"content-length"))
        except ClientGone:
            return
        except Refusal as refusal:
            await self._refuse(scope, send, found[0][0].shape, refusal)
            return
        by_name = {contract.name: (operation, values) for contract, operation, values in found}
        chosen = "sage" if "sage" in by_name and prefers_sage(body) else "sandbox"
        operation, captured = by_name.get(chosen, found[0][1:])
        await operation.serve(scope, _replaying(body, receive), send, captured)

    async def _miss(
        self, scope: Scope, receive: Receive, send: Send, root: Root, raw: bytes, path: bytes
    ) -> None:
        method = scope["method"]
        page = root.pages.get(path.decode("latin-1").rstrip("/")) or self._page(raw)
        if page is not None:
            await page(scope, receive, send)
            return
        known = [(c, methods) for c in root.contracts if (methods := c.router.methods(path))]
        if not known:
            await self._refuse(scope, send, root.shape, Refusal(404, "request.not_found"))
            return
        allowed = set().union(*(methods for _, methods in known)) | {"OPTIONS"}
        if "GET" in allowed:
            allowed.add("HEAD")
        allow = (b"allow", ", ".join(sorted(allowed)).encode())
        if method == "OPTIONS":
            await self._options(scope, send, allow)
            return
        refusal = Refusal(405, "request.method", headers=[allow])
        await self._refuse(scope, send, known[0][0].shape, refusal)

    def _page(self, raw: bytes) -> ASGIApp | None:
        path = raw.decode("latin-1")
        page = self._pages.get(path) or self._pages.get(path.rstrip("/") or "/")
        if page is not None:
            return page
        for prefix, app in self._pages.items():
            if prefix.endswith("/") and prefix != "/" and path.startswith(prefix):
                return app
        return None

    async def _refuse(self, scope: Scope, send: Send, shape: Shape, refusal: Refusal) -> None:
        headers = dict(scope["headers"])
        language = language_of(headers)
        await send_body(
            send,
            refusal.status,
            JSON,
            render_refusal(shape, refusal, language),
            request_id_of(headers),
            [
                *refusal.headers,
                (b"content-language", language.encode()),
                (b"vary", b"accept-language"),
            ],
            bodyless=scope["method"] == "HEAD",
        )

    async def _options(self, scope: Scope, send: Send, allow: tuple[bytes, bytes]) -> None:
        """A preflight (Fetch §3.2.2) for an origin on the list, else what the path allows."""
        headers = dict(scope["headers"])
        answer = [allow, (b"x-request-id", request_id_of(headers))]
        if b"access-control-request-method" in headers and self._listed(headers):
            answer += [
                (b"access-control-allow-methods", allow[1]),
                (
                    b"access-control-allow-headers",
                    headers.get(b"access-control-request-headers", b"authorization, content-type"),
                ),
                (b"access-control-max-age", b"%d" % _PREFLIGHT_MAX_AGE_S),
            ]
        await send({"type": "http.response.start", "status": 204, "headers": answer})
        await send({"type": "http.response.body", "body": b""})

    def _listed(self, headers: Mapping[bytes, bytes]) -> bool:
        origin = headers.get(b"origin")
        return origin is not None and ("*" in self._cors or origin.decode("latin-1") in self._cors)

    def _allowing(self, scope: Scope, send: Send) -> Send:
        """`send` with the CORS headers for an origin on the list; `*` never with credentials."""
        headers = dict(scope["headers"])
        if not self._listed(headers):
            return send
        origin = headers[b"origin"]
        allowed: list[tuple[bytes, bytes]] = [
            (b"access-control-expose-headers", b"x-request-id, x-run-id, etag, retry-after"),
            (b"vary", b"origin"),
        ]
        if origin.decode("latin-1") in self._cors:
            allowed += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
            ]
        else:
            allowed.append((b"access-control-allow-origin", b"*"))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allowed]
            await send(message)

        return sending


def _replaying(body: bytes, receive: Receive) -> Receive:
    """`receive` as if the body had not been read yet."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
