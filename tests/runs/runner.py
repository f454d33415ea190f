"""A process that hosts runs without HTTP, for tests that kill it.

    python -m tests.runs.runner DATA PROCESS_ID [DATABASE_URL]

Says "ready", then obeys lines of JSON: {"say": text, "session": id, …} begins a run for ada and
prints its id. With STAND_AFTER=n in the environment every run stands still once n of its steps are
recorded, and "standing" is printed.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from gateways.workflows import Workflows
from storage.opening import open_database
from tests.runs.world import world

STAND_AFTER = int(os.environ.get("STAND_AFTER", "0"))
_step = Workflows.step
_steps: dict[int, int] = {}


async def standing(self: Workflows, name: str, function: Callable[[], Awaitable[str]]) -> str:
    word = await _step(self, name, function)
    task = id(asyncio.current_task())
    _steps[task] = _steps.get(task, 0) + 1
    if _steps[task] == STAND_AFTER:
        print("standing", flush=True)
        await asyncio.get_running_loop().create_future()
    return word


async def main(data: Path, process_id: str, url: str) -> None:
    if STAND_AFTER:
        Workflows.step = standing  # type: ignore[method-assign]
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
