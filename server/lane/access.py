"""Who may call an operation, compiled from its `security`, `x-role` and `x-effect`.

A valid bearer wins; an invalid one falls back to the cookie (contract sage, Auth). A cookie alone
never lets another site write (rules, "Accounts, roles, tokens"; RFC 6265bis §8.8).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from domain.caller import ANONYMOUS, Caller
from domain.errors import DomainError, Forbidden, Unauthenticated
from server.lane.origin import Proxies
from server.lane.refusals import Refusal

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Identity(Protocol):
    """What the lane asks of domain.identity."""

    def known(self, token: str) -> Caller | None: ...
    async def verify_bearer(self, token: str) -> Caller: ...
    def known_cookie(self, value: str) -> Caller | None: ...
    async def verify_cookie(self, value: str) -> Caller: ...
    async def verify_proxy(self, user_id: str) -> Caller: ...
    def ended(self, caller: Caller) -> asyncio.Event: ...


VerifyClient = Callable[[str], Awaitable[Caller]]
"""Who an OAuth2 access token stands for. Raises Unauthenticated, Forbidden."""


class Door:
    """Finds the caller of a request; one for all operations of a server."""

    def __init__(
        self,
        identity: Identity,
        *,
        cookie_name: str,
        origins: frozenset[str],
        proxies: Proxies,
        proxy_header: str = "",
        verify_client: VerifyClient | None = None,
        open_to: Mapping[str, str] | None = None,
    ) -> None:
        """`open_to` names operations that the operator has opened, and the account that stands in
        for whoever sends no credential; while that is not active, they are shut."""
        self._identity = identity
        self._cookie_prefix = cookie_name.encode() + b"="
        self._origins = origins
        self._proxies = proxies
        self._proxy_header = proxy_header.lower().encode()
        self._verify_client = verify_client
        self.open_to = open_to or {}

    async def caller(
        self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], *, cookies: bool
    ) -> Caller:
        """The authenticated caller. Raises Unauthenticated, Forbidden (inactive, cross-site)."""
        refused: DomainError | None = None
        authorization = headers.get(b"authorization")
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            token = authorization[7:].strip().decode("latin-1")
            known = self._identity.known(token)
            if known is not None:
                return known
            try:
                return await self._identity.verify_bearer(token)
            except Unauthenticated as error:
                refused = error
        if cookies and (value := self._cookie(headers)):
            caller = self._identity.known_cookie(value)
            if caller is None:
                try:
                    caller = await self._identity.verify_cookie(value)
                except Unauthenticated as error:
                    refused = refused or error
            if caller is not None:
                if scope["method"] not in SAFE:
                    self._same_site(headers)
                return caller
        if self._proxy_header and (asserted := headers.get(self._proxy_header)):
            client = scope.get("client")
            if client and self._proxies.trusts(client[0]):
                # A proxy that adds its header to the client's own instead of replacing it.
                if sum(name == self._proxy_header for name, _ in scope["headers"]) > 1:
                    raise Refusal(400, "request.bad_header")
                caller = await self._identity.verify_proxy(asserted.decode("latin-1"))
                # What the proxy goes by is a cookie of its own: a browser sends that along, too.
                if scope["method"] not in SAFE:
                    self._same_site(headers)
                return caller
        raise refused or Unauthenticated("auth.required")

    async def client(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whom an OAuth2 client's access token stands for; no other credential counts (RFC 6750
        §2.1). Raises Unauthenticated, Forbidden (inactive)."""
        authorization = headers.get(b"authorization", b"")
        if self._verify_client is None or authorization[:7].lower() != b"bearer ":
            raise Unauthenticated("auth.required")
        return await self._verify_client(authorization[7:].strip().decode("latin-1"))

    async def stranger(
        self, account: str, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]
    ) -> Caller:
        """The account that stands in for whoever sends no credential. Raises Unauthenticated where
        it is not active, Refusal 403 for a page of another site that writes."""
        if scope["method"] not in SAFE:
            self._same_site(headers)
        try:
            shared = await self._identity.verify_proxy(account)
        except Forbidden:
            raise Unauthenticated("auth.required") from None
        return msgspec.structs.replace(shared, via="none")

    def ended(self, caller: Caller) -> asyncio.Event:
        """Set when the caller's login session ends or its account changes."""
        return self._identity.ended(caller)

    def refuse_other_origins(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise Refusal 403 for a page of an origin that is neither ours nor listed; a program
        sends none."""
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1") not in self._origins:
            raise Refusal(403, "auth.cross_site")

    def _cookie(self, headers: Mapping[bytes, bytes]) -> str:
        header = headers.get(b"cookie")
        if header is None:
            return ""
        for part in header.split(b";"):
            part = part.strip()
            if part.startswith(self._cookie_prefix):
                return part[len(self._cookie_prefix) :].decode("latin-1")
        return ""

    def _same_site(self, headers: Mapping[bytes, bytes]) -> None:
        site = headers.get(b"sec-fetch-site")
        origin = headers.get(b"origin")
        if site in (b"cross-site", b"same-site") and (
            origin is None or origin.decode("latin-1") not in self._origins
        ):
            raise Refusal(403, "auth.cross_site")
        self.refuse_other_origins(headers)


class Access:
    """The rule of one operation."""

    __slots__ = (
        "_admin",
        "_clients",
        "_cookies",
        "_door",
        "_open_to",
        "_writes",
        "optional",
        "public",
    )

    def __init__(
        self,
        door: Door,
        method: str,
        operation: Mapping[str, Any],
        *,
        cookies: bool,
        wants_caller: bool,
    ) -> None:
        self._door = door
        self._cookies = cookies
        gate = operation.get("x-role") == "gate"
        self.public = not operation["security"] or gate
        self.optional = self.public and wants_caller
        self._admin = operation.get("x-role") == "admin"
        self._clients = operation.get("x-role") == "oauth2"
        self._open_to = door.open_to.get(operation.get("operationId", ""), "")
        self._writes = method not in SAFE and operation.get("x-effect") not in ("read", "self")

    async def admit(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Caller:
        """The caller, if it may call. Raises Unauthenticated, Forbidden, Refusal 403."""
        if self.public:
            if not self.optional:
                return ANONYMOUS
            try:
                return await self._door.caller(scope, headers, cookies=self._cookies)
            except (DomainError, Refusal):
                return ANONYMOUS
        if self._clients:
            return await self._door.client(headers)
        try:
            caller = await self._door.caller(scope, headers, cookies=self._cookies)
        except Unauthenticated as error:
            if not self._open_to or error.key != "auth.required":
                raise
            return await self._door.stranger(self._open_to, scope, headers)
        if self._admin and not self._open_to and caller.role != "admin":
            raise Forbidden("auth.forbidden")
        if self._writes and caller.role == "viewer":
            raise Forbidden("auth.viewer")
        return caller
