"""The pages that people log in and agree at.

Their scripts post JSON from this very origin, and the answers say where to go: a form that another
site sends has neither the content type nor, being cross-site, the cookie's force (security 44).
"""

import html
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from domain.caller import ANONYMOUS, Caller
from domain.errors import DomainError
from domain.identity.destinations import Destinations
from domain.oauth2.server import AuthorizationServer
from domain.system import System
from server.lane.access import Door
from server.lane.bodies import ClientGone, parse_json, read_body
from server.lane.errors import refusal_of
from server.lane.origin import Proxies, origin_of
from server.lane.parameters import parse_query
from server.lane.refusals import Refusal
from server.messages import text
from server.pages import (
    HTML,
    JSON,
    NO_STORE,
    NOTHING_ELSE,
    TEXT,
    Headers,
    Page,
    send_page,
)
from server.portal import document

_POLICY = (
    NOTHING_ELSE + b"; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'"
)
_BODY_MAX = 1024
_ASKED = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
)
_FAILURES = {
    "closed": "upstream.closed",
    "inactive": "account.inactive",
    "refused": "upstream.refused",
    "unavailable": "upstream.unavailable",
    "untrusted": "upstream.untrusted",
}
"""What a login at a provider comes back with (domain.identity.upstream), and its text."""
_SCOPES = {
    "openid": "know who you are on this server: your account's id, its name and its role",
    "profile": "see your display name and your picture",
    "email": "see your e-mail address",
}


class Visit(NamedTuple):
    """A request for a page. `given` are its query's parameters, none of them repeated."""

    caller: Caller
    given: Mapping[str, str]
    raw: str
    address: str
    receive: Receive
    headers: Headers


Answer = Callable[[Visit], Awaitable[Page]]


class LoginPages:
    """`/login` and `/consent`; `root` is the path that a proxy serves us under."""

    def __init__(
        self,
        *,
        door: Door,
        proxies: Proxies,
        system: System,
        oauth2: AuthorizationServer,
        destinations: Destinations,
        root: str,
    ) -> None:
        self._door = door
        self._proxies = proxies
        self._system = system
        self._oauth2 = oauth2
        self._destinations = destinations
        self._root = root

    def pages(self) -> dict[str, ASGIApp]:
        """The pages by path, for server.dispatch."""
        login = self._application(self._login)
        return {
            "/login": login,
            "/sage/login": login,
            "/consent": self._application(self._ask, self._decide),
        }

    # --- /login -------------------------------------------------------------------------------

    async def _login(self, visit: Visit) -> Page:
        """The local form and a button for each upstream provider, as the mode allows."""
        wanted = self._destinations.safe(visit.given.get("next"))
        if visit.caller.user_id:
            return _sent(wanted)
        info = await self._system.info()
        upstream = () if visit.given.get("local_only") == "1" else info.upstream
        parts = ["<h1>Log in</h1>"]
        if error := visit.given.get("error"):
            said = text(_FAILURES.get(error, "upstream.expired"), "en", {})
            parts.append(f'<p role="alert">{html.escape(said)}</p>')
        if info.has_local_auth:
            parts.append(self._form(wanted, info.admin_only))
        if upstream:
            ways = "".join(
                f'<a class="way" href="{self._root}/api/auth/upstream/login/{quote(each.id)}'
                f'?next={quote(wanted, safe="")}">{html.escape(each.name)}</a>'
                for each in upstream
            )
            parts.append(f'<div class="ways">{ways}</div>')
        if not info.has_local_auth and not upstream:
            parts.append("<p>This server offers no way to log in here.</p>")
        return self._shown("Log in", "".join(parts), "login.js")

    def _form(self, wanted: str, admin_only: bool) -> str:
        note = "<p>Passwords are for administrators here.</p>" if admin_only else ""
        return (
            f'{note}<form method="post" data-login="{self._root}/sage/api/auth/login"'
            f' data-next="{html.escape(wanted)}">'
            '<label>Username or e-mail <input name="username" autocomplete="username" required'
            ' maxlength="320" autofocus></label>'
            '<label>Password <input name="password" type="password" required maxlength="1024"'
            ' autocomplete="current-password"></label>'
            '<p role="alert"></p><button class="main">Log in</button></form>'
        )

    # --- /consent -----------------------------------------------------------------------------

    async def _ask(self, visit: Visit) -> Page:
        """Which client wants what of whom, and where it will be told."""
        if not visit.caller.user_id:
            here = quote(f"{self._root}/consent?{visit.raw}", safe="")
            return _sent(f"{self._root}/login?next={here}")
        asked = await self._oauth2.consent_asked(_asked(visit))
        if isinstance(asked, str):
            return _sent(asked)
        scopes = "".join(f"<li>{_SCOPES[scope]}</li>" for scope in asked.scope.split())
        back = asked.redirect_uri.partition("?")[0]
        body = (
            f"<h1>{html.escape(asked.client.shown)}</h1>"
            f"<p>wants to use your account <strong>{html.escape(visit.caller.username)}</strong>"
            f" and to</p><ul>{scopes}</ul>"
            '<form method="post"><p role="alert"></p>'
            '<button class="main" name="answer" value="allow">Allow</button>'
            '<button name="answer" value="deny">Deny</button></form>'
            f'<p class="where">Either answer takes you to {html.escape(back)}</p>'
        )
        return self._shown("Allow access?", body, "consent.js")

    async def _decide(self, visit: Visit) -> Page:
        """The answer, `{"allow": bool}`; where the browser goes next, as `{"location"}`."""
        if visit.headers.get(b"content-type", b"").partition(b";")[0].strip() != JSON:
            raise Refusal(415, "request.media_type", details={"expected": "application/json"})
        raw = await read_body(visit.receive, _BODY_MAX, visit.headers.get(b"content-length"))
        body = parse_json(raw)
        if not isinstance(body, dict) or not isinstance(body.get("allow"), bool):
            raise Refusal(422, "request.invalid")
        location = await self._oauth2.decide(
            visit.caller, _asked(visit), allow=body["allow"], address=visit.address
        )
        return Page(200, JSON, msgspec.json.encode({"location": location}))

    # --- parts --------------------------------------------------------------------------------

    def _shown(self, title: str, body: str, script: str, status: int = 200) -> Page:
        noscript = "<noscript><p>This page needs its script.</p></noscript>"
        loaded = f'<script type="module" src="{self._root}/portal/{script}"></script>'
        made = document(
            f"{title} · Quartet",
            ["portal.css", "login.css"],
            f'<main class="door">{body}{noscript}</main>{loaded}',
            self._root,
        )
        return Page(status, HTML, made, (NO_STORE,), _POLICY)

    def _refused(self, refusal: Refusal) -> Page:
        said = html.escape(text(refusal.key, "en", refusal.details))
        made = document(
            "Quartet",
            ["portal.css", "login.css"],
            f'<main class="door"><h1>That does not work</h1><p>{said}</p></main>',
            self._root,
        )
        return Page(refusal.status, HTML, made, (NO_STORE, *refusal.headers), _POLICY)

    def _application(self, show: Answer, act: Answer | None = None) -> ASGIApp:
        """An application that shows a page on GET and HEAD, and takes an answer by POST from who
        is logged in."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            method, headers = scope["method"], dict(scope["headers"])
            allowed = "GET, HEAD, OPTIONS" if act is None else "GET, HEAD, OPTIONS, POST"
            allow = (b"allow", allowed.encode())
            try:
                if method in ("GET", "HEAD"):
                    answer = await show(await self._visit(scope, headers, receive))
                elif method == "POST" and act is not None:
                    caller = await self._door.caller(scope, headers, cookies=True)
                    answer = await act(await self._visit(scope, headers, receive, caller))
                else:
                    status = 204 if method == "OPTIONS" else 405
                    answer = Page(status, TEXT, b"", (allow,))
            except ClientGone:
                return
            except Exception as error:
                refusal = refusal_of(error, {}, {})
                if refusal is None:
                    raise
                if method == "POST":
                    said = {"message": text(refusal.key, "en", refusal.details)}
                    told = (NO_STORE, *refusal.headers)
                    answer = Page(refusal.status, JSON, msgspec.json.encode(said), told)
                else:
                    answer = self._refused(refusal)
            await send_page(send, method, headers, answer)

        return application

    async def _visit(
        self, scope: Scope, headers: Headers, receive: Receive, caller: Caller | None = None
    ) -> Visit:
        raw = scope["query_string"]
        parsed = parse_query(raw)
        if any(len(values) > 1 for values in parsed.values()):
            raise Refusal(400, "request.bad_query")
        if caller is None:
            try:
                caller = await self._door.caller(scope, headers, cookies=True)
            except (DomainError, Refusal):
                caller = ANONYMOUS
        return Visit(
            caller=caller,
            given={name: values[0] for name, values in parsed.items()},
            raw=raw.decode("ascii"),
            address=origin_of(scope, headers, self._proxies).address,
            receive=receive,
            headers=headers,
        )


def _asked(visit: Visit) -> dict[str, str]:
    return {name: visit.given[name] for name in _ASKED if name in visit.given}


def _sent(location: str) -> Page:
    fields: Any = ((b"location", location.encode("ascii")), NO_STORE)
    return Page(303, TEXT, b"", fields)
