"""Several processes over one database: numbers, wake-ups, Redis lost, writers killed."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from storage.database import Database
from storage.events import Event, EventLog, Follower, Record
from storage.opening import open_database
from storage.wakeups import LOST_POLL_S, SAFE_POLL_S, Polling, RedisWakeups
from tests.storage.events.redis_server import RedisServer

WRITER = Path(__file__).with_name("writing_process.py")


def event(text: str = "x") -> Event:
    return Event("text", f'"{text}"'.encode(), True)


def append(database: Database, log: EventLog, stream: str, *events: Event) -> Any:
    return database.write(lambda: log.append(stream, events))


async def take(follower: Follower, last: int) -> list[Record]:
    """Everything up to record `last`."""
    records: list[Record] = []
    async with follower:
        async for found in follower:
            records += found
            if records and records[-1].seq >= last:
                break
    return records


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.01)


@pytest.fixture
async def other(database: Database, database_url: str, data: Path) -> AsyncIterator[Database]:
    """What another process would have: connections of its own to the same database."""
    opened = await open_database(database_url, data)
    yield opened
    await opened.close()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    server.kill()


async def write(process: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(WRITER), *process, stdout=asyncio.subprocess.PIPE
    )


async def test_two_processes_append_to_one_stream_densely(
    database: Database, other: Database
) -> None:
    logs = [EventLog(database, Polling()), EventLog(other, Polling())]
    followers = [asyncio.create_task(take(log.follow("user:1"), 200)) for log in logs]

    async def appends(base: Database, log: EventLog, name: str) -> None:
        for n in range(20):
            await append(base, log, "user:1", event(f"{name}{n}"))

    await asyncio.gather(
        *(appends(database, logs[0], f"a{n}-") for n in range(5)),
        *(appends(other, logs[1], f"b{n}-") for n in range(5)),
    )
    seen = [await follower for follower in followers]
    assert seen[0] == seen[1] == await logs[0].read("user:1")
    assert [record.seq for record in seen[0]] == list(range(1, 201))
    assert [record.line for record in seen[0]] == list(range(1, 201))
    assert len({record.payload for record in seen[0]}) == 200
    for log in logs:
        await log.close()


async def test_a_run_of_another_process_is_followed_over_redis(
    database: Database, other: Database, redis: RedisServer
) -> None:
    wakeups = RedisWakeups(redis.url)
    writing, reading = EventLog(database, RedisWakeups(redis.url)), EventLog(other, wakeups)
    followers = [asyncio.create_task(take(reading.follow("run:1"), 60)) for _ in range(5)]
    await until(lambda: wakeups.poll_s == SAFE_POLL_S)
    await asyncio.sleep(0.1)
    writer = writing.writer("run:1")
    began = time.monotonic()
    for n in range(60):
        writer.push(event(str(n)))
        await asyncio.sleep(0.002)
    await writer.close()
    seen = await asyncio.gather(*followers)
    assert time.monotonic() - began < SAFE_POLL_S
    logged = await reading.read("run:1")
    assert [record.seq for record in logged] == list(range(1, 61))
    assert all(found == logged for found in seen)
    await writing.close()
    await reading.close()


async def test_losing_redis_in_mid_stream_loses_no_event(
    database: Database, other: Database, redis: RedisServer
) -> None:
    wakeups = RedisWakeups(redis.url)
    writing, reading = EventLog(database, RedisWakeups(redis.url)), EventLog(other, wakeups)
    total = 150
    following = asyncio.create_task(take(reading.follow("run:1"), total))
    seen: list[Record] = []
    watch = await reading.watch("sessions", seen.extend)
    await until(lambda: wakeups.poll_s == SAFE_POLL_S)
    writer = writing.writer("run:1")
    for n in range(total):
        writer.push(event(str(n)))
        if n == 50:
            redis.kill()
        if n == 70:
            await until(lambda: wakeups.poll_s == LOST_POLL_S)
            await append(database, writing, "sessions", event("revoked"))
            began = time.monotonic()
            await until(lambda: bool(seen))
            assert watch.last_ok > began - 1.0
        if n == 100:
            await redis.start()
            await until(lambda: wakeups.poll_s == SAFE_POLL_S)
        await asyncio.sleep(0.001)
    await writer.close()
    async with asyncio.timeout(SAFE_POLL_S + 2):
        records = await following
    assert records == await reading.read("run:1")
    assert [record.seq for record in records] == list(range(1, total + 1))
    await append(database, writing, "sessions", event("again"))
    await until(lambda: len(seen) == 2)
    await writing.close()
    await reading.close()


async def test_redis_that_was_never_there_only_costs_time(
    database: Database, other: Database, tmp_path: Path
) -> None:
    nowhere = RedisServer(tmp_path).url
    writing, reading = (
        EventLog(database, RedisWakeups(nowhere)),
        EventLog(other, RedisWakeups(nowhere)),
    )
    following = asyncio.create_task(take(reading.follow("run:1"), 3))
    await asyncio.sleep(0.05)
    await append(database, writing, "run:1", event("a"), event("b"), event("c"))
    async with asyncio.timeout(5):
        assert [record.seq for record in await following] == [1, 2, 3]
    await writing.close()
    await reading.close()


async def test_a_real_second_process_is_followed(
    database: Database, database_url: str, data: Path, redis: RedisServer
) -> None:
    log = EventLog(database, RedisWakeups(redis.url))
    following = asyncio.create_task(take(log.follow("run:1"), 2000))
    process = await write([database_url, str(data), redis.url, "run:1", "2000"])
    async with asyncio.timeout(60):
        records = await following
    assert [record.payload for record in records] == [b"%d" % n for n in range(2000)]
    assert await process.wait() == 0
    assert records == [
        record for after in range(0, 2000, 500) for record in await log.read("run:1", after)
    ]
    await log.close()


async def test_a_killed_writer_leaves_a_dense_beginning(
    database: Database, database_url: str, data: Path
) -> None:
    chance = random.Random(11)
    log = EventLog(database, Polling())
    for attempt in range(2):
        stream = f"run:{attempt}"
        process = await write([database_url, str(data), "", stream, "1000000"])
        assert process.stdout is not None
        acknowledged = 0
        for _ in range(chance.randrange(1, 60)):
            acknowledged = int(await process.stdout.readline())
        process.kill()
        acknowledged = max([acknowledged, *map(int, (await process.stdout.read()).split())])
        await process.wait()
        head = await log.head(stream)
        assert head >= acknowledged > 0
        records: list[Record] = []
        while page := await log.read(stream, len(records)):
            records += page
        assert [record.seq for record in records] == list(range(1, head + 1))
        assert [record.payload for record in records] == [b"%d" % n for n in range(head)]
        assert [r.line for r in records if r.line] == list(range(1, (head + 1) // 2 + 1))
        assert await log.last_line(stream) == (head + 1) // 2
        settling = await log.writer_behind(stream)
        settling.push(event("interrupted_by_restart"))
        await settling.close()
        assert await log.head(stream) == head + 1
    await log.close()
