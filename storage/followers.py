"""Readers of the event log's live end.

A **channel** exists per stream while somebody reads its end. Batches that commit in this process
are offered to the channel's live readers as they are: one list, shared, no query. A reader that
is behind reads rows at its own pace until it has caught up; then it is live. What other processes
commit is read from rows once per process, for all channels together, by the **tail**.
"""

import asyncio
import logging
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import chain
from typing import Protocol

import msgspec

from storage.database import Database, StorageError
from storage.records import (
    HEAD,
    READ,
    READ_MANY,
    CutOff,
    LogClosed,
    Record,
    SlowReader,
    StreamDeleted,
)
from storage.wakeups import LOST_POLL_S, Wakeups

log = logging.getLogger("quartet.storage")

PAGE = 500
"""Records read from rows at a time by one reader that is behind."""
TAIL_PAGE = 2000
"""Records read from rows at a time for all channels together."""
PENDING_RECORDS = 4096
PENDING_BYTES = 4 * 1024 * 1024
"""What may wait for one follower before it is cut off."""
COALESCE_S = 0.005
RETRY_S = 0.25


class Reader(Protocol):
    """Whoever reads the end of a channel."""

    position: int
    live: bool

    def offer(self, records: list[Record]) -> None:
        """Take records that follow `position`; called only while `live`."""

    def fail(self, error: type[CutOff]) -> None:
        """End with such an error."""


class Channel:
    """The live end of one stream in this process.

    Every live reader has been offered everything up to `head`. `wakes` counts the wake-ups, so
    that a reader that is about to go live sees whether one came while it read.
    """

    __slots__ = ("_readers", "head", "stream", "wakes", "watched")

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.head = 0
        self.wakes = 0
        self.watched = False
        self._readers: dict[int, weakref.ref[Reader]] = {}

    def add(self, reader: Reader, emptied: Callable[["Channel"], None]) -> None:
        """Know `reader` until it is removed or nobody holds it any more."""
        key = id(reader)
        readers = self._readers

        def gone(_: object) -> None:
            if readers.pop(key, None) is not None and not readers:
                emptied(self)

        readers[key] = weakref.ref(reader, gone)

    def remove(self, reader: Reader) -> None:
        self._readers.pop(id(reader), None)

    @property
    def empty(self) -> bool:
        return not self._readers

    @property
    def live(self) -> list[Reader]:
        found = []
        for reference in self._readers.values():
            reader = reference()
            if reader is not None and reader.live:
                found.append(reader)
        return found

    @property
    def readers(self) -> list[Reader]:
        return [reader for reference in self._readers.values() if (reader := reference())]

    def publish(self, records: list[Record], *, follows: bool = False) -> bool:
        """Offer records that have committed. False when records before them are missing here;
        `follows` says that none can be missing."""
        head, last = self.head, records[-1].seq
        if last <= head:
            return True
        live = self.live
        if live:
            first = records[0].seq
            if first > head + 1 and not follows:
                return False
            for reader in live:
                position = reader.position
                if first > position:
                    reader.offer(records)
                elif last > position:
                    reader.offer([record for record in records if record.seq > position])
        self.head = last
        return True

    def caught_up(self, reader: Reader, wakes: int) -> bool:
        """Let a reader that has read all rows up to its position go live, unless more has
        committed since it began to read, at `wakes`."""
        if self.wakes != wakes or self.head > reader.position:
            return False
        if not self.live:
            self.head = reader.position
        reader.live = True
        return True


class Tail:
    """All channels of this process, and the reading of rows on their behalf."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups
        self._channels: dict[str, Channel] = {}
        self._dirty: set[str] = set()
        self._something: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._confirmed_at = 0.0
        self._started = False
        self._closed = False

    def open(self, stream: str, reader: Reader) -> Channel:
        """The channel of `stream`, with `reader` in it."""
        if self._closed:
            raise LogClosed(stream, reader.position)
        self._start()
        if self._task is None and self._wakeups.poll_s is not None:
            self._task = asyncio.create_task(self._run())
        channel = self._channels.get(stream)
        if channel is None:
            channel = self._channels[stream] = Channel(stream)
        channel.add(reader, self._emptied)
        return channel

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._wakeups.listen(self.heard)

    def leave(self, channel: Channel, reader: Reader) -> None:
        channel.remove(reader)
        if channel.empty:
            self._emptied(channel)

    def _emptied(self, channel: Channel) -> None:
        if self._channels.get(channel.stream) is channel:
            del self._channels[channel.stream]
            self._dirty.discard(channel.stream)

    @property
    def followed(self) -> int:
        """How many streams have readers in this process."""
        return len(self._channels)

    def publish(self, batches: Iterable[list[Record]]) -> None:
        """Offer what this process has committed, and wake the others."""
        channels = self._channels
        streams = []
        for records in batches:
            stream = records[0].stream
            streams.append(stream)
            channel = channels.get(stream)
            if channel is not None and not channel.publish(records):
                self.heard((stream,))
        self._start()
        self._wakeups.announce(streams)

    def heard(self, streams: Collection[str] | None) -> None:
        """Read the rows of streams that may have grown elsewhere."""
        channels = self._channels
        for stream in list(channels) if streams is None else streams:
            channel = channels.get(stream)
            if channel is not None:
                channel.wakes += 1
                self._dirty.add(stream)
        if self._dirty:
            if self._task is None:
                self._task = asyncio.create_task(self._run())
            if self._something is not None and not self._something.done():
                self._something.set_result(None)

    def fail(self, stream: str, error: type[CutOff]) -> None:
        """Cut off every reader of `stream`."""
        channel = self._channels.get(stream)
        if channel is not None:
            for reader in channel.readers:
                reader.fail(error)

    def deleted(self, streams: Collection[str]) -> None:
        for stream in streams:
            self.fail(stream, StreamDeleted)

    @property
    def confirmed_at(self) -> float:
        """Everything committed before this moment (time.monotonic) has been offered to every
        watch."""
        return time.monotonic() if self._wakeups.poll_s is None else self._confirmed_at

    async def rows(self, stream: str, after: int) -> list[Record]:
        """The next PAGE of a stream."""
        found: list[Record] = await self._database.read(
            READ(stream=stream, after=after, limit=PAGE)
        )
        return found

    async def head(self, stream: str) -> int:
        """`seq` of the last record of a stream, 0 where there is none."""
        row: tuple[int] | None = await self._database.read_one(HEAD(stream=stream))
        return row[0] if row else 0

    async def close(self) -> None:
        """Cut every reader off and stop listening."""
        self._closed = True
        for stream in list(self._channels):
            self.fail(stream, LogClosed)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._wakeups.close()

    async def _run(self) -> None:
        """Read rows for channels that others have written to, and for all now and then."""
        clock = time.monotonic
        polled = 0.0
        while True:
            await self._wait()
            began = clock()
            poll_s = self._wakeups.poll_s
            every = poll_s is not None and began - polled >= poll_s
            watched = poll_s is not None and began - self._confirmed_at >= LOST_POLL_S
            due = self._due(every=every, watched=watched)
            try:
                complete = await self._read(due)
            except Exception as error:
                if isinstance(error, StorageError):
                    log.warning("the event log cannot be read: %s", error)
                else:
                    log.exception("the event log cannot be read")
                self._dirty.update(due)
                await asyncio.sleep(RETRY_S)
                continue
            if every:
                polled = began
            if watched and complete:
                self._confirmed_at = began
            await asyncio.sleep(COALESCE_S)

    async def _wait(self) -> None:
        """Until a channel is dirty or it is time to look at the rows."""
        if self._dirty:
            return
        self._something = asyncio.get_running_loop().create_future()
        timeout = None if self._wakeups.poll_s is None else LOST_POLL_S
        await asyncio.wait((self._something,), timeout=timeout)

    def _due(self, *, every: bool, watched: bool) -> set[str]:
        due, self._dirty = self._dirty, set()
        if every:
            # A reader on its way to the live end has to look again as well.
            for channel in self._channels.values():
                channel.wakes += 1
            due.update(self._channels)
        elif watched:
            due.update(stream for stream, each in self._channels.items() if each.watched)
        return due

    async def _read(self, due: Collection[str]) -> bool:
        """Publish the rows behind the heads of channels; False when not all were read."""
        channels = [
            channel
            for stream in due
            if (channel := self._channels.get(stream)) is not None and channel.live
        ]
        if not channels:
            return True
        cursors = [(channel.stream, channel.head) for channel in channels]
        rows: list[Record] = await self._database.read(
            READ_MANY(cursors=msgspec.json.encode(cursors).decode(), limit=TAIL_PAGE)
        )
        at = 0
        while at < len(rows):
            stream, start = rows[at].stream, at
            while at < len(rows) and rows[at].stream == stream:
                at += 1
            channel = self._channels.get(stream)
            if channel is not None:
                channel.publish(rows[start:at], follows=True)
        if len(rows) < TAIL_PAGE:
            return True
        self._dirty.update(due)
        return False


class Follower:
    """An async iterator over the records of one stream, from a cursor on.

    Gives lists of records as they commit, and an empty list whenever `idle_s` have passed with
    nothing to give. Ends only by `aclose`, or by raising a CutOff: SlowReader, LogUnwritable,
    StreamDeleted, LogClosed; StorageUnavailable when rows cannot be read. One task iterates; it
    may be cancelled, and iterate again. A follower that nobody holds any more is gone; `aclose`
    frees it at once.
    """

    __slots__ = (
        "__weakref__",
        "_begin",
        "_bytes",
        "_channel",
        "_closed",
        "_error",
        "_given_at",
        "_idle_s",
        "_limit",
        "_on_cut",
        "_past_line",
        "_queue",
        "_size",
        "_sure",
        "_tail",
        "_ticked",
        "_timer",
        "_waiter",
        "cursor",
        "live",
        "position",
        "stream",
    )

    def __init__(
        self,
        tail: Tail,
        stream: str,
        begin: Callable[[], Awaitable[int]],
        *,
        past_line: int = 0,
        idle_s: float,
        limit: int = PENDING_RECORDS,
        on_cut: Callable[[], None] | None = None,
    ) -> None:
        self.stream = stream
        self.cursor = 0
        self.position = 0
        self.live = False
        self._tail = tail
        self._begin: Callable[[], Awaitable[int]] | None = begin
        self._past_line = past_line
        self._idle_s = idle_s
        self._limit = limit
        self._on_cut = on_cut
        self._channel: Channel | None = None
        self._closed = False
        self._sure = False
        self._queue: deque[list[Record]] = deque()
        self._size = 0
        self._bytes = 0
        self._error: type[CutOff] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ticked = False
        self._given_at = 0.0

    def __aiter__(self) -> "Follower":
        return self

    async def __aenter__(self) -> "Follower":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def __anext__(self) -> list[Record]:
        while not self._closed:
            if self._queue:
                return self._give(self._take())
            if self._error is not None:
                self._leave()
                raise self._error(self.stream, self.cursor)
            if self._ticked:
                return self._give([])
            if self.live:
                await self._wait()
            elif records := await self._catch_up():
                return self._give(records)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Free everything."""
        self._closed = True
        self._leave()

    def offer(self, records: list[Record]) -> None:
        """Queue what has committed behind `position`; a reader too slow for it is cut off."""
        self.position = records[-1].seq
        if self._past_line:
            records = self._unseen(records)
            if not records:
                return
        self._queue.append(records)
        self._size += len(records)
        for record in records:
            self._bytes += len(record.payload)
        if self._size > self._limit or self._bytes > PENDING_BYTES:
            self._queue.clear()
            self.fail(SlowReader)
            if self._on_cut is not None:
                self._on_cut()
            return
        self._wake()

    def fail(self, error: type[CutOff]) -> None:
        """End with such an error once what is queued has been given."""
        if self._error is None:
            self._error = error
        self.live = False
        self._wake()

    def _give(self, records: list[Record]) -> list[Record]:
        self._ticked = False
        self._given_at = asyncio.get_running_loop().time()
        if records:
            self.cursor = records[-1].seq
        return records

    def _take(self) -> list[Record]:
        """What is queued; a single batch is the very list that was published."""
        queue = self._queue
        records = queue.popleft()
        if queue:
            records = [*records, *chain.from_iterable(queue)]
            queue.clear()
        self._size = self._bytes = 0
        return records

    async def _catch_up(self) -> list[Record]:
        """The next page of rows; an empty or short one makes this follower live."""
        try:
            if self._begin is not None:
                self.position = self.cursor = await self._begin()
                self._begin = None
            channel = self._channel
            if channel is None:
                self.position = self.cursor
                channel = self._channel = self._tail.open(self.stream, self)
                self._start_timer()
            wakes = channel.wakes
            records = await self._tail.rows(self.stream, self.position)
            if records:
                self._sure = True
                self.position = records[-1].seq
            elif not self._sure:
                # The cursor may lie behind the end: nothing is missing before what comes next.
                self._sure = True
                head = await self._tail.head(self.stream)
                self.position = self.cursor = min(self.position, head)
                return []
        except BaseException:
            self._leave()
            raise
        if self._error is None and len(records) < PAGE:
            channel.caught_up(self, wakes)
        return self._unseen(records) if self._past_line and records else records

    def _unseen(self, records: list[Record]) -> list[Record]:
        """Records without the lines that the client has seen already."""
        seen = self._past_line
        if (records[0].line or 0) > seen:
            return records
        return [record for record in records if record.line is None or record.line > seen]

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:
            # A cancelled task's traceback may outlive it, and this with it.
            self._leave()
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _start_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._given_at = loop.time()
        self._timer = loop.call_later(self._idle_s, _tick, weakref.ref(self))

    def _tick(self) -> None:
        """Give an empty list if nothing was given for long; one timer serves all waits."""
        loop = asyncio.get_running_loop()
        due = self._given_at + self._idle_s
        if due <= loop.time():
            due = loop.time() + self._idle_s
            if self._waiter is not None:
                self._ticked = True
                self._wake()
        self._timer = loop.call_at(due, _tick, weakref.ref(self))

    def _leave(self) -> None:
        self.live = False
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._channel is not None:
            self._tail.leave(self._channel, self)
            self._channel = None
        self._wake()


def _tick(reference: "weakref.ref[Follower]") -> None:
    follower = reference()
    if follower is not None:
        follower._tick()


class Watch:
    """Calls `seen` with what commits on a stream, for as long as somebody holds it.

    `seen` runs on the event loop, in this process right after the commit; a failure of it is
    logged.
    """

    __slots__ = (
        "__weakref__",
        "_channel",
        "_joined_at",
        "_seen",
        "_tail",
        "live",
        "position",
        "stream",
    )

    def __init__(self, tail: Tail, stream: str, seen: Callable[[list[Record]], None]) -> None:
        self.stream = stream
        self.position = 0
        self.live = False
        self._tail = tail
        self._seen = seen
        self._channel: Channel | None = None
        self._joined_at = 0.0

    async def join(self) -> None:
        """Be live from the stream's present head on."""
        began = time.monotonic()
        self.position = await self._tail.head(self.stream)
        channel = self._channel = self._tail.open(self.stream, self)
        channel.watched = True
        while not self.live:
            wakes = channel.wakes
            records = await self._tail.rows(self.stream, self.position)
            if records:
                self.offer(records)
            if len(records) < PAGE:
                channel.caught_up(self, wakes)
        self._joined_at = began

    @property
    def last_ok(self) -> float:
        """The moment (time.monotonic) up to which everything committed has been seen. With one
        process that is now; with several it falls behind while the database does not answer."""
        return max(self._joined_at, self._tail.confirmed_at) if self.live else 0.0

    def offer(self, records: list[Record]) -> None:
        self.position = records[-1].seq
        try:
            self._seen(records)
        except Exception:
            log.exception("a watch of %s failed", self.stream)

    def fail(self, error: type[CutOff]) -> None:
        if error is LogClosed:
            self.live = False

    def close(self) -> None:
        self.live = False
        if self._channel is not None:
            self._tail.leave(self._channel, self)
            self._channel = None
