"""Writers of running turns: grouped, fenced, closed together with the rows they tell of."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import bindparam, insert, select

from storage.database import (
    Database,
    Duplicate,
    Statement,
    StorageFull,
    StorageUnavailable,
    T,
    Unit,
)
from storage.events import (
    Event,
    EventLog,
    LogBehind,
    LogUnwritable,
    StreamTaken,
)
from storage.schema import leases
from storage.wakeups import OneProcess
from storage.writers import FULL, HIGH

ADD = Statement(insert(leases))
FIND = Statement(select(leases.c.holder).where(leases.c.name == bindparam("name")))


def event(text: str, *, shown: bool = True) -> Event:
    return Event("text", f'"{text}"'.encode(), shown)


def lease(name: str) -> Unit[str]:
    yield ADD(name=name, holder="me", until=1.0)
    return name


class Breaking:
    """A database whose writes fail while `error` is set."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.error: Exception | None = None
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def write(self, unit: Callable[[], Unit[T]]) -> T:
        self.writes += 1
        if self.error is not None:
            raise self.error
        return await self._database.write(unit)


@pytest.fixture
def breaking(database: Database) -> Breaking:
    return Breaking(database)


async def texts(log: EventLog, stream: str) -> str:
    return b" ".join(record.payload for record in await log.read(stream)).decode().replace('"', "")


async def test_what_is_pushed_is_logged_in_order(log: EventLog) -> None:
    writer = log.writer("run:1")
    await writer.flush()
    for n in range(5):
        writer.push(event(f"a{n}", shown=n % 2 == 0))
    assert await log.head("run:1") == 0
    await writer.flush()
    assert (writer.head, writer.line) == (5, 3)
    writer.push(event("b"))
    await writer.close()
    await writer.close()
    assert await texts(log, "run:1") == "a0 a1 a2 a3 a4 b"
    assert [record.line for record in await log.read("run:1")] == [1, None, 2, None, 3, 4]
    with pytest.raises(StreamTaken):
        writer.push(event("c"))


async def test_many_writers_share_few_commits(breaking: Breaking) -> None:
    log = EventLog(breaking, OneProcess())
    writers = [log.writer(f"run:{n}") for n in range(100)]
    for n in range(20):
        for writer in writers:
            writer.push(event(str(n)))
        await asyncio.sleep(0.001)
    await asyncio.gather(*(writer.flush() for writer in writers))
    assert breaking.writes <= 21
    for writer in writers:
        assert await texts(log, writer.stream) == " ".join(map(str, range(20)))
    await log.close()


async def test_a_writer_goes_on_behind_what_is_there(database: Database, log: EventLog) -> None:
    await database.write(lambda: log.append("run:1", [event("a"), event("b", shown=False)]))
    writer = await log.writer_behind("run:1")
    assert (writer.head, writer.line) == (2, 1)
    writer.push(event("c"))
    await writer.close()
    assert [(r.seq, r.line) for r in await log.read("run:1")] == [(1, 1), (2, None), (3, 2)]


async def test_final_events_and_rows_commit_together(database: Database, log: EventLog) -> None:
    writer = log.writer("run:1")
    writer.push(event("a"))
    await writer.flush()
    writer.push(event("b"))
    assert await writer.close_with(lambda: lease("x"), [event("end")]) == "x"
    assert await texts(log, "run:1") == "a b end"
    assert (writer.head, writer.line) == (3, 3)
    assert await database.read(FIND(name="x")) == [("me",)]
    await writer.flush()


async def test_final_events_come_behind_a_commit_under_way(
    database: Database, log: EventLog
) -> None:
    writer = log.writer("run:1")
    for n in range(3):
        writer.push(event(str(n)))
    await asyncio.sleep(0)
    writer.push(event("late"))
    await writer.close_with(lambda: lease("x"), [event("end")])
    assert await texts(log, "run:1") == "0 1 2 late end"


async def test_a_failing_end_keeps_nothing_and_may_be_tried_again(
    database: Database, log: EventLog
) -> None:
    await database.write(lambda: lease("x"))
    writer = log.writer("run:1")
    writer.push(event("a"))
    await writer.flush()
    writer.push(event("b"))
    with pytest.raises(Duplicate):
        await writer.close_with(lambda: lease("x"), [event("end")])
    assert await texts(log, "run:1") == "a"
    with pytest.raises(StreamTaken):
        writer.push(event("c"))
    await writer.close_with(lambda: lease("y"), [event("failed")])
    assert await texts(log, "run:1") == "a b failed"


async def test_a_stalled_writer_cannot_write_over_its_replacement(
    database: Database, log: EventLog
) -> None:
    stalled = log.writer("run:1")
    stalled.push(event("a"))
    await stalled.flush()
    await database.write(lambda: log.append("run:1", [event("interrupted")]))
    stalled.push(event("b"))
    with pytest.raises(StreamTaken):
        await stalled.flush()
    with pytest.raises(StreamTaken):
        stalled.push(event("c"))
    with pytest.raises(StreamTaken):
        await stalled.close_with(lambda: lease("x"), [event("end")])
    assert await database.read(FIND(name="x")) == []
    assert await texts(log, "run:1") == "a interrupted"


async def test_a_fenced_writer_cannot_end_its_run(database: Database, log: EventLog) -> None:
    stalled = log.writer("run:1")
    stalled.push(event("a"))
    await stalled.flush()
    replacement = await log.writer_behind("run:1")
    replacement.push(event("b"))
    await replacement.flush()
    with pytest.raises(StreamTaken):
        await stalled.close_with(lambda: lease("x"), [event("end")])
    assert await database.read(FIND(name="x")) == []
    assert await texts(log, "run:1") == "a b"


async def test_a_fenced_writer_does_not_hurt_the_others_of_its_group(
    database: Database, log: EventLog
) -> None:
    await database.write(lambda: log.append("run:2", [event("theirs")]))
    writers = [log.writer(f"run:{n}") for n in (1, 2, 3)]
    for writer in writers:
        writer.push(event("mine"))
    results = await asyncio.gather(*(writer.flush() for writer in writers), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), StreamTaken, type(None)]
    assert [await texts(log, f"run:{n}") for n in (1, 2, 3)] == ["mine", "theirs", "mine"]


async def test_a_deleted_stream_does_not_rise_again(database: Database, log: EventLog) -> None:
    writer = log.writer("run:1")
    writer.push(event("a"))
    await writer.flush()
    await database.write(lambda: log.delete(["run:1"]))
    writer.push(event("b"))
    with pytest.raises(StreamTaken):
        await writer.flush()
    assert await log.head("run:1") == 0
    assert await log.read("run:1") == []


async def test_an_event_that_cannot_be_kept_fails_its_own_writer_only(log: EventLog) -> None:
    writers = [log.writer(f"run:{n}") for n in range(4)]
    follower = log.follow("run:2")
    waiting = asyncio.create_task(anext(follower))
    await asyncio.sleep(0.05)
    for n, writer in enumerate(writers):
        writer.push(Event("text", b'"\xff"' if n == 2 else b'"ok"'))
    results = await asyncio.gather(*(writer.flush() for writer in writers), return_exceptions=True)
    assert [type(result) for result in results] == [
        type(None),
        type(None),
        UnicodeDecodeError,
        type(None),
    ]
    assert [await texts(log, f"run:{n}") for n in range(4)] == ["ok", "ok", "", "ok"]
    with pytest.raises(LogUnwritable):
        await waiting


async def test_a_full_disk_ends_followers_and_shows_nothing_unlogged(breaking: Breaking) -> None:
    log = EventLog(breaking, OneProcess())
    writer = log.writer("run:1")
    follower = log.follow("run:1")
    writer.push(event("a"))
    assert [record.payload for record in await anext(follower)] == [b'"a"']
    breaking.error = StorageFull("disk full")
    writer.push(event("b"))
    with pytest.raises(LogUnwritable) as cut:
        await anext(follower)
    assert cut.value.seq == 1
    with pytest.raises(StorageFull):
        await writer.flush()
    with pytest.raises(StorageFull):
        writer.push(event("c"))
    with pytest.raises(StorageFull):
        await writer.close_with(lambda: lease("x"))
    breaking.error = None
    assert await texts(log, "run:1") == "a"
    again = await log.writer_behind("run:1")
    again.push(event("after"))
    await again.close()
    assert await texts(log, "run:1") == "a after"
    await log.close()


async def test_an_end_that_meets_a_full_disk_can_be_tried_again(breaking: Breaking) -> None:
    log = EventLog(breaking, OneProcess())
    writer = log.writer("run:1")
    writer.push(event("a"))
    breaking.error = StorageFull("disk full")
    with pytest.raises(StorageFull):
        await writer.close_with(lambda: lease("x"), [event("end")])
    breaking.error = None
    await writer.close_with(lambda: lease("x"), [event("end")])
    assert await texts(log, "run:1") == "a end"
    await log.close()


async def test_a_producer_waits_while_the_log_is_far_behind(log: EventLog) -> None:
    writer = log.writer("run:1")
    for n in range(HIGH):
        writer.push(event(str(n)))
    await writer.drain()
    assert writer.head == 0
    writer.push(event("one too many"))
    await writer.drain()
    assert writer.head == HIGH + 1


async def test_a_producer_that_never_waits_is_refused(log: EventLog) -> None:
    writer = log.writer("run:1")
    same = event("x")
    for _ in range(FULL):
        writer.push(same)
    with pytest.raises(LogBehind):
        writer.push(same)
    await writer.flush()
    assert await log.head("run:1") == FULL


async def test_closing_the_log_commits_what_is_held(database: Database) -> None:
    log = EventLog(database, OneProcess())
    writers = [log.writer(f"run:{n}") for n in range(10)]
    for writer in writers:
        writer.push(event("last words"))
    await log.close()
    assert [await log.head(writer.stream) for writer in writers] == [1] * 10
    with pytest.raises(StorageUnavailable):
        writers[0].push(event("too late"))


async def test_a_caller_that_leaves_a_flush_loses_nothing(log: EventLog) -> None:
    writer = log.writer("run:1")
    writer.push(event("a"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.flush(), 0)
    writer.push(event("b"))
    await writer.flush()
    assert await texts(log, "run:1") == "a b"
