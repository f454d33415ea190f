"""Logs: structured, with request ids, without secrets (security 45, 53)."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from server.lane.operation import REQUEST_ID
from server.settings import Settings

_SECRET_NAME = re.compile(r"password|passwd|secret|token|api_?key|authorization|cookie|code", re.I)
_SECRET_TEXT = re.compile(
    r"(?i)(bearer\s+|(?:access_token|refresh_token|token|api_key|apikey|key|code|password)=)"
    r"[^\s&\"',;]+"
)
_HIDDEN = "****"

Entry = MutableMapping[str, Any]


def without_secrets(_: Any, __: str, entry: Entry) -> Entry:
    """A structlog processor: hide values under telling names, and credentials inside texts."""
    for name, value in entry.items():
        if _SECRET_NAME.search(name) and value:
            entry[name] = _HIDDEN
        elif isinstance(value, str):
            entry[name] = _SECRET_TEXT.sub(rf"\1{_HIDDEN}", value)
    return entry


def with_request_id(_: Any, __: str, entry: Entry) -> Entry:
    """A structlog processor: name the request that a line belongs to."""
    if request_id := REQUEST_ID.get():
        entry["request_id"] = request_id.decode("latin-1")
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
    last: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if settings.log_format == "json":
        last += [
            structlog.processors.format_exc_info,
            without_secrets,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    else:
        last += [
            structlog.processors.format_exc_info,
            without_secrets,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("httpx", "httpcore", "openai", "alembic", "dbos", "connexion", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
