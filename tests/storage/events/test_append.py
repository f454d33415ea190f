"""Appending: dense numbers, all or nothing, published after the commit and never before."""

import asyncio

import pytest
from sqlalchemy import insert

from storage.database import AfterCommit, Database, Statement, Unit
from storage.events import Event, EventLog, Record
from storage.schema import leases

ADD = Statement(insert(leases))


def event(number: int, *, shown: bool = False) -> Event:
    return Event("test", b'{"n":%d}' % number, shown, at=float(number))


async def all_of(log: EventLog, stream: str) -> list[Record]:
    records: list[Record] = []
    while page := await log.read(stream, len(records), 100):
        records += page
    return records


async def test_records_come_back_as_they_were_given(database: Database, log: EventLog) -> None:
    payload = '{"text":"né 你好 \U0001f600","quote":"\\"\\\\","nul":"\\u0000"}'.encode()
    events = [Event("a", payload, True, 1.5), Event("b", b"[]", at=2.25), Event("c", b"1", True)]
    assert await database.write(lambda: log.append("run:1", events)) == 3
    assert await database.write(lambda: log.append("run:1", [Event("d", b"2", True, 3.0)])) == 4
    records = await log.read("run:1")
    assert records == [
        Record("run:1", 1, "a", payload, 1, 1.5),
        Record("run:1", 2, "b", b"[]", None, 2.25),
        Record("run:1", 3, "c", b"1", 2, events[2].at),
        Record("run:1", 4, "d", b"2", 3, 3.0),
    ]
    assert type(records[0].payload) is bytes
    assert await log.head("run:1") == 4
    assert await log.last_line("run:1") == 3
    assert await log.read("run:1", 3) == records[3:]
    assert await log.read("run:1", 0, 2) == records[:2]
    assert await log.read("run:1", 4) == []


async def test_a_stream_that_is_not_there_is_empty(log: EventLog) -> None:
    assert await log.read("run:none") == []
    assert await log.head("run:none") == 0
    assert await log.last_line("run:none") == 0
    assert await log.seq_of_line("run:none", 5) == 0


async def test_nothing_cannot_be_appended(database: Database, log: EventLog) -> None:
    with pytest.raises(ValueError, match="nothing"):
        await database.write(lambda: log.append("run:1", []))


async def test_rows_and_events_commit_together_or_not_at_all(
    database: Database, log: EventLog
) -> None:
    def unit(fails: bool) -> Unit[int]:
        yield ADD(name="lease", holder="me", until=1.0)
        head = yield from log.append("agent:1", [event(1)])
        if fails:
            raise LookupError
        return head

    with pytest.raises(LookupError):
        await database.write(lambda: unit(True))
    assert await log.head("agent:1") == 0
    assert await log.read("agent:1") == []
    assert await database.write(lambda: unit(False)) == 1
    with pytest.raises(Exception, match="leases"):
        await database.write(lambda: unit(False))
    assert await log.head("agent:1") == 1


async def test_numbers_are_dense_under_concurrent_appenders(
    database: Database, log: EventLog
) -> None:
    def unit(number: int) -> Unit[int]:
        head = yield from log.append("user:1", [event(number), event(number, shown=True)])
        if number % 5 == 0:
            raise LookupError
        return head

    async def append(worker: int) -> list[int]:
        heads = []
        for turn in range(6):
            number = worker * 6 + turn
            try:
                heads.append(await database.write(lambda number=number: unit(number)))
            except LookupError:
                assert number % 5 == 0
        return heads

    heads = sorted(
        head for found in await asyncio.gather(*map(append, range(50))) for head in found
    )
    assert heads == list(range(2, 2 * 240 + 1, 2))
    records = await all_of(log, "user:1")
    assert [record.seq for record in records] == list(range(1, 481))
    assert [record.line for record in records[1::2]] == list(range(1, 241))
    pairs = zip(records[::2], records[1::2], strict=True)
    assert all(first.payload == second.payload for first, second in pairs)


async def test_nothing_is_published_before_the_commit_or_without_it(
    database: Database, log: EventLog
) -> None:
    seen: list[Record] = []
    watch = await log.watch("user:1", seen.extend)
    order = []

    def unit(fails: bool) -> Unit[None]:
        yield from log.append("user:1", [event(1)])
        order.append(("in the unit", list(seen)))
        if fails:
            raise LookupError
        yield AfterCommit(lambda: order.append(("after", [record.seq for record in seen])))

    with pytest.raises(LookupError):
        await database.write(lambda: unit(True))
    assert seen == []
    await database.write(lambda: unit(False))
    assert order == [("in the unit", []), ("in the unit", []), ("after", [1])]
    assert [record.seq for record in seen] == [1]
    watch.close()


async def test_deleted_streams_are_gone_and_others_stay(database: Database, log: EventLog) -> None:
    for stream in ("run:1", "run:2", "run:3"):
        await database.write(lambda stream=stream: log.append(stream, [event(1), event(2)]))
    await database.write(lambda: log.delete(["run:1", "run:3", "run:none"]))
    await database.write(lambda: log.delete([]))
    assert [await log.head(f"run:{n}") for n in (1, 2, 3)] == [0, 2, 0]
    assert await log.read("run:1") == []
    assert len(await log.read("run:2")) == 2
    assert await database.write(lambda: log.append("run:1", [event(9)])) == 1


async def test_a_sweep_takes_old_records_and_numbers_go_on(
    database: Database, log: EventLog
) -> None:
    for stream in (f"run:{n:03}" for n in range(130)):
        await database.write(
            lambda stream=stream: log.append(stream, [event(n, shown=True) for n in range(1, 7)])
        )
    assert await log.sweep(4.0) == 3 * 130
    assert [record.seq for record in await log.read("run:129")] == [4, 5, 6]
    assert await database.write(lambda: log.append("run:129", [event(7, shown=True)])) == 7
    assert [record.line for record in await log.read("run:129")] == [4, 5, 6, 7]
    assert [await log.seq_of_line("run:129", line) for line in (0, 1, 2, 4, 7, 9)] == [
        0,
        3,
        3,
        4,
        7,
        7,
    ]
    assert await log.sweep(4.0) == 0
