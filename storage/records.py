"""What the event log keeps, and how it can fail its readers and writers."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Integer,
    bindparam,
    delete,
    insert,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.expression import Executable

from storage.database import Statement, StorageError
from storage.schema import events, runs, streams


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something to be logged. `payload` is JSON text in UTF-8, kept byte for byte.

    `shown` says that a sage client is shown one line for it; the log counts those lines.
    `at` is UTC seconds since the epoch.
    """

    type: str
    payload: bytes
    shown: bool = False
    at: float = msgspec.field(default_factory=time.time)


class Record(msgspec.Struct, frozen=True, gc=False):
    """An event as the log keeps it.

    `seq` is dense per stream, from 1. `line` is the number of shown lines of the stream up to and
    including this one, from 1 (sage's `last_index` once it was received), and None where the
    event shows no line; `line <= seq`.
    """

    stream: str
    seq: int
    type: str
    payload: bytes
    line: int | None
    at: float


class StreamTaken(StorageError):
    """Another writer has appended to the stream, or it was deleted: this writer is fenced off and
    nothing of its was kept. The argument names the stream."""


class LogBehind(StorageError):
    """A producer pushed on without waiting for the log (Writer.drain)."""


class CutOff(StorageError):
    """A follower ends before its stream does; the wire must end without a terminal event.

    `seq` is the last record it was given: following again from there misses nothing.
    """

    def __init__(self, stream: str, seq: int) -> None:
        super().__init__(f"{stream} after {seq}")
        self.stream = stream
        self.seq = seq


class SlowReader(CutOff):
    """More records wait for this follower than may wait for one."""


class LogUnwritable(CutOff):
    """A writer of the stream could not write; what it pushed was not logged."""


class StreamDeleted(CutOff):
    """The stream and its records are gone."""


class LogClosed(CutOff):
    """The process shuts down."""


def numbered(stream: str, head: int, line: int, given: Sequence[Event]) -> list[Record]:
    """The records that `given` become behind record `head` and shown line `line`."""
    records = []
    for event in given:
        head += 1
        shown = None
        if event.shown:
            line += 1
            shown = line
        records.append(Record(stream, head, event.type, event.payload, shown, event.at))
    return records


def as_rows(records: Sequence[Record]) -> list[Mapping[str, Any]]:
    """Records as parameters of INSERT. Raises UnicodeDecodeError where a payload is not UTF-8."""
    return [
        {
            "stream": record.stream,
            "seq": record.seq,
            "type": record.type,
            "payload": record.payload.decode(),
            "line": record.line,
            "at": record.at,
        }
        for record in records
    ]


def _record(stream: str, seq: int, type_: str, payload: str, line: int | None, at: float) -> Record:
    return Record(stream, seq, type_, payload.encode(), line, at)


_COLUMNS = (
    events.c.stream,
    events.c.seq,
    events.c.type,
    events.c.payload,
    events.c.line,
    events.c.at,
)


def _advance(dialect: Any) -> Executable:
    statement = dialect.insert(streams).values(id=bindparam("stream"), head=bindparam("count"))
    advanced: Executable = statement.on_conflict_do_update(
        index_elements=["id"], set_={"head": streams.c.head + statement.excluded.head}
    ).returning(streams.c.head)
    return advanced


def _begin(dialect: Any) -> Executable:
    statement = dialect.insert(streams).values(id=bindparam("stream"), head=0)
    begun: Executable = statement.on_conflict_do_nothing(index_elements=["id"])
    return begun


ADVANCE = Statement({"sqlite": _advance(sqlite), "postgresql": _advance(postgresql)})
"""Take `count` numbers of `stream`, which need not exist: one row, the new head. The row stays
locked until the transaction ends, so numbers become visible in their order."""

BEGIN = Statement({"sqlite": _begin(sqlite), "postgresql": _begin(postgresql)})
"""Make `stream` exist."""

ADVANCE_MANY = Statement(
    {
        "sqlite": text(
            "UPDATE streams SET head = t.new FROM ("
            "SELECT value ->> 0 AS id, value ->> 1 AS old, value ->> 2 AS new"
            " FROM json_each(:moves)) AS t"
            " WHERE streams.id = t.id AND streams.head = t.old RETURNING streams.id"
        ),
        "postgresql": text(
            "UPDATE streams SET head = t.new FROM ("
            "SELECT value ->> 0 AS id, CAST(value ->> 1 AS bigint) AS old,"
            " CAST(value ->> 2 AS bigint) AS new"
            " FROM json_array_elements(CAST(:moves AS json))) AS t"
            " WHERE streams.id = t.id AND streams.head = t.old RETURNING streams.id"
        ),
    }
)
"""Move the heads of streams, `moves` = `[[id, old, new], …]`: the ids of those that stood at
`old`. The others belong to another writer now."""

INSERT = Statement(insert(events))

READ = Statement(
    select(*_COLUMNS)
    .where(events.c.stream == bindparam("stream"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(bindparam("limit", type_=Integer)),
    into=_record,
)

READ_MANY = Statement(
    {
        "sqlite": text(
            "SELECT e.stream, e.seq, e.type, e.payload, e.line, e.at"
            " FROM json_each(:cursors) AS t JOIN events AS e"
            " ON e.stream = t.value ->> 0 AND e.seq > t.value ->> 1"
            " ORDER BY e.stream, e.seq LIMIT :limit"
        ),
        "postgresql": text(
            "SELECT e.stream, e.seq, e.type, e.payload, e.line, e.at"
            " FROM json_array_elements(CAST(:cursors AS json)) AS t"
            " CROSS JOIN LATERAL (SELECT * FROM events"
            " WHERE stream = t.value ->> 0 AND seq > CAST(t.value ->> 1 AS bigint)"
            " ORDER BY seq LIMIT :limit) AS e ORDER BY e.stream, e.seq LIMIT :limit"
        ),
    },
    into=_record,
)
"""Records of several streams, `cursors` = `[[stream, after], …]`, at most `limit` in all."""

READ_CONVERSATION = Statement(
    select(*_COLUMNS)
    .select_from(runs.join(events, events.c.stream == literal("run:") + runs.c.id))
    .where(
        runs.c.conversation_id == bindparam("conversation_id"),
        or_(events.c.type != literal("text"), runs.c.ended_at.is_(None)),
    )
    .order_by(runs.c.created_at, runs.c.id, events.c.seq),
    into=_record,
)
"""Records of a conversation's runs without the pieces of what the ended ones have said."""

HEAD = Statement(select(streams.c.head).where(streams.c.id == bindparam("stream")))

HOLD = Statement(
    select(streams.c.head).where(streams.c.id == bindparam("stream")).with_for_update()
)
"""The head, locked until the transaction ends."""

LAST_LINE = Statement(
    select(events.c.line)
    .where(events.c.stream == bindparam("stream"), events.c.line.is_not(None))
    .order_by(events.c.seq.desc())
    .limit(1)
)

AT_LINE = Statement(
    select(events.c.seq, events.c.line)
    .where(
        events.c.stream == bindparam("stream"),
        events.c.seq >= bindparam("from_seq", type_=BigInteger),
        events.c.line >= bindparam("line"),
    )
    .order_by(events.c.seq)
    .limit(1)
)
"""The first record that shows `line` or a later one. As `line <= seq`, the walk along the primary
key begins at `from_seq = line` and passes only as many records as show no line."""

DELETE_STREAM = Statement(delete(streams).where(streams.c.id == bindparam("stream")))
DELETE_EVENTS = Statement(delete(events).where(events.c.stream == bindparam("stream")))
DELETE_OLD = Statement(
    delete(events).where(events.c.stream == bindparam("stream"), events.c.at < bindparam("before"))
)
STREAMS_AFTER = Statement(
    select(streams.c.id)
    .where(streams.c.id > bindparam("after"))
    .order_by(streams.c.id)
    .limit(bindparam("limit", type_=Integer))
)
