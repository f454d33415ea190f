"""What the event log owes to runs: one writer's failure is its own."""

import asyncio

from storage.database import Database
from storage.events import Event, EventLog, StreamTaken
from storage.wakeups import OneProcess


async def test_a_writer_that_is_fenced_off_takes_nobody_along(database: Database) -> None:
    log = EventLog(database, OneProcess())
    fenced, well = log.writer("run:fenced"), log.writer("run:well")
    event = Event("x", b"1", shown=True)
    fenced.push(event)
    await fenced.flush()
    await database.write(lambda: log.append("run:fenced", [event]))
    for _ in range(200):
        well.push(event)
        try:
            fenced.push(event)
        except StreamTaken:
            break
        await asyncio.sleep(0)
    await well.flush()
    assert await log.head("run:fenced") == 2
    await log.close()
