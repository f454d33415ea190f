"""How far a run is: its lines so far, and what they say that is not kept as messages yet.

Messages are kept at the end of a stride. Until then what was streamed of them stands in the log
alone, as do the results of tools that came before those of others in the same stride.
"""

import msgspec

from domain.conversations import Progress
from domain.runs.ending import result_of, unfinished
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
                fresh = result_of(run, result)
                told[(result.message_id, "")] = _as_read(run, fresh, record.at)
        after = records[-1].seq
    said = [one if isinstance(one, Message) else _text(run, one) for one in told.values()]
    return Progress(line, said)


def _text(run: Run, pieces: list[Text]) -> Message:
    first, whole = pieces[0], "".join(piece.text for piece in pieces)
    fresh = unfinished(run, first.message_id, first.kind, whole, first.by)
    return _as_read(run, fresh, first.at)


def _as_read(run: Run, fresh: NewMessage, at: float) -> Message:
    """A message that is not kept, as it will read; it has no place yet."""
    return Message(
        conversation_id=run.conversation_id,
        position=0,
        created_at=at,
        **msgspec.structs.asdict(fresh),
    )
