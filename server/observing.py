"""Logs: structured, with request ids, without secrets (security 45, 53).

One line per event on standard error, for people (`LOG_FORMAT=console`) or machines (`json`). What
other libraries log goes the same way.
"""

import logging
import re
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.lane.operation import REQUEST_ID
from server.settings import Settings

access = logging.getLogger("quartet.access")

HIDDEN = "****"
_NAMES = (
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|apikey|authorization|cookie|credentials?"
    r"|signature|(?:private|secret|signing|master)[_-]?key|(?:verification|auth)[_-]?code|otp|jwt"
)
_SECRET_NAME = re.compile(rf"(?i)(?:.*[._-])?(?:{_NAMES})|code")
# Repetitions are bounded: what is logged may be made by a client to be slow to search.
_SECRET_TEXT = re.compile(
    rf"""(?ix)
    (?P<before>
        \b(?:bearer|basic)\s+                                    # Authorization
      | ://[^\s/@:]{{0,256}}:(?=[^\s/@]{{1,256}}@)           # credentials in a URL
      | (?<![A-Za-z])(?:[A-Za-z0-9]{{1,32}}[_-]){{0,8}}          # name=value, "name": "value"
        (?:{_NAMES}|code|key)
        ["']?\s*(?:=>?|:)\s*(?:b?["']|(?:bearer|basic)\s+)?
    )
    (?P<value>[^\s&"',;@)}}\]]+)
    """
)
_SECRET_SHAPE = re.compile(
    r"\beyJ[\w-]{1,512}\.[\w-]+\.[\w-]*"  # a JWT
    r"|\bsk-[\w-]{16,}"  # a key for a model
    r"|\bq1\.[0-9a-f]{8}\.[\w-]+\.[\w-]+"  # a sealed value (gateways/secretbox.py)
)

Entry = MutableMapping[str, Any]


def without_secrets(_: Any, __: str, entry: Entry) -> Entry:
    """A structlog processor: hide values under telling names, and credentials inside texts."""
    for name, value in entry.items():
        entry[name] = _shown(name, value)
    return entry


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, str | bytes | Mapping | list | tuple) and value:
        if _SECRET_NAME.fullmatch(name):
            return HIDDEN
        if isinstance(value, str):
            return scrubbed(value)
        if isinstance(value, bytes):
            return scrubbed(value.decode("latin-1"))
        if isinstance(value, Mapping):
            return {str(key): _shown(str(key), item) for key, item in value.items()}
        return [_shown("", item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return scrubbed(str(value))


def scrubbed(text: str) -> str:
    """A text with the credentials in it hidden."""
    return _SECRET_SHAPE.sub(HIDDEN, _SECRET_TEXT.sub(rf"\g<before>{HIDDEN}", text))


def with_request_id(_: Any, __: str, entry: Entry) -> Entry:
    """A structlog processor: name the request that a line belongs to."""
    if request_id := REQUEST_ID.get():
        entry.setdefault("request_id", request_id.decode("latin-1"))
    return entry


def configure_logs(settings: Settings) -> None:
    """Send every logger's lines to standard error in one format.

    Called once, before anything else logs.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        with_request_id,
    ]
    last: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    if settings.log_format == "json":
        last += [structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        last += [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)


_NOISY = (
    *("httpx", "httpx2", "httpcore", "httpcore2", "openai", "alembic", "dbos", "connexion"),
    *("asyncio", "opentelemetry", "uvicorn.error"),
)
"""Libraries that tell of each call they make, or of what our own lines say already."""


def access_logged(application: ASGIApp) -> ASGIApp:
    """The application with a line after each request: method, path, status, seconds.

    Never the query (it may carry a token), never a body. A stream is told of when it has ended;
    499 is a client that left first.
    """

    async def logging_application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        begun = time.perf_counter()
        status, ended, request_id = 499, False, ""

        async def sending(message: Message) -> None:
            nonlocal status, ended, request_id
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = dict(message["headers"]).get(b"x-request-id", b"").decode("latin-1")
            elif not message.get("more_body"):
                ended = True
            await send(message)

        try:
            await application(scope, receive, sending)
        finally:
            client = scope.get("client")
            access.info(
                "%s %s",
                scope["method"],
                quote(scope["path"]),  # a path may hold a line break, and more
                extra={
                    "status": status,
                    "seconds": round(time.perf_counter() - begun, 6),
                    "client": client[0] if client else "",
                    "request_id": request_id,
                    **({} if ended else {"cut": True}),
                },
            )

    return logging_application
