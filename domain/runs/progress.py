"""How far a run is: its lines so far, and what they say that is not kept as messages yet.

Messages are kept at the end of a stride. Until then what was streamed of them stands in the log
alone, as do the results of tools that came before those of others in the same stride.
"""

from typing import Any

import msgspec

from domain.conversations import Progress
from domain.runs.ending import unfinished
from domain.turn.telling import DECODERS, Returned, Text, stream_of
from storage.conversations import Message, NewMessage
from storage.events import EventLog
from storage.runs import Run

PAGE = 2000


async def progress(log: EventLog, run: Run) -> Progress:
    """The lines that a run has shown, and while it lives the texts and results that they add up
    to, whether or not they are kept already."""
    stream = stream_of(run.id)
    if not run.live:
        return Progress(await log.last_line(stream))
    told: dict[tuple[str, str], list[Text] | Message] = {}
    line, after = 0, 0
    while records := await log.read(stream, after, PAGE):
        for record in records:
            line = record.line or line
            if record.type == "text":
                piece: Text = DECODERS["text"].decode(record.payload)
                pieces = told.setdefault((piece.message_id, piece.kind), [])
                if isinstance(pieces, list):
                    pieces.append(piece)
            elif record.type == "tool.returned":
                result: Returned = DECODERS["tool.returned"].decode(record.payload)
                told[(result.message_id, "")] = _result(run, result, record.at)
        after = records[-1].seq
    said = [one if isinstance(one, Message) else _text(run, one) for one in told.values()]
    return Progress(line, said)


def _text(run: Run, pieces: list[Text]) -> Message:
    first, whole = pieces[0], "".join(piece.text for piece in pieces)
    fresh = unfinished(run, first.message_id, first.kind, whole, first.by)
    return _as_read(run, fresh, first.at)


def _result(run: Run, told: Returned, at: float) -> Message:
    details: dict[str, Any] = {"name": told.name}
    if told.by is not None:
        details["task"] = told.by.shown()
    fresh = NewMessage(
        id=told.message_id,
        message_id=told.message_id,
        role="tool",
        type="tool_call_result",
        text=told.text,
        tool_call_id=told.tool_call_id,
        agent_name=told.by.agent_name if told.by else run.request.get("agent_name"),
        run_id=run.id,
        task_id=told.by.task_id if told.by else None,
        details=details,
    )
    return _as_read(run, fresh, at)


def _as_read(run: Run, fresh: NewMessage, at: float) -> Message:
    """A message that is not kept, as it will read; it has no place yet."""
    return Message(
        conversation_id=run.conversation_id,
        position=0,
        created_at=at,
        **msgspec.structs.asdict(fresh),
    )
