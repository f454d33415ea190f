"""A process that writes to the log, for tests: events `0 … total - 1` of one stream, in bursts.

    python writing_process.py DATABASE_URL DATA REDIS_URL STREAM TOTAL

Prints each acknowledged head on a line; ends when all is written.
"""

import asyncio
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from storage.events import Event, EventLog
from storage.opening import open_database
from storage.wakeups import OneProcess, Polling, RedisWakeups


async def main(url: str, data: str, redis: str, stream: str, total: int) -> None:
    database = await open_database(url, Path(data))
    wakeups = RedisWakeups(redis) if redis else Polling() if url else OneProcess()
    log = EventLog(database, wakeups)
    chance = random.Random(5)
    writer = log.writer(stream)
    for n in range(total):
        writer.push(Event("text", b"%d" % n, n % 2 == 0))
        if chance.random() < 0.1:
            await writer.flush()
            print(writer.head, flush=True)
    await writer.close()
    print(writer.head, flush=True)
    await log.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
