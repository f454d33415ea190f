"""Coroutines that run beside requests until the process closes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("quartet.storage")


class Background:
    """Keeps coroutines running until `close`; a failure is logged, never lost."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work()` as a task of the running loop."""
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel what still runs and wait for it to end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _logged(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception:
        log.exception("background work failed: %s", getattr(work, "__qualname__", work))
