"""The sandbox view of a run's events: server-sent events, one or more for each that is shown.

The bytes are a function of the logged event, so that an event read again is the same event. Its
`event_id` is its place in the log: the run, the record and, where one record shows several, the
part. Shapes: schemas/event.yaml; framing: that of sse-starlette (CRLF, no `id`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from domain.sessions import Position
from domain.turn import telling
from handlers.run_failures import FAILURES
from storage.records import Record
from storage.runs import Run

STATUSES = {"in_progress": "running"}
"""By a task's status: a step's, where it is another word."""
SPOKEN = frozenset({"answer", "summary"})
"""Kinds of text that are said to the user, by the run's own agent."""

_encode = msgspec.json.Encoder().encode

Data = dict[str, Any]
Shown = tuple[str, Data]


def sse(name: str, data: Any) -> bytes:
    """One event as it is sent."""
    return b"event: %b\r\ndata: %b\r\n\r\n" % (name.encode(), _encode(data))


def ping() -> bytes:
    """The comment that keeps a connection alive."""
    return f": ping - {datetime.now(UTC)}\r\n\r\n".encode()


def position_of(event_id: str) -> Position | None:
    """The place that an `event_id` names; None where it names none."""
    run_id, *numbers = event_id.split(".")
    if not run_id or not 1 <= len(numbers) <= 2:
        return None
    if not all(number.isascii() and number.isdigit() and len(number) < 16 for number in numbers):
        return None
    return Position(run_id, *map(int, numbers))


def opening(run: Run) -> Shown:
    """What the user said that a run answers."""
    data = _placed(f"{run.id}.0", run.created_at)
    session = run.request.get("session") or {}
    return "message", _said(data, "user", run.query, attachments=session.get("attachments", []))


def rendered(run: Run, records: Iterable[Record], seen: int | None = None) -> Iterator[Shown]:
    """What records of a run show; parts of the first up to `seen` are left out."""
    for record in records:
        show = _SHOW.get(record.type)
        if show is not None:
            shown = show(run, record)
            yield from shown if seen is None else shown[seen + 1 :]
        seen = None


def summed_up(run: Run, records: Sequence[Record]) -> list[Shown]:
    """As `rendered`, from the run's beginning, without the pieces of messages that are whole."""
    whole = {_decoded(record).message_id for record in records if record.type == "text.whole"}
    shown = list(rendered(run, records))
    return [
        opening(run),
        *(one for one in shown if not (one[1].get("partial") and one[1]["stream_id"] in whole)),
    ]


def _placed(event_id: str, at: float) -> Data:
    return {"event_id": event_id, "created_at": int(at)}


def _at(run: Run, record: Record) -> Data:
    return _placed(f"{run.id}.{record.seq}", record.at)


def _said(
    data: Data,
    role: str,
    text: str,
    *,
    stream_id: str | None = None,
    partial: bool = False,
    attachments: Sequence[Any] = (),
) -> Data:
    said = {"role": role, "message": text, "stream_id": stream_id, "partial": partial}
    return {**data, **said, "attachments": list(attachments)}


def _text(run: Run, record: Record) -> list[Shown]:
    told: telling.Text = _decoded(record)
    if told.kind not in SPOKEN or told.by is not None:
        return []
    data = _at(run, record)
    return [
        ("message", _said(data, "assistant", told.text, stream_id=told.message_id, partial=True))
    ]


def _whole(run: Run, record: Record) -> list[Shown]:
    told: telling.Whole = _decoded(record)
    data = _at(run, record)
    return [("message", _said(data, "assistant", told.text, stream_id=told.message_id))]


def _answered(run: Run, record: Record) -> list[Shown]:
    told: telling.Answered = _decoded(record)
    return [("message", _said(_at(run, record), "user", told.text, attachments=told.attachments))]


def _titled(run: Run, record: Record) -> list[Shown]:
    return [("title", {**_at(run, record), "title": _decoded(record).title})]


def _planned(run: Run, record: Record) -> list[Shown]:
    data = _at(run, record)
    return [
        ("plan", {**data, "steps": [{**data, **_step(step)} for step in _decoded(record).steps]})
    ]


def _stepped(run: Run, record: Record) -> list[Shown]:
    told: telling.Stepped = _decoded(record)
    return [("step", {**_at(run, record), **_step(msgspec.structs.asdict(told))})]


def _step(step: Data) -> Data:
    status = STATUSES.get(step["status"], step["status"])
    return {"id": step["id"], "status": status, "description": step["description"]}


def _called(run: Run, record: Record) -> list[Shown]:
    told: telling.Called = _decoded(record)
    boxes = told.toolboxes or [""] * len(told.tool_calls)
    return [
        (
            "tool",
            {
                **_placed(f"{run.id}.{record.seq}.{part}", record.at),
                **_tool(call["id"], box, call["function"]["name"], call["function"]["arguments"]),
                "status": "calling",
                "content": None,
            },
        )
        for part, (call, box) in enumerate(zip(told.tool_calls, boxes, strict=True))
    ]


def _returned(run: Run, record: Record) -> list[Shown]:
    told: telling.Returned = _decoded(record)
    shape = _CONTENT.get(told.toolbox, _result)
    if told.failed:
        content = {**(_NOTHING.get(told.toolbox) or shape(told.text)), "error": told.text}
    else:
        content = shape(told.text) if told.content is None else told.content
    return [
        (
            "tool",
            {
                **_at(run, record),
                **_tool(told.tool_call_id, told.toolbox, told.name, told.arguments),
                "status": "called",
                "content": content,
            },
        )
    ]


def _tool(call_id: str, toolbox: str, function: str, arguments: str) -> Data:
    try:
        args = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        args = {}
    return {"tool_call_id": call_id, "name": toolbox or "tool", "function": function, "args": args}


def _result(text: str) -> Data:
    return {"result": text}


_CONTENT: dict[str, Callable[[str], Data]] = {
    "browser": lambda text: {"screenshot": "", "content": text},
    "search": lambda text: {"results": [{"title": "", "link": "", "snippet": text}]},
    "shell": lambda text: {"console": []},
    "file": lambda text: {"content": text},
    "a2a": lambda text: {"a2a_result": text},
    "skill": lambda text: {"skill_result": text},
}
"""By toolbox: what is shown of a tool that gave nothing but text."""
_NOTHING: dict[str, Data] = {
    "browser": {"screenshot": "", "content": ""},
    "search": {"results": []},
    "shell": {"console": []},
    "file": {"content": ""},
}
"""By toolbox: what is shown of a call that failed, where its reason would pass for a result."""


def _waiting(run: Run, record: Record) -> list[Shown]:
    return [("wait", _at(run, record))]


def _failed(run: Run, record: Record) -> list[Shown]:
    told: telling.Failed = _decoded(record)
    zh, en = FAILURES.get(told.reason, (told.reason, told.reason))
    text = en if run.request.get("language") == "en" else zh
    error = f"{text} ({told.detail})" if told.detail else text
    return [("error", {**_at(run, record), "error": error})]


def _ended(run: Run, record: Record) -> list[Shown]:
    told: telling.Ended = _decoded(record)
    # A failed run has ended with its error, and one that was replaced goes on as another.
    if told.state == "failed" or told.reason == "replaced":
        return []
    return [("done", _at(run, record))]


def _decoded(record: Record) -> Any:
    return telling.DECODERS[record.type].decode(record.payload)


_SHOW: dict[str, Callable[[Run, Record], list[Shown]]] = {
    "text": _text,
    "text.whole": _whole,
    "answered": _answered,
    "titled": _titled,
    "plan": _planned,
    "step": _stepped,
    "tool.called": _called,
    "tool.returned": _returned,
    "waiting": _waiting,
    "failed": _failed,
    "run.ended": _ended,
}
