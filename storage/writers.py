"""Writers of running turns, committed together.

A writer collects events without waiting. One loop per process takes what all writers hold and
commits it as one unit: at once when the log is idle, every few milliseconds under load. A writer
knows its stream's head, and its records are kept only if the stream still stands there: whoever
else appends to the stream (a recovery that ends the run) fences the writer off.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from storage.database import AfterCommit, Database, StorageFull, StorageUnavailable, T, Unit
from storage.followers import Tail
from storage.records import (
    ADVANCE_MANY,
    BEGIN,
    INSERT,
    Event,
    LogBehind,
    LogUnwritable,
    Record,
    StreamTaken,
    as_rows,
    numbered,
)

log = logging.getLogger("quartet.storage")

HIGH = 512
"""Events that may wait for the log before `drain` waits."""
FULL = 65536
"""Events that may wait for the log at all."""
GROUP = 4096
"""Most events of one commit, so that other writes need not wait long behind it."""
GAP_S = 0.005
"""Least time between the starts of two groups while there is load."""
GAP_MAX_S = 0.015
SHARE = 2
"""A group that took t is followed by the next after SHARE × t (at most GAP_MAX_S), so that a slow
disk gets larger groups instead of more of them."""

Batch = tuple["Writer", list[Record]]


class Writer:
    """The one appender of a stream while a turn runs."""

    __slots__ = (
        "_committed",
        "_committer",
        "_committing",
        "_ended",
        "_error",
        "_events",
        "_pushed",
        "_waiters",
        "head",
        "line",
        "pushed_line",
        "stream",
    )

    def __init__(self, committer: "Committer", stream: str, head: int, line: int) -> None:
        self.stream = stream
        self.head = head
        """`seq` of the last record that is committed."""
        self.line = line
        """The last shown line that is committed."""
        self.pushed_line = line
        """The last shown line once everything pushed is committed."""
        self._committer = committer
        self._events: list[Event] = []
        self._pushed = 0
        self._committed = 0
        self._committing = False
        self._ended = False
        self._error: Exception | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def push(self, event: Event) -> None:
        """Hand an event to the log; it commits, and then shows, within milliseconds.

        Raises what made the log fail (StorageFull, StreamTaken, …), and LogBehind for a producer
        that does not `drain`.
        """
        if self._error is not None:
            raise self._error
        if self._ended:
            raise StreamTaken(self.stream)
        events = self._events
        if not events:
            if self._committer.closing:
                raise StorageUnavailable("the event log is closed")
            self._committer.wants(self)
        elif len(events) >= FULL:
            raise LogBehind(self.stream)
        events.append(event)
        self._pushed += 1
        self.pushed_line += event.shown

    async def drain(self) -> None:
        """Wait while the log is far behind, as `asyncio.StreamWriter.drain` does."""
        if self._pushed - self._committed > HIGH:
            await self.flush()

    async def flush(self) -> None:
        """Wait until everything pushed is committed. Raises what made the log fail."""
        if self._error is not None:
            raise self._error
        if self._committed == self._pushed:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((self._pushed, waiter))
        await waiter

    async def close_with(self, unit: Callable[[], Unit[T]], final: Sequence[Event] = ()) -> T:
        """Commit `unit`, everything pushed and the events `final` in one transaction, and end the
        writer.

        All or nothing: where this raises, none of the three was kept; nothing more can be pushed,
        and `close_with` may be tried again, with another unit and other final events.
        """
        self._ended = True
        self._committer.withdraw(self)
        while self._committing:
            await self._in_flight()
        if self._error is not None:
            raise self._error
        records = numbered(self.stream, self.head, self.line, [*self._events, *final])
        result = await self._committer.commit_with(self, records, unit)
        self._events = []
        self._pushed += len(final)
        self._settle(records)
        return result

    async def close(self) -> None:
        """Commit everything pushed and end the writer."""
        if not self._ended:
            await self.close_with(_nothing)

    async def _in_flight(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append((self._committed + 1, waiter))
        await waiter

    def _take(self, limit: int) -> list[Record]:
        """What is pushed, at most `limit`, as the records it is going to be."""
        events, self._events = self._events[:limit], self._events[limit:]
        if self._events:
            self._committer.wants(self)
        self._committing = True
        return numbered(self.stream, self.head, self.line, events)

    def _settle(self, records: list[Record]) -> None:
        """`records` are committed."""
        self._committing = False
        if records:
            self.head = records[-1].seq
            self.line = max(self.line, *(record.line or 0 for record in records))
            self._committed += len(records)
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for target, waiter in waiters:
                if target > self._committed:
                    self._waiters.append((target, waiter))
                elif not waiter.done():
                    waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._committing = False
        self._error = error
        self._events = []
        self._committer.withdraw(self)
        waiters, self._waiters = self._waiters, []
        for _, waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)


def _nothing() -> Unit[None]:
    return
    yield


class Committer:
    """The loop that commits what all writers of the process hold."""

    def __init__(self, database: Database, tail: Tail) -> None:
        self._database = database
        self._tail = tail
        self._waiting: dict[Writer, None] = {}
        self._something: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.closing = False

    def wants(self, writer: Writer) -> None:
        """`writer` holds events, or is about to."""
        self._waiting[writer] = None
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        elif self._something is not None and not self._something.done():
            self._something.set_result(None)

    def withdraw(self, writer: Writer) -> None:
        """`writer` commits by itself what it still holds."""
        self._waiting.pop(writer, None)

    async def commit_with(
        self, writer: Writer, records: list[Record], unit: Callable[[], Unit[T]]
    ) -> T:
        """Commit a unit and the last records of a writer together."""

        def both() -> Unit[T]:
            result = yield from unit()
            if records:
                taken = yield from self._append([(writer, records)])
                if taken:
                    raise StreamTaken(writer.stream)
            return result

        return await self._database.write(both)

    async def close(self) -> None:
        """Commit what is held, then end."""
        self.closing = True
        if self._task is not None:
            if self._something is not None and not self._something.done():
                self._something.set_result(None)
            await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            if not self._waiting:
                if self.closing:
                    return
                self._something = loop.create_future()
                await self._something
                self._something = None
                continue
            began = loop.time()
            await self._commit(self._group())
            took = loop.time() - began
            pause = min(max(GAP_S, SHARE * took), GAP_MAX_S) - took
            if pause > 0 and not self.closing:
                await asyncio.sleep(pause)

    def _group(self) -> list[Batch]:
        """What the next commit takes: from every writer something, at most about GROUP events."""
        waiting, self._waiting = self._waiting, {}
        share = max(1, GROUP // len(waiting))
        return [(writer, writer._take(share)) for writer in waiting]

    async def _commit(self, batches: list[Batch]) -> None:
        """Commit a group; each writer is settled or failed afterwards."""
        try:
            taken = await self._database.write(lambda: self._append(batches))
        except Exception as error:
            if len(batches) > 1 and not isinstance(error, StorageFull | StorageUnavailable):
                # One of them carries what the database refuses; the others must not suffer.
                for batch in batches:
                    await self._commit([batch])
                return
            log.warning("the event log cannot be written: %s", error)
            for writer, _ in batches:
                self._refuse(writer, error)
            return
        for writer, records in batches:
            if writer.stream in taken:
                self._refuse(writer, StreamTaken(writer.stream))
            else:
                writer._settle(records)

    def _refuse(self, writer: Writer, error: Exception) -> None:
        writer._fail(error)
        if not isinstance(error, StreamTaken):
            self._tail.fail(writer.stream, LogUnwritable)

    def _append(self, batches: list[Batch]) -> Unit[Collection[str]]:
        """Write the records of writers whose stream still stands where they know it; returns the
        streams of the others."""
        new: list[Mapping[str, Any]] = [
            {"stream": writer.stream} for writer, _ in batches if not writer.head
        ]
        if new:
            yield BEGIN.many(new)
        moves = [(writer.stream, writer.head, records[-1].seq) for writer, records in batches]
        moved = yield ADVANCE_MANY(moves=msgspec.json.encode(moves).decode())
        taken: set[str] = set()
        if len(moved) < len(batches):
            taken = {writer.stream for writer, _ in batches} - {stream for (stream,) in moved}
        kept = [records for writer, records in batches if writer.stream not in taken]
        if kept:
            yield INSERT.many(as_rows([record for records in kept for record in records]))
            yield AfterCommit(partial(self._tail.publish, kept))
        return taken
