"""A process that hosts runs without HTTP, for tests that kill it.

    python -m tests.runs.runner DATA PROCESS_ID [DATABASE_URL]

Says "ready", then obeys lines of JSON: {"say": text, "session": id, …} begins a run for ada and
prints its id. With STAND_AFTER=n in the environment every run stands still once n strides of its
agent are committed, with STAND_BELOW=n every sub-agent, and "standing" is printed.
"""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

import msgspec

from domain.turn.loop import Loop, Next
from storage.opening import open_database
from tests.runs.world import world

STAND_AFTER = int(os.environ.get("STAND_AFTER", "0"))
STAND_BELOW = int(os.environ.get("STAND_BELOW", "0"))
_advance = Loop.advance
_strides: Counter[Loop] = Counter()


async def standing(self: Loop) -> Next:
    found = await _advance(self)
    _strides[self] += 1
    if _strides[self] == (STAND_AFTER if self._by is None else STAND_BELOW):
        print("standing", flush=True)
        await asyncio.get_running_loop().create_future()
    return found


async def main(data: Path, process_id: str, url: str) -> None:
    if STAND_AFTER or STAND_BELOW:
        Loop.advance = standing  # type: ignore[method-assign]
    database = await open_database(url, data)
    async with world(database, data, url, process_id=process_id) as here:
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = msgspec.json.decode(line)
            run = await here.start(order.pop("say"), order.pop("session"), **order)
            print(run.id, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], *sys.argv[3:] or [""]))
