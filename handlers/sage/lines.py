"""The sage view of a run's events: one JSON object and a newline for each that is shown.

The bytes are a function of the logged event, the session id and the agent's name as the run knows
it, so that a line read again is the same line. Shapes: StreamMessage, StreamFailure and StreamEnd
of the specification; types: document 000 and deployed servers.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from domain.turn import telling
from handlers.run_failures import FAILURES, failure_text
from storage.records import Record

HEARTBEAT = b": heartbeat\n\n"

_encode = msgspec.json.Encoder().encode

TYPES = {
    "answer": "assistant_text",
    "reasoning": "reasoning_content",
    "thinking": "thinking",
    "summary": "stage_summary",
}
NOTES = {
    **FAILURES,
    "client_left": ("客户端已断开", "The client has left."),
    "interrupted": ("用户请求中断", "Interrupted at the user's request."),
    "loop_limit": ("已达到最大循环次数", "The limit of rounds is reached."),
    "replaced": ("会话中开始了新的运行", "A newer run of the session has begun."),
    "shutdown": ("服务正在关闭", "The server is shutting down."),
    "skipped": ("已跳过不可用的能力: {names}", "Skipped, as not available: {names}"),
}
"""By the key of a note: the text of its `system` line."""


class View(msgspec.Struct, frozen=True):
    """What a run's lines say besides their events."""

    session_id: str
    agent_name: str = ""
    language: str = "zh"


class Line(msgspec.Struct, omit_defaults=True):
    """StreamMessage."""

    role: str
    message_id: str
    type: str
    timestamp: float
    metadata: dict[str, Any]
    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    agent_name: str = ""
    session_id: str = ""


def rendered(records: Iterable[Record], view: View) -> bytes:
    """The lines of those of the records that show one."""
    return b"".join([_SHOW[record.type](record, view) for record in records if record.line])


def fallback(session_id: str, timestamp: float) -> bytes:
    """The one line that answers where nothing is left to send."""
    end = {
        "type": "stream_end",
        "session_id": session_id,
        "timestamp": timestamp,
        "resume_fallback": True,
    }
    return _encode(end) + b"\n"


def _text(record: Record, view: View) -> bytes:
    told: telling.Text = _TEXT.decode(record.payload)
    line = Line(
        role="assistant",
        message_id=told.message_id,
        type=TYPES[told.kind],
        timestamp=told.at,
        metadata={},
        content=told.text,
        agent_name=view.agent_name,
        session_id=view.session_id,
    )
    if told.by is not None:
        line.agent_name = told.by.agent_name
        line.metadata = {"task": told.by.shown()}
    return _encode(line) + b"\n"


def _called(record: Record, view: View) -> bytes:
    told: telling.Called = _decoded(record)
    return _line(
        record,
        view,
        role="assistant",
        message_id=told.message_id,
        type="tool_call",
        by=told.by,
        tool_calls=told.tool_calls,
    )


def _returned(record: Record, view: View) -> bytes:
    told: telling.Returned = _decoded(record)
    return _line(
        record,
        view,
        role="tool",
        message_id=told.message_id,
        type="tool_call_result",
        by=told.by,
        content=told.text,
        tool_call_id=told.tool_call_id,
        metadata={"tool_name": told.name, "failed": told.failed},
    )


def _tokens(record: Record, view: View) -> bytes:
    told: telling.Tokens = _decoded(record)
    counts = {
        "model": told.model,
        "prompt_tokens": told.input_tokens,
        "completion_tokens": told.output_tokens,
        "total_tokens": told.input_tokens + told.output_tokens,
        "estimated": told.estimated,
    }
    return _line(
        record,
        view,
        role="assistant",
        message_id=told.message_id,
        type="token_usage",
        by=told.by,
        content="",
        metadata={"token_usage": counts},
    )


def _suggested(record: Record, view: View) -> bytes:
    told: telling.Suggested = _decoded(record)
    return _line(
        record,
        view,
        role="assistant",
        message_id=told.message_id,
        type="query_suggest",
        content=told.question,
    )


def _noted(record: Record, view: View) -> bytes:
    told: telling.Noted = _decoded(record)
    zh, en = NOTES.get(told.what, (told.what, told.what))
    text = (en if view.language == "en" else zh).format(names=", ".join(told.names))
    return _line(
        record,
        view,
        role="system",
        message_id=told.message_id,
        type="system",
        by=told.by,
        content=told.text or text,
        metadata={"what": told.what, "names": told.names},
    )


def _failed(record: Record, view: View) -> bytes:
    told: telling.Failed = _decoded(record)
    failure = {
        "type": "error",
        "content": failure_text(told.reason, told.detail, view.language),
        "role": "assistant",
        "message_id": told.message_id,
        "session_id": view.session_id,
    }
    return _encode(failure) + b"\n"


def _ended(record: Record, view: View) -> bytes:
    end = {
        "type": "stream_end",
        "session_id": view.session_id,
        "timestamp": record.at,
        "total_stream_count": record.line,
    }
    return _encode(end) + b"\n"


def _line(
    record: Record,
    view: View,
    *,
    metadata: dict[str, Any] | None = None,
    by: telling.Delegated | None = None,
    **fields: Any,
) -> bytes:
    task = {"task": by.shown()} if by else {}
    line = Line(
        timestamp=record.at,
        agent_name=by.agent_name if by else view.agent_name,
        session_id=view.session_id,
        metadata={**(metadata or {}), **task},
        **fields,
    )
    return _encode(line) + b"\n"


def _decoded(record: Record) -> Any:
    return telling.DECODERS[record.type].decode(record.payload)


_TEXT = telling.DECODERS["text"]
_SHOW: dict[str, Callable[[Record, View], bytes]] = {
    "text": _text,
    "tool.called": _called,
    "tool.returned": _returned,
    "tokens": _tokens,
    "suggestion": _suggested,
    "run.noted": _noted,
    "failed": _failed,
    "run.ended": _ended,
}
