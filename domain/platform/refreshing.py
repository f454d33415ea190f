"""Asking what is outside, beside requests: soon after it was saved, and now and then afterwards.

Requests answer from what was kept. One that saves something waits a while for it to be asked, so
that whoever lists it next sees what it has; what takes longer goes on without the request.
"""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from storage.database import Database, StorageError

logger = logging.getLogger("quartet.platform")

EVERY_S = 600.0
AGAIN_S = 60.0
"""How old may be what was kept of one that answered, and of one that did not."""
LOOK_S = 30.0
WAIT_S = 10.0
AT_ONCE = 4


class Refreshing:
    """Asks one thing at a time and several at once. `refresh` asks what an id names and keeps what
    comes; `due` are the ids whose time has come."""

    def __init__(
        self,
        database: Database,
        refresh: Callable[[str], Awaitable[None]],
        due: Callable[[], Awaitable[Iterable[str]]],
    ) -> None:
        self._database = database
        self._refresh = refresh
        self._due = due
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def now(self, ids: Iterable[str]) -> None:
        """Ask these; returns when all have answered, or after 10 s."""
        waiting = []
        for each in ids:
            done = asyncio.Event()
            # Not in the request's context: its Idempotency-Key closes the request's own units.
            contextvars.Context().run(
                self._database.in_background, partial(self._one, each, done.set)
            )
            waiting.append(done.wait())
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(*waiting)
        except TimeoutError:
            pass

    async def now_and_then(self) -> None:
        """Ask those that are due; runs until cancelled."""
        while True:
            try:
                await asyncio.gather(*(self._one(each) for each in await self._due()))
            except StorageError as error:
                logger.warning("looking for what is due failed: %s", error)
            await asyncio.sleep(LOOK_S)

    async def _one(self, each: str, done: Callable[[], None] = lambda: None) -> None:
        try:
            async with self._turns:
                await self._refresh(each)
        except StorageError as error:
            logger.warning("refreshing %s failed: %s", each, error)
        except Exception:
            logger.exception("refreshing %s failed", each)
        finally:
            done()


def is_due(refreshed_at: float, error: str, now: float) -> bool:
    return now - refreshed_at >= (AGAIN_S if error else EVERY_S)
