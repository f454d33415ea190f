"""The list of an account's sessions as it changes, made once for all who follow it.

One task per followed account reads the list when something happens to the account's runs and
sessions, when a run that is under way has said something, and every five seconds as long as there
is one. Everyone else waits, and is given the same bytes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from weakref import WeakValueDictionary

from domain.turn.telling import stream_of
from storage.conversations import SessionRow
from storage.database import StorageError
from storage.events import EventLog, LogClosed, Record, Watch

logger = logging.getLogger("quartet.sessions")

EVERY_S = 5.0
"""The list comes at least so often."""
LIVE = frozenset({"queued", "running"})
NEWS = frozenset({"run.begun", "text.whole", "titled"})
"""What a run under way tells that its list shows; its beginning, its end and its questions are told
to the account."""

Read = Callable[[str], Awaitable[Sequence[SessionRow]]]
Render = Callable[[Sequence[SessionRow]], bytes]


class Feed:
    """One account's list. `async with` follows it; `next` waits for the next time to send it."""

    def __init__(self, log: EventLog, user_id: str, read: Read, render: Render) -> None:
        self._log = log
        self._user_id = user_id
        self._read = read
        self._render = render
        self._readers = 0
        self._task: asyncio.Task[None] | None = None
        self._moment: asyncio.Future[None] | None = None
        self._shown: bytes | None = None
        self._live = False
        self._refreshing = asyncio.Lock()
        self._watches: dict[str, Watch] = {}
        self._due: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Feed":
        self._readers += 1
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._moment = loop.create_future()
            self._shown = None
            self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._readers -= 1
        if not self._readers and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            self._watch_only({})
            await asyncio.gather(task, return_exceptions=True)

    async def first(self) -> bytes:
        """The list as it is. Raises what ended the feed."""
        return await self.next() if self._shown is None else self._shown

    async def next(self) -> bytes:
        """The list once it has changed, or when it is time to send it again."""
        moment = self._moment
        if moment is None:
            raise LogClosed(self._user_id, 0)
        await asyncio.shield(moment)
        return self._shown or b""

    def wake(self) -> None:
        """Let everyone look at once."""
        moment = self._moment
        if moment is not None and not moment.done():
            self._moment = asyncio.get_running_loop().create_future()
            moment.set_result(None)

    async def _run(self) -> None:
        stream = f"user:{self._user_id}"
        try:
            head = await self._log.head(stream)
            await self._refresh()
            async with self._log.follow(stream, head, idle_s=EVERY_S) as follower:
                async for records in follower:
                    if records or self._live:
                        await self._refresh()
                    else:
                        self.wake()
        except Exception as error:
            if not isinstance(error, StorageError):
                logger.exception("the list of an account's sessions cannot be followed")
            moment, self._moment = self._moment, None
            if moment is not None and not moment.done():
                moment.set_exception(error)
                moment.exception()  # perhaps nobody waits

    async def _refresh(self) -> None:
        async with self._refreshing:
            rows = await self._read(self._user_id)
            live = {row.run_id: row for row in rows if row.state in LIVE and row.run_id}
            self._watch_only(live)
            if fresh := live.keys() - self._watches.keys():
                for run_id in fresh:
                    watch = await self._log.watch(stream_of(run_id), self._seen)
                    self._watches[run_id] = watch
                rows = await self._read(self._user_id)  # it may have said something meanwhile
            self._live = bool(live)
            self._shown = self._render(rows)
            self.wake()

    def _watch_only(self, live: Container[str]) -> None:
        """Leave the runs that are not under way any more."""
        for run_id in [each for each in self._watches if each not in live]:
            self._watches.pop(run_id).close()

    def _seen(self, records: list[Record]) -> None:
        if self._due is None and any(record.type in NEWS for record in records):
            self._due = asyncio.get_running_loop().create_task(self._refresh_soon())

    async def _refresh_soon(self) -> None:
        self._due = None
        if self._task is not None:
            with suppress(StorageError):  # it is read again in five seconds
                await self._refresh()


class Feeds:
    """The feeds of all accounts that are followed in this process."""

    def __init__(self, log: EventLog, read: Read) -> None:
        self._log = log
        self._read = read
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()

    def of(self, user_id: str, render: Render) -> Feed:
        """The account's feed, the same for all who hold it."""
        feed = self._feeds.get(user_id)
        if feed is None:
            feed = self._feeds[user_id] = Feed(self._log, user_id, self._read, render)
        return feed

    def wake(self, user_id: str) -> None:
        feed = self._feeds.get(user_id)
        if feed is not None:
            feed.wake()
