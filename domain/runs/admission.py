"""How many runs are carried out at once, per account and per provider, in one process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """A limit per name. Whoever comes beyond it waits, first come first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def enter(self, name: str) -> AsyncIterator[None]:
        semaphore, users = self._inside.get(name) or (asyncio.Semaphore(self._limit), 0)
        self._inside[name] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._inside[name]
            if users == 1:
                del self._inside[name]
            else:
                self._inside[name] = (semaphore, users - 1)
