"""One operation, compiled: what happens between its request and its response."""

import asyncio
import inspect
import itertools
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import msgspec
from starlette.types import Receive, Scope, Send

from domain.caller import Caller
from domain.errors import Throttled
from domain.identity.lockout import network
from handlers.wire import Answer, File, Redirect, Stream, Text
from server.lane import bodies, files, forms
from server.lane.access import Access, Door
from server.lane.cookies import Cookies
from server.lane.errors import refusal_of
from server.lane.idempotency import Idempotency, Key, Rendered
from server.lane.leases import Leases
from server.lane.measures import Measures
from server.lane.origin import Proxies, language_of, origin_of
from server.lane.parameters import Plan
from server.lane.rates import Rates
from server.lane.refusals import Refusal
from server.lane.replies import (
    JSON,
    TEXT,
    Drain,
    ResponseCheck,
    encode,
    send_body,
    send_stream,
)
from server.lane.schemas import Schemas, Violation
from server.lane.shapes import OPERATION_SHAPES, Shape
from server.messages import text

logger = logging.getLogger("quartet.lane")

REQUEST_ID: ContextVar[bytes] = ContextVar("request_id", default=b"")
"""The id of the request being served, for every line logged on its behalf."""

GONE = "410"
"""What stands for the success of an operation that is documented to be there no more."""
_RUN = os.urandom(6).hex()
_COUNTER = itertools.count(1)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_ONCE = frozenset(
    {b"authorization", b"content-length", b"content-type", b"cookie", b"host", b"idempotency-key"}
)
_GIVEN = frozenset({"quartet", "caller", "body", "origin", "if_match"})


ReplayRun = Callable[[Any, Caller, str], Awaitable[Stream]]
"""(quartet, caller, run id) → that run's stream from its first line, in the contract's lines."""


Ended = Callable[[int, float], None]
"""Called at the end of a request with its status (499: the client left) and its seconds."""


class BindingError(Exception):
    """Handlers and operations do not fit; the message lists every misfit."""


class Around(NamedTuple):
    """What all operations of a server share."""

    quartet: Any
    door: Door
    proxies: Proxies
    rates: Rates
    leases: Leases
    idempotency: Idempotency
    drain: Drain
    json_limit: int
    forms: forms.Limits
    cookie: Callable[[str], tuple[bytes, bytes]]
    check_responses: bool
    trace: Callable[["Operation", Scope, bytes], Ended] | None = None
    """Called at the beginning of a request with its id; what it returns is called at the end."""
    cookies: Cookies = Cookies(secure=False)


def request_id_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The caller's X-Request-ID if it is usable, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"{_RUN}-{next(_COUNTER):x}".encode()


class Operation:
    """A compiled operation; `serve` is the request lane."""

    def __init__(
        self,
        *,
        operation_id: str,
        method: str,
        path: str,
        declared: Mapping[str, Any],
        parameters: list[Mapping[str, Any]],
        handler: Callable[..., Any],
        body_type: Any,
        enveloped: bool,
        shape: Shape,
        schemas: Schemas,
        around: Around,
        replay_run: ReplayRun | None = None,
    ) -> None:
        self.operation_id = operation_id
        self.method = method
        self.path = path
        self.declared = declared
        self.measures = Measures()
        self._handler = handler
        shape = OPERATION_SHAPES.get(declared.get("x-shape", ""), shape)
        self._shape = shape
        self._enveloped = enveloped
        self._replay_run = replay_run
        self._around = around
        self._plan = Plan(parameters, path, schemas, around.cookies, once=shape.once)
        self._has_parameters = bool(self._plan.arguments)
        names = set(inspect.signature(handler).parameters)
        self._misfits = _misfits(operation_id, handler, names, self._plan, declared)
        self._wants_caller = "caller" in names
        self._wants_origin = "origin" in names
        self._wants_quartet = "quartet" in names
        self._wants_match = "if_match" in names
        self._access = Access(
            around.door,
            method,
            declared,
            cookies=shape.cookie,
            wants_caller=self._wants_caller,
        )
        content = declared.get("requestBody", {}).get("content", {})
        self._body_required = declared.get("requestBody", {}).get("required", False)
        self._media = tuple(content)
        self._json = (
            schemas.validator(content["application/json"]["schema"])
            if ("application/json" in content)
            else None
        )
        self._forms = {
            media.encode(): forms.Form(content[media].get("schema", {}), schemas)
            for media in content
            if media != "application/json"
        }
        self._body_type = body_type
        self._soft: Mapping[str, int] = declared.get("x-soft", {})
        self._codes: Mapping[str, int] = declared.get("x-code", {})
        self._rate = declared.get("x-rate-limit", "")
        self._streams = declared.get("x-stream-limit", "")
        self._etag = bool(declared.get("x-etag"))
        self._localised = bool(declared.get("x-language"))
        self._keyed = (
            method not in ("GET", "HEAD", "OPTIONS")
            and not self._access.public
            and declared.get("x-idempotency") != "none"
        )
        success = next((s for s in declared["responses"] if s[0] in "123"), GONE)
        self._status = int(success)
        self._bodiless = frozenset(
            int(status)
            for status, response in declared["responses"].items()
            if status >= "400" and "content" not in response
        )
        self._accepts = _acceptable(declared["responses"][success].get("content", {}))
        self._check = (
            ResponseCheck(_checks(declared["responses"], schemas))
            if around.check_responses
            else None
        )

    @property
    def misfits(self) -> list[str]:
        """Why the handler cannot serve this operation; empty when it can."""
        return self._misfits

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, captured: tuple[str, ...]
    ) -> None:
        """Answer one request. Every failure is rendered here in the contract's shape."""
        begun = time.perf_counter()
        pairs = scope["headers"]
        headers: dict[bytes, bytes] = dict(pairs)
        request_id = request_id_of(headers)
        REQUEST_ID.set(request_id)
        trace = self._around.trace
        ended = None if trace is None else trace(self, scope, request_id)
        status = 500
        started = False

        async def sending(message: Any) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started = True
                status = message["status"]
            await send(message)

        try:
            if len(headers) != len(pairs):
                _refuse_repeated(pairs)
            await self._answer(scope, receive, sending, captured, headers, request_id)
        except bodies.ClientGone:
            status = 499
        except Exception as error:
            if started:
                logger.exception("%s broke after its answer began", self.operation_id)
            else:
                await self._fail(sending, error, headers, request_id, scope)
        finally:
            seconds = time.perf_counter() - begun
            self.measures.add(status, seconds)
            if ended is not None:
                ended(status, seconds)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        captured: tuple[str, ...],
        headers: dict[bytes, bytes],
        request_id: bytes,
    ) -> None:
        around = self._around
        caller = await self._access.admit(scope, headers)
        if self._accepts and (accept := headers.get(b"accept")) is not None:
            self._refuse_unacceptable(accept)
        values = (
            self._plan.values(captured, scope["query_string"], headers)
            if self._has_parameters
            else {}
        )
        origin = None
        if self._wants_origin or self._rate:
            origin = origin_of(scope, headers, around.proxies)
        if self._rate:
            assert origin is not None
            if caller.user_id and caller.via == "none":
                await around.rates.hit(f"open_{self._rate}", network(origin.address))
            else:
                await around.rates.hit(self._rate, caller.user_id or network(origin.address))
        try:
            raw = b""
            if self._media:
                values["body"], raw = await self._body(receive, headers)
                # A body takes as long as its sender likes; by now the session may have ended.
                caller = await self._access.admit(scope, headers)
            if self._wants_quartet:
                values["quartet"] = around.quartet
            if self._wants_caller:
                values["caller"] = caller
            if self._wants_origin:
                values["origin"] = origin
            if self._wants_match:
                values["if_match"] = _version(headers.get(b"if-match"))
            key = headers.get(b"idempotency-key") if self._keyed else None
            async with around.leases.place(self._streams, caller.user_id):
                if key is None:
                    result = await self._handler(**values)
                    await self._send(scope, receive, send, headers, request_id, result, caller)
                else:
                    await self._send_once(
                        scope, receive, send, headers, request_id, values, caller, key, raw
                    )
        finally:
            if self._forms:
                forms.close(values.get("body"))

    async def _body(self, receive: Receive, headers: Mapping[bytes, bytes]) -> tuple[Any, bytes]:
        length = headers.get(b"content-length")
        if length == b"0" or (length is None and b"transfer-encoding" not in headers):
            if not self._body_required:
                return None, b""
            if b"content-type" not in headers:
                raise Refusal(400, "request.not_json", details={"reason": "the body is empty"})
        media, _, options = headers.get(b"content-type", b"").partition(b";")
        media = media.strip().lower()
        if media == JSON and self._json is not None:
            if options and b"charset" in options and b"utf-8" not in options.lower():
                raise self._wrong_media()
            raw = await bodies.read_body(receive, self._around.json_limit, length)
            if not raw and not self._body_required:
                return None, b""
            value = bodies.parse_json(raw)
            try:
                self._json.check(value)
                if self._body_type is None or self._body_type is dict:
                    return value, raw
                return msgspec.convert(value, self._body_type), raw
            except Violation as violation:
                raise Refusal(422, "request.invalid", errors=violation.errors) from None
            except msgspec.ValidationError as error:
                errors = [{"loc": ["body"], "msg": str(error)[:300], "type": "type"}]
                raise Refusal(422, "request.invalid", errors=errors) from None
        if (form := self._forms.get(media)) is not None:
            return await forms.read_form(receive, media, headers, form, self._around.forms)
        raise self._wrong_media()

    def _wrong_media(self) -> Refusal:
        return Refusal(415, "request.media_type", details={"expected": ", ".join(self._media)})

    def _refuse_unacceptable(self, accept: bytes) -> None:
        accepted = accept.lower()
        if b"*/*" not in accepted and not any(media in accepted for media in self._accepts):
            raise Refusal(406, "request.not_acceptable")

    async def _send(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
        request_id: bytes,
        result: Any,
        caller: Caller,
    ) -> None:
        """A handler's result onto the wire."""
        if type(result) is Stream:
            await self._send_stream(send, receive, request_id, result, [], caller)
            return
        if type(result) is File:
            await self._send_file(scope, receive, send, request_id, result)
            return
        status, media, body, extra = self._render(result, headers)
        await send_body(
            send,
            status,
            media,
            body,
            request_id,
            extra,
            bodyless=status == 304 or scope["method"] == "HEAD",
        )

    async def _send_stream(
        self,
        send: Send,
        receive: Receive,
        request_id: bytes,
        stream: Stream,
        extra: list[tuple[bytes, bytes]],
        caller: Caller,
    ) -> None:
        # A stream that comes with a run of its own is bounded by how many runs there may be.
        if self.method == "GET" and self._around.drain.is_full(caller.user_id):
            raise Throttled("request.throttled", retry_after=5)
        await send_stream(
            send,
            receive,
            stream.source,
            stream.media_type.encode(),
            request_id,
            [*((n.encode(), v.encode()) for n, v in stream.headers), *extra],
            self._around.drain,
            caller.user_id,
        )

    async def _send_file(
        self, scope: Scope, receive: Receive, send: Send, request_id: bytes, file: File
    ) -> None:
        if self._check is not None:
            self._check(self._status, file.media_type, b"")
        await send_stream(
            send,
            receive,
            file.source,
            file.media_type.encode(),
            request_id,
            files.headers_of(file),
            self._around.drain,
            bodyless=scope["method"] == "HEAD",
        )

    def _render(self, result: Any, headers: Mapping[bytes, bytes]) -> Rendered:
        """Status, media type, body and further headers of a result that is not a stream."""
        extra: list[tuple[bytes, bytes]] = []
        status = self._status
        if type(result) is Answer:
            extra = [(n.encode(), v.encode()) for n, v in result.headers]
            if result.session or result.end_session:
                extra.append(self._around.cookie(result.session))
            if self._etag and result.version:
                tag = b'"%d"' % result.version
                extra.append((b"etag", tag))
                if self.method == "GET" and _matches(headers.get(b"if-none-match"), tag):
                    return Rendered(304, JSON, b"", extra)
            result = result.data
        elif type(result) is Redirect:
            extra = [(b"location", result.location.encode())]
            if result.session:
                extra.append(self._around.cookie(result.session))
            extra.extend(self._around.cookies.header(*each) for each in result.cookies)
            return Rendered(status, TEXT, b"", extra)
        elif type(result) is Text:
            body = result.text.encode()
            if self._check is not None:
                self._check(status, "text/plain", body)
            return Rendered(status, TEXT, body, extra)
        if status == 204:
            return Rendered(status, TEXT, b"", extra)
        body = encode(result)
        if self._enveloped:
            body = self._shape.success(body)
        if self._localised:
            extra.extend(_language(headers, self._shape))
        if self._check is not None:
            self._check(status, "application/json", body)
        return Rendered(status, JSON, body, extra)

    async def _send_once(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
        request_id: bytes,
        values: dict[str, Any],
        caller: Caller,
        key: bytes,
        raw: bytes,
    ) -> None:
        """The handler's effect at most once per Idempotency-Key (rules, "Idempotency")."""
        holder = caller.user_id
        if caller.via == "none":
            # Strangers share an account, and none is told what another did.
            holder += f"@{network(origin_of(scope, headers, self._around.proxies).address)}"
        record = Key.of(
            key,
            holder,
            self.operation_id,
            scope,
            raw or forms.digest(values.get("body")),
            self._around.idempotency.secret,
        )
        replay = self._replay_run

        def refused(error: Exception) -> Rendered | None:
            refusal = self._refusal(error)
            return None if refusal is None else self._rendered(refusal, headers)

        async def replay_run(run_id: str) -> Stream:
            assert replay is not None
            return await replay(self._around.quartet, caller, run_id)

        replayed, result = await self._around.idempotency.once(
            record,
            handle=lambda: self._handler(**values),
            render=lambda outcome: self._render(outcome, headers),
            refused=refused,
            replay_run=None if replay is None else replay_run,
        )
        mark = [(b"idempotency-replayed", b"true")] if replayed else []
        if isinstance(result, Stream):
            await self._send_stream(send, receive, request_id, result, mark, caller)
            return
        await send_body(
            send, result.status, result.media, result.body, request_id, [*result.headers, *mark]
        )

    async def _fail(
        self,
        send: Send,
        error: Exception,
        headers: Mapping[bytes, bytes],
        request_id: bytes,
        scope: Scope,
    ) -> None:
        refusal = self._refusal(error)
        if refusal is None:
            logger.error(
                "%s failed, request %s",
                self.operation_id,
                request_id.decode("latin-1"),
                exc_info=error,
            )
            refusal = Refusal(500, "request.fault")
        status, media, body, extra = self._rendered(refusal, headers)
        await send_body(
            send, status, media, body, request_id, extra, bodyless=scope["method"] == "HEAD"
        )

    def _refusal(self, error: Exception) -> Refusal | None:
        """What an error says to the client; None for a fault of ours."""
        refusal = refusal_of(error, self._soft, self._codes)
        if refusal is not None and refusal.status == 422 and self._shape.invalid != 422:
            return Refusal(self._shape.invalid, refusal.key, errors=refusal.errors)
        return refusal

    def _rendered(self, refusal: Refusal, headers: Mapping[bytes, bytes]) -> Rendered:
        """A refusal as the contract shows it, checked as answers are."""
        if refusal.status in self._bodiless:
            return Rendered(refusal.status, TEXT, b"", list(refusal.headers))
        body = render_refusal(self._shape, refusal, language_of(headers))
        if self._check is not None and refusal.key != "request.fault":
            try:
                self._check(refusal.status, "application/json", body)
            except AssertionError as broken:
                logger.exception("%s broke its contract", self.operation_id)
                refusal = Refusal(500, "request.fault")
                body = self._shape.failure(refusal, str(broken))
        extra = [*refusal.headers, *_language(headers, self._shape)]
        return Rendered(refusal.status, JSON, body, extra)


def render_refusal(shape: Shape, refusal: Refusal, language: str) -> bytes:
    """The body of a refusal in a contract's shape."""
    said = text(refusal.key, shape.language or language, refusal.details)
    return shape.failure(refusal, said)


def _language(headers: Mapping[bytes, bytes], shape: Shape) -> list[tuple[bytes, bytes]]:
    if shape.language:
        return [(b"content-language", shape.language.encode())]
    return [
        (b"content-language", language_of(headers).encode()),
        (b"vary", b"accept-language"),
    ]


def _refuse_repeated(pairs: list[tuple[bytes, bytes]]) -> None:
    """Two values for a header that decides something are an attack or a fault (RFC 9110 §5.3)."""
    seen: set[bytes] = set()
    for name, _ in pairs:
        if name in seen and name in _ONCE:
            raise Refusal(400, "request.bad_header")
        seen.add(name)


def _acceptable(content: Mapping[str, Any]) -> tuple[bytes, ...]:
    """What an Accept header may name; streams answer whatever it says."""
    if "application/json" not in content:
        return ()
    return (b"application/json", b"application/*")


def _matches(given: bytes | None, tag: bytes) -> bool:
    """Weak comparison of If-None-Match (RFC 9110 §13.1.2)."""
    if given is None:
        return False
    return given.strip() == b"*" or tag in [
        part.strip().removeprefix(b"W/") for part in given.split(b",")
    ]


def _version(given: bytes | None) -> int | None:
    """The row version of If-Match; None when absent or `*`. Raises Refusal 412 for other tags."""
    if given is None or given.strip() == b"*":
        return None
    found = re.fullmatch(rb'"([0-9]{1,18})"', given.strip())
    if found is None:
        raise Refusal(412, "request.precondition")
    return int(found[1])


def _checks(responses: Mapping[str, Any], schemas: Schemas) -> dict[str, dict[str, Any]]:
    return {
        status: {
            media: schemas.validator(content["schema"], "response") if "schema" in content else None
            for media, content in response.get("content", {}).items()
        }
        for status, response in responses.items()
    }


def _misfits(
    operation_id: str,
    handler: Callable[..., Any],
    names: set[str],
    plan: Plan,
    declared: Mapping[str, Any],
) -> list[str]:
    misfits = []
    if not asyncio.iscoroutinefunction(handler):
        misfits.append(f"{operation_id}: its handler is not a coroutine function")
    if unknown := names - plan.arguments - _GIVEN:
        misfits.append(f"{operation_id}: the handler wants {sorted(unknown)}")
    if ignored := plan.arguments - names:
        misfits.append(f"{operation_id}: the handler ignores {sorted(ignored)}")
    if ("requestBody" in declared) != ("body" in names):
        misfits.append(f"{operation_id}: body in the spec or in the handler, not in both")
    return misfits
