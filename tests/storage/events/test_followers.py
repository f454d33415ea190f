"""Followers: each record exactly once and in order, whenever they join; slow ones are cut off."""

import asyncio
import random
import time
import weakref
from typing import Any

import pytest

from storage.database import Database, StorageUnavailable
from storage.events import (
    Event,
    EventLog,
    Follower,
    LogClosed,
    Record,
    SlowReader,
    StreamDeleted,
)
from storage.followers import Channel
from storage.wakeups import OneProcess, Polling


def event(text: str = "x", *, shown: bool = True) -> Event:
    return Event("text", f'"{text}"'.encode(), shown)


def append(database: Database, log: EventLog, stream: str, *events: Event) -> Any:
    return database.write(lambda: log.append(stream, events))


async def take(follower: Follower, last: int) -> list[Record]:
    """Everything up to record `last`."""
    records: list[Record] = []
    async for found in follower:
        records += found
        if records and records[-1].seq >= last:
            break
    return records


async def test_history_comes_first_and_then_each_record_once(
    database: Database, log: EventLog
) -> None:
    for n in range(3):
        await append(database, log, "run:1", event(f"old{n}"))
    async with log.follow("run:1", 1) as follower:
        assert [record.seq for record in await anext(follower)] == [2, 3]
        assert follower.cursor == 3
        waiting = asyncio.create_task(anext(follower))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await append(database, log, "run:1", event("new"), event("newer"))
        assert [record.seq for record in await waiting] == [4, 5]
        assert log.followed == 1
    assert log.followed == 0


async def test_followers_share_what_is_published(log: EventLog) -> None:
    writer = log.writer("run:1")
    followers = [log.follow("run:1") for _ in range(3)]
    waiting = [asyncio.create_task(anext(follower)) for follower in followers]
    await asyncio.sleep(0.05)
    writer.push(event("a"))
    first, *others = await asyncio.gather(*waiting)
    assert all(found is first for found in others)


async def test_a_long_history_comes_in_pages_while_it_grows(
    database: Database, log: EventLog
) -> None:
    for _ in range(12):
        await append(database, log, "run:1", *[event()] * 100)
    writer = await log.writer_behind("run:1")
    seqs: list[int] = []
    pushed = 1200
    async for records in log.follow("run:1"):
        seqs += [record.seq for record in records]
        if pushed < 1400:
            pushed += 1
            writer.push(event("meanwhile"))
        elif len(seqs) == pushed:
            break
    assert seqs == list(range(1, pushed + 1))


async def test_records_come_exactly_once_whenever_one_joins(
    database: Database, log: EventLog
) -> None:
    """200 followers join, leave and come back at random while three ways of writing go on."""
    chance = random.Random(7)
    total = 400

    async def write() -> None:
        writer = log.writer("run:1")
        for n in range(total - 1):
            writer.push(event(str(n), shown=n % 3 != 0))
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.004)
        await writer.close_with(_nothing, [event("end")])

    async def read(number: int) -> list[Record]:
        seen: list[Record] = []
        await asyncio.sleep(chance.random() * 0.5)
        while not seen or seen[-1].seq < total:
            follower = log.follow("run:1", seen[-1].seq if seen else 0)
            leaves_at = chance.choice([3, 50, total])
            async for records in follower:
                seen += records
                if len(seen) >= leaves_at or seen[-1].seq >= total:
                    break
                if chance.random() < 0.1:
                    await asyncio.sleep(chance.random() * 0.01)
            if chance.random() < 0.5:
                await follower.aclose()
        return seen

    _, *seen = await asyncio.gather(write(), *(read(number) for number in range(200)))
    logged = await log.read("run:1")
    assert [record.seq for record in logged] == list(range(1, total + 1))
    assert all(found == logged for found in seen)
    assert log.followed == 0


def _nothing() -> Any:
    return
    yield


async def test_following_by_line_gives_every_line_not_yet_received(
    database: Database, log: EventLog
) -> None:
    shown = [False, True, True, False, False, True, False, True]
    await append(database, log, "run:1", *(event(str(n), shown=s) for n, s in enumerate(shown)))
    logged = await log.read("run:1")
    lines = [record.line for record in logged if record.line]
    assert lines == [1, 2, 3, 4]
    for line in range(6):
        expected = [record for record in logged if record.line and record.line > line]
        found = await log.read_from_line("run:1", line)
        assert [record for record in found if record.line] == expected
        assert found == logged[len(logged) - len(found) :]
        if expected:
            async with log.follow("run:1", from_line=line) as follower:
                records = await take(follower, 8)
            assert [record for record in records if record.line] == expected


async def test_a_line_past_the_end_waits_for_the_next(database: Database, log: EventLog) -> None:
    await append(database, log, "run:1", event("1"), event("2"))
    follower = log.follow("run:1", from_line=4, idle_s=0.05)
    assert await anext(follower) == []
    for n in range(3, 7):
        await append(database, log, "run:1", event(str(n)))
    records = await take(follower, 6)
    assert [record.line for record in records if record.line] == [5, 6]


async def test_a_record_past_the_end_waits_for_the_next(database: Database, log: EventLog) -> None:
    await append(database, log, "run:1", event("1"), event("2"))
    far = log.follow("run:1", 1000, idle_s=0.02)
    near = log.follow("run:1", 2, idle_s=0.02)
    assert [await anext(far), await anext(near)] == [[], []]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(far), 0.001)
    await append(database, log, "run:1", event("3"))
    assert [r.seq for r in await anext(far)] == [r.seq for r in await anext(near)] == [3]


async def test_idle_followers_get_ticks_and_busy_ones_none(
    database: Database, log: EventLog
) -> None:
    follower = log.follow("run:1", idle_s=0.05)
    began = time.monotonic()
    assert [await anext(follower) for _ in range(3)] == [[], [], []]
    assert time.monotonic() - began >= 0.14
    await append(database, log, "run:1", event("a"))
    assert len(await anext(follower)) == 1


async def test_a_tick_missed_while_the_reader_was_busy_is_not_made_up_for(
    database: Database, log: EventLog
) -> None:
    follower = log.follow("run:1", idle_s=0.03)
    assert await anext(follower) == []
    await asyncio.sleep(0.2)
    await append(database, log, "run:1", event("a"))
    assert len(await anext(follower)) == 1


async def test_a_slow_reader_is_cut_off_and_the_others_are_not(
    database: Database, log: EventLog
) -> None:
    cut: list[str] = []
    slow = log.follow("run:1", pending=50, on_cut=lambda: cut.append("slow"))
    fast = log.follow("run:1", pending=50)
    writer = log.writer("run:1")
    writer.push(event("first"))
    assert len(await anext(slow)) == len(await anext(fast)) == 1
    got = 1
    for _ in range(10):
        for _ in range(10):
            writer.push(event())
        await writer.flush()
        got += len(await anext(fast))
    assert got == 101
    assert cut == ["slow"]
    with pytest.raises(SlowReader) as refused:
        await anext(slow)
    assert (refused.value.stream, refused.value.seq) == ("run:1", 1)
    again = log.follow("run:1", refused.value.seq)
    assert [record.seq for record in await take(again, 101)] == list(range(2, 102))
    with pytest.raises(SlowReader):
        await anext(slow)


async def test_a_reader_too_slow_for_large_payloads_is_cut_off(
    database: Database, log: EventLog
) -> None:
    slow = log.follow("run:1")
    await append(database, log, "run:1", event())
    await anext(slow)
    for _ in range(5):
        await append(database, log, "run:1", event("x" * 1024 * 1024))
    with pytest.raises(SlowReader):
        await anext(slow)


async def test_closing_frees_everything(database: Database, log: EventLog) -> None:
    await append(database, log, "run:1", event())
    alive = []
    for how in ("closed", "dropped", "cancelled", "failed"):
        follower = log.follow("run:1")
        await anext(follower)
        if how == "closed":
            await follower.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(follower)
        elif how == "cancelled":
            waiting = asyncio.create_task(anext(follower))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            del waiting
        elif how == "failed":
            log._tail.fail("run:1", SlowReader)
            with pytest.raises(SlowReader):
                await anext(follower)
        if how != "cancelled":  # the interpreter keeps that traceback, and its frames, a while
            alive.append(weakref.ref(follower))
        del follower
        assert log.followed == 0, how
    assert [reference() for reference in alive] == [None] * 3


async def test_one_may_stop_waiting_and_wait_again(database: Database, log: EventLog) -> None:
    await append(database, log, "run:1", *(event(str(n)) for n in range(4)))
    follower = log.follow("run:1", from_line=2)
    assert [record.line for record in await anext(follower)] == [3, 4]
    for n in range(4, 9):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(follower), 0.01)
        await append(database, log, "run:1", event(str(n)))
        assert [record.line for record in await anext(follower)] == [n + 1]


async def test_a_generator_that_is_closed_takes_its_follower_with_it(
    database: Database, log: EventLog
) -> None:
    async def lines() -> Any:
        async for records in log.follow("run:1"):
            yield records

    await append(database, log, "run:1", event())
    stream = lines()
    await anext(stream)
    assert log.followed == 1
    await stream.aclose()
    assert log.followed == 0


async def test_a_follower_that_never_began_holds_nothing(log: EventLog) -> None:
    follower = log.follow("run:1")
    assert log.followed == 0
    await follower.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(follower)


async def test_deleting_a_stream_ends_its_followers(database: Database, log: EventLog) -> None:
    await append(database, log, "run:1", event())
    gone, stays = log.follow("run:1"), log.follow("run:2", idle_s=0.02)
    await anext(gone)
    await anext(stays)
    await database.write(lambda: log.delete(["run:1"]))
    with pytest.raises(StreamDeleted):
        await anext(gone)
    assert await anext(stays) == []


async def test_closing_the_log_ends_followers_with_what_was_logged(database: Database) -> None:
    log = EventLog(database, OneProcess())
    follower = log.follow("run:1", idle_s=0.01)
    await anext(follower)
    writer = log.writer("run:1")
    writer.push(event())
    await log.close()
    assert len(await anext(follower)) == 1
    with pytest.raises(LogClosed) as cut:
        await anext(follower)
    assert cut.value.seq == 1
    with pytest.raises(LogClosed):
        await anext(log.follow("run:1"))


async def test_a_watch_sees_what_comes_and_not_what_was(database: Database, log: EventLog) -> None:
    await append(database, log, "sessions", event("old"))
    seen: list[bytes] = []
    watch = await log.watch("sessions", lambda records: seen.extend(r.payload for r in records))
    assert watch.last_ok > 0
    await append(database, log, "sessions", event("a"), event("b"))
    assert seen == [b'"a"', b'"b"']
    await append(database, log, "user:1", event("other"))
    watch.close()
    await append(database, log, "sessions", event("late"))
    assert seen == [b'"a"', b'"b"']
    assert watch.last_ok == 0
    assert log.followed == 0


async def test_a_watch_that_fails_goes_on(database: Database, log: EventLog) -> None:
    seen: list[int] = []

    def fails_once(records: list[Record]) -> None:
        seen.append(records[0].seq)
        if len(seen) == 1:
            raise LookupError

    watch = await log.watch("sessions", fails_once)
    await append(database, log, "sessions", event("a"))
    await append(database, log, "sessions", event("b"))
    assert seen == [1, 2]
    watch.close()


async def test_a_watch_is_always_up_to_date_in_one_process(database: Database) -> None:
    log = EventLog(database, OneProcess())
    watch = await log.watch("sessions", lambda records: None)
    assert time.monotonic() - watch.last_ok < 0.1
    await log.close()


class Held:
    """A database whose rows arrive late: they are read, and kept back until `gate` opens."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.gate = asyncio.Event()
        self.reading = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def read(self, bound: Any) -> Any:
        rows = await self._database.read(bound)
        self.reading.set()
        await self.gate.wait()
        return rows


@pytest.mark.parametrize("where", ["in this process", "in another"])
@pytest.mark.parametrize("others", [0, 1])
async def test_what_commits_while_one_joins_is_not_missed(
    database: Database, where: str, others: int
) -> None:
    held = Held(database)
    log, elsewhere = EventLog(held, OneProcess()), EventLog(database, OneProcess())
    held.gate.set()
    await append(database, log, "run:1", event("a"))
    live = [log.follow("run:1") for _ in range(others)]
    for each in live:
        assert [record.seq for record in await anext(each)] == [1]
    held.gate.clear()
    held.reading.clear()
    follower = log.follow("run:1")
    waiting = asyncio.create_task(anext(follower))
    await held.reading.wait()
    if where == "in this process":
        await append(database, log, "run:1", event("b"))
    else:
        await append(database, elsewhere, "run:1", event("b"))
        log._tail.heard(["run:1"])
    held.gate.set()
    async with asyncio.timeout(5):
        assert [record.seq for record in await waiting] == [1]
        for each in (follower, *live):
            assert [record.seq for record in await anext(each)] == [2]
    await append(database, log, "run:1", event("c"))
    async with asyncio.timeout(5):
        for each in (follower, *live):
            assert [record.seq for record in await anext(each)] == [3]
    await log.close()
    await elsewhere.close()


class Collecting:
    """A live reader of a channel that stands at `position`."""

    live = True

    def __init__(self, position: int) -> None:
        self.position = position
        self.seqs: list[int] = []

    def offer(self, records: list[Record]) -> None:
        self.seqs += [record.seq for record in records]
        self.position = records[-1].seq

    def fail(self, error: object) -> None:
        raise AssertionError


def test_readers_at_different_places_each_get_what_they_lack() -> None:
    channel = Channel("run:1")
    readers = [Collecting(position) for position in (3, 4, 6, 9)]
    for reader in readers:
        channel.add(reader, lambda _: None)
    channel.head = 3

    def batch(*seqs: int) -> list[Record]:
        return [Record("run:1", seq, "text", b"1", None, 0.0) for seq in seqs]

    assert channel.publish(batch(4, 5, 6, 7))
    assert [reader.seqs for reader in readers] == [[4, 5, 6, 7], [5, 6, 7], [7], []]
    assert channel.publish(batch(5, 6))
    assert not channel.publish(batch(9, 10))
    assert channel.head == 7
    assert channel.publish(batch(7, 8, 9, 10))
    assert [reader.seqs[-3:] for reader in readers] == [[8, 9, 10]] * 3 + [[10]]


class Deaf:
    """A database that stops answering."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.away = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def read(self, bound: Any) -> Any:
        if self.away:
            raise StorageUnavailable("away")
        return await self._database.read(bound)


async def test_a_watch_says_since_when_it_knows_nothing_new(database: Database) -> None:
    deaf = Deaf(database)
    log, other = EventLog(deaf, Polling()), EventLog(database, Polling())
    seen: list[Record] = []
    watch = await log.watch("sessions", seen.extend)
    deaf.away = True
    away_since = time.monotonic()
    await append(database, other, "sessions", event("revoked"))
    await asyncio.sleep(1.2)
    assert watch.last_ok < away_since
    assert seen == []
    deaf.away = False
    await asyncio.sleep(1.2)
    assert watch.last_ok > away_since + 1.2
    assert [record.payload for record in seen] == [b'"revoked"']
    await log.close()
    await other.close()
