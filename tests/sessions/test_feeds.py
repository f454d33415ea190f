"""One list for all who follow an account's sessions."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from domain import session_feeds
from domain.session_feeds import Feeds
from storage.conversations import SessionRow
from storage.database import Database
from storage.events import Event, EventLog, LogClosed
from storage.wakeups import OneProcess

ROW = SessionRow("s", "T", "", None, 0, None)


class Lists:
    """Lists of sessions, and how often they were read."""

    def __init__(self) -> None:
        self.reads = 0
        self.rows: list[SessionRow] = []

    async def read(self, user_id: str) -> Sequence[SessionRow]:
        self.reads += 1
        return list(self.rows)


def render(rows: Sequence[SessionRow]) -> bytes:
    return b",".join(row.title.encode() for row in rows)


@pytest.fixture
async def log(database: Database) -> AsyncIterator[EventLog]:
    opened = EventLog(database, OneProcess())
    yield opened
    await opened.close()


async def happened(database: Database, log: EventLog) -> None:
    await database.write(lambda: log.append("user:ann", [Event("session.created", b"{}")]))


async def test_a_change_is_read_once_for_everyone(database: Database, log: EventLog) -> None:
    lists = Lists()
    feeds = Feeds(log, lists.read)
    feed = feeds.of("ann", render)
    assert feeds.of("ann", render) is feed
    async with feed:
        assert await feed.first() == b""
        async with feed:
            assert await feed.first() == b""
            assert lists.reads == 1
            readers = [asyncio.create_task(feed.next()) for _ in range(50)]
            await asyncio.sleep(0)
            lists.rows = [ROW]
            await happened(database, log)
            assert await asyncio.gather(*readers) == [b"T"] * 50
            assert lists.reads == 2
        woken = asyncio.create_task(feed.next())
        await asyncio.sleep(0)
        feeds.wake("bob")
        feeds.wake("ann")
        assert await woken == b"T"
        assert lists.reads == 2
    lists.rows = []
    async with feed:
        assert await feed.first() == b""


async def test_what_a_run_says_shows_at_once(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_feeds, "EVERY_S", 3600.0)
    lists = Lists()
    lists.rows = [SessionRow("s", "T", "", None, 0, "running", "r")]
    feed = Feeds(log, lists.read).of("ann", render)
    async with feed:
        assert await feed.first() == b"T"
        reads = lists.reads
        writer = log.writer("run:r")
        writer.push(Event("text", b"{}"))
        await writer.flush()
        woken = asyncio.create_task(feed.next())
        await asyncio.sleep(0)
        assert lists.reads == reads
        lists.rows = [SessionRow("s", "U", "said", None, 1, "running", "r")]
        writer.push(Event("text.whole", b"{}"))
        await writer.close()
        async with asyncio.timeout(20):
            assert await woken == b"U"
        lists.rows = [SessionRow("s", "V", "said", None, 1, "completed", "r")]
        ended = asyncio.create_task(feed.next())
        await asyncio.sleep(0)
        await happened(database, log)
        assert await ended == b"V"
        assert log.followed == 1
    assert log.followed == 0


async def test_a_closed_log_ends_it(database: Database) -> None:
    log = EventLog(database, OneProcess())
    feed = Feeds(log, Lists().read).of("ann", render)
    async with feed:
        await feed.first()
        waiting = asyncio.create_task(feed.next())
        await asyncio.sleep(0)
        await log.close()
        with pytest.raises(LogClosed):
            await waiting
        with pytest.raises(LogClosed):
            await feed.next()
