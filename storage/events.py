"""The event log: one append-only log of streams, the only source of what is streamed, resumed,
polled or pushed.

What a client has seen is in the log: records are published after they commit, never before.
Numbers are dense per stream. Stream names stand in ARCHITECTURE.md.

    yield from log.append("agent:…", [Event("agent.renamed", b'{"name":"x"}')])    # in a unit

    writer = log.writer("run:…")                                                   # a running turn
    writer.push(Event("text", b'"to"', shown=True))
    await writer.close_with(lambda: runs.finish(…), [Event("run.ended", b"{}", shown=True)])

    async with log.follow("run:…", from_line=15, idle_s=20) as records_as_they_come:
        async for records in records_as_they_come: …
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from storage.database import AfterCommit, Database, Unit
from storage.followers import PENDING_RECORDS, Follower, Tail, Watch
from storage.records import (
    ADVANCE,
    AT_LINE,
    DELETE_EVENTS,
    DELETE_OLD,
    DELETE_STREAM,
    HOLD,
    INSERT,
    LAST_LINE,
    READ,
    READ_CONVERSATION,
    STREAMS_AFTER,
    CutOff,
    Event,
    LogBehind,
    LogClosed,
    LogUnwritable,
    Record,
    SlowReader,
    StreamDeleted,
    StreamTaken,
    as_rows,
    numbered,
)
from storage.wakeups import Wakeups
from storage.writers import Committer, Writer

__all__ = [
    "CutOff",
    "Event",
    "EventLog",
    "Follower",
    "LogBehind",
    "LogClosed",
    "LogUnwritable",
    "Record",
    "SlowReader",
    "StreamDeleted",
    "StreamTaken",
    "Watch",
    "Writer",
]

SWEPT_TOGETHER = 100
"""Streams whose old records one transaction of the sweep deletes."""


class EventLog:
    """The log over one database. Made and used on one event loop."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._tail = Tail(database, wakeups)
        self._committer = Committer(database, self._tail)

    # --- writing ----------------------------------------------------------------------------

    def append(self, stream: str, events: Sequence[Event]) -> Unit[int]:
        """Append to a stream inside any unit of work; returns the stream's new head.

        The records commit with the unit's rows and are published after it. A writer of the
        stream is fenced off (StreamTaken).
        """
        if not events:
            raise ValueError("nothing to append")
        head: int
        ((head,),) = yield ADVANCE(stream=stream, count=len(events))
        line = 0
        if any(event.shown for event in events):
            found = yield LAST_LINE(stream=stream)
            line = found[0][0] if found else 0
        records = numbered(stream, head - len(events), line, events)
        yield INSERT.many(as_rows(records))
        yield AfterCommit(partial(self._tail.publish, (records,)))
        return head

    def hold(self, stream: str) -> Unit[None]:
        """Let nobody else append to a stream until this unit ends, so that what it reads of the
        stream stays the whole of it. A writer that waits meanwhile is fenced off if the unit
        appends."""
        yield HOLD(stream=stream)

    def writer(self, stream: str, *, head: int = 0, line: int = 0) -> Writer:
        """The writer of a new stream, or of one that stands at record `head`, shown line `line`.

        A stream has one writer. It is fenced off (StreamTaken) when the stream does not stand
        where it knows it.
        """
        return Writer(self._committer, stream, head, line)

    async def writer_behind(self, stream: str) -> Writer:
        """A writer that goes on behind what the stream holds."""
        head = await self.head(stream)
        return self.writer(stream, head=head, line=await self.last_line(stream))

    def delete(self, streams: Sequence[str]) -> Unit[None]:
        """Delete streams with their records inside any unit of work; followers are cut off."""
        names: list[Mapping[str, Any]] = [{"stream": stream} for stream in streams]
        if names:
            yield DELETE_EVENTS.many(names)
            yield DELETE_STREAM.many(names)
            yield AfterCommit(partial(self._tail.deleted, tuple(streams)))

    async def sweep(self, before: float) -> int:
        """Delete records older than `before` (UTC seconds) and return how many.

        Heads stay, so that numbers go on. In small transactions, so that writers are not held up.
        """
        deleted, after = 0, ""
        while True:
            page = await self._database.read(STREAMS_AFTER(after=after, limit=SWEPT_TOGETHER))
            if not page:
                return deleted
            after = page[-1][0]
            deleted += await self._database.write(
                partial(_delete_old, [stream for (stream,) in page], before)
            )

    # --- reading ----------------------------------------------------------------------------

    async def read(self, stream: str, after_seq: int = 0, limit: int = 500) -> list[Record]:
        """At most `limit` records behind record `after_seq`, in order."""
        found: list[Record] = await self._database.read(
            READ(stream=stream, after=after_seq, limit=limit)
        )
        return found

    async def read_conversation(self, conversation_id: str) -> list[Record]:
        """The records of a conversation's runs, in order; without the pieces of messages where the
        run has ended, whose whole texts are there."""
        found: list[Record] = await self._database.scan(
            READ_CONVERSATION(conversation_id=conversation_id)
        )
        return found

    async def read_from_line(self, stream: str, line: int, limit: int = 500) -> list[Record]:
        """At most `limit` records behind the one that showed `line`."""
        return await self.read(stream, await self.seq_of_line(stream, line), limit)

    async def seq_of_line(self, stream: str, line: int) -> int:
        """The cursor of a client that has received `line` lines: everything it has not seen comes
        behind it. Past the end of what is shown it is the head."""
        if line <= 0:
            return 0
        head = await self.head(stream)
        found: tuple[int, int] | None = await self._database.read_one(
            AT_LINE(stream=stream, from_seq=line, line=line)
        )
        if found is None:
            return head
        seq, shown = found
        # A later line: the one that was asked for has been swept away.
        return seq if shown == line else seq - 1

    async def head(self, stream: str) -> int:
        """`seq` of the stream's last record, 0 where there is none."""
        return await self._tail.head(stream)

    async def last_line(self, stream: str) -> int:
        """The number of lines that the stream has shown."""
        row: tuple[int] | None = await self._database.read_one(LAST_LINE(stream=stream))
        return row[0] if row else 0

    def follow(
        self,
        stream: str,
        after_seq: int = 0,
        *,
        from_line: int | None = None,
        idle_s: float = 20.0,
        pending: int = PENDING_RECORDS,
        on_cut: Callable[[], None] | None = None,
    ) -> Follower:
        """Records behind `after_seq`, or behind the line that a client has received last, and
        then each as it commits, exactly once and in order; see Follower.

        A cursor past the end waits: for the next record, or for the line after `from_line`.
        `pending` records, or 4 MiB, may wait for this follower; then it is a SlowReader, and
        `on_cut` is called at once, so that a connection that nobody reads can be ended.
        """

        async def begin() -> int:
            return after_seq if from_line is None else await self.seq_of_line(stream, from_line)

        return Follower(
            self._tail,
            stream,
            begin,
            past_line=from_line or 0,
            idle_s=idle_s,
            limit=pending,
            on_cut=on_cut,
        )

    async def watch(self, stream: str, seen: Callable[[list[Record]], None]) -> Watch:
        """Call `seen` with what commits on `stream` from now on, until the watch is closed or
        dropped. `Watch.last_ok` tells whether it is up to date; on several processes the
        stream's rows are read twice a second whether or not wake-ups arrive."""
        watch = Watch(self._tail, stream, seen)
        await watch.join()
        return watch

    @property
    def followed(self) -> int:
        """How many streams have followers or watches in this process."""
        return self._tail.followed

    async def close(self) -> None:
        """Commit what writers hold, cut every follower off, stop listening."""
        await self._committer.close()
        await self._tail.close()


def _delete_old(streams: Sequence[str], before: float) -> Unit[int]:
    deleted: int = yield DELETE_OLD.many(
        [{"stream": stream, "before": before} for stream in streams]
    )
    return deleted
