"""Answers that are known before they are asked for: documents, assets, small pages.

They stand outside of the contracts, so they have no envelope; like every answer they carry
`X-Request-ID`.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from server.lane.operation import request_id_of

Headers = Mapping[bytes, bytes]
"""A request's."""
Fields = tuple[tuple[bytes, bytes], ...]
"""An answer's."""

TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
JSON = b"application/json"
NO_STORE = (b"cache-control", b"no-store")
REVALIDATE = (b"cache-control", b"no-cache")
FOR_EVER = (b"cache-control", b"public, max-age=31536000, immutable")

_ALWAYS: Fields = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
NOTHING_ELSE = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Page(NamedTuple):
    """One answer. `policy` is its Content-Security-Policy."""

    status: int
    media_type: bytes
    body: bytes
    headers: Fields = (NO_STORE,)
    policy: bytes = NOTHING_ELSE


Render = Callable[[Headers], Awaitable[Page]]
Check = Callable[[], Awaitable[object]]
"""Returns when the database answers, raises when it does not."""


def page(render: Render) -> ASGIApp:
    """An application that answers GET and HEAD with what `render` makes of the headers."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        method = scope["method"]
        if method in ("GET", "HEAD"):
            answer = await render(headers)
        else:
            status = 204 if method == "OPTIONS" else 405
            answer = Page(status, TEXT, b"", ((b"allow", b"GET, HEAD, OPTIONS"),))
        await send_page(send, method, headers, answer)

    return application


async def send_page(send: Send, method: str, headers: Headers, answer: Page) -> None:
    """One answer to a request of this method with these headers."""
    bodyless = method == "HEAD" or answer.status in (204, 304)
    sent = [
        (b"x-request-id", request_id_of(headers)),
        (b"content-security-policy", answer.policy),
        *_ALWAYS,
        *answer.headers,
    ]
    if answer.status not in (204, 304):
        sent += [
            (b"content-type", answer.media_type),
            (b"content-length", b"%d" % len(answer.body)),
        ]
    await send({"type": "http.response.start", "status": answer.status, "headers": sent})
    await send({"type": "http.response.body", "body": b"" if bodyless else answer.body})


class Kept:
    """Bytes that do not change while the server runs, read from disk when they are asked for.

    A file's `.br` and `.gz` neighbours are the same bytes, compressed. The ETag is one per
    encoding (RFC 9110 §8.8.3.3).
    """

    def __init__(
        self,
        path: Path,
        media_type: bytes,
        caching: tuple[bytes, bytes],
        policy: bytes = NOTHING_ELSE,
    ) -> None:
        self._path = path
        self._media_type = media_type
        self._caching = caching
        self._policy = policy
        self._forms: list[tuple[bytes, Path]] = [
            (coding, neighbour)
            for coding, suffix in ((b"br", ".br"), (b"gzip", ".gz"))
            if (neighbour := path.with_name(path.name + suffix)).exists()
        ]
        self._tags: dict[bytes, bytes] = {}

    async def render(self, headers: Headers) -> Page:
        coding, path = self._choose(headers.get(b"accept-encoding", b""))
        answered: Fields = (self._caching, (b"vary", b"accept-encoding"))
        tag = self._tags.get(coding)
        if tag is not None and has_tag(headers, tag):
            return Page(304, b"", b"", (*answered, (b"etag", tag)), self._policy)
        body = await asyncio.to_thread(path.read_bytes)
        if tag is None:
            tag = self._tags[coding] = etag(body)
        answered = (*answered, (b"etag", tag))
        if has_tag(headers, tag):
            return Page(304, b"", b"", answered, self._policy)
        if coding:
            answered = (*answered, (b"content-encoding", coding))
        return Page(200, self._media_type, body, answered, self._policy)

    def _choose(self, accepted: bytes) -> tuple[bytes, Path]:
        codings = accepted_codings(accepted)
        for coding, path in self._forms:
            if coding in codings:
                return coding, path
        return b"", self._path


def accepted_codings(header: bytes) -> frozenset[bytes]:
    """The codings that an Accept-Encoding names and does not refuse by `q=0`."""
    found = set()
    for part in header.lower().split(b","):
        name, _, weight = part.partition(b";")
        if weight.replace(b" ", b"").rstrip(b"0") not in (b"q=", b"q=0."):
            found.add(name.strip())
    return frozenset(found)


def etag(body: bytes) -> bytes:
    """A strong ETag of the bytes."""
    return b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()


def has_tag(headers: Headers, tag: bytes) -> bool:
    """Whether If-None-Match names the tag, compared weakly (RFC 9110 §13.1.2)."""
    given = headers.get(b"if-none-match")
    if given is None:
        return False
    return given.strip() == b"*" or tag in [
        part.strip().removeprefix(b"W/") for part in given.split(b",")
    ]
