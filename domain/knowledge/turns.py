"""Turns at work that several accounts wait for."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """`at_once` turns at a time, given in rotation to the accounts that wait: one with a thousand
    things to do keeps nobody waiting for all of them. Those of one account go in their order."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By account, the next one first. Nobody waits while a turn is free."""

    @asynccontextmanager
    async def of(self, owner: str) -> "AsyncIterator[Turn]":
        """A turn of an account's, from when it is given until the block is left."""
        turn = Turn(self, owner)
        await turn.take()
        try:
            yield turn
        finally:
            turn.end()

    async def take(self, owner: str, *, first: bool) -> None:
        """Wait for a turn; `first` goes before the account's others."""
        if self._free:
            self._free -= 1
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(owner, deque())
        if first:
            queue.appendleft(given)
        else:
            queue.append(given)
        try:
            await given
        except asyncio.CancelledError:
            if not given.cancelled():  # it was given at the same moment
                self.give(owner)
            raise

    def give(self, had_by: str) -> None:
        """Hand an account's turn to the one that is next, or keep it free. The account goes behind
        the others that wait."""
        if had_by in self._waiting:
            self._waiting[had_by] = self._waiting.pop(had_by)
        while self._waiting:
            owner = next(iter(self._waiting))
            queue = self._waiting.pop(owner)
            given = queue.popleft()
            if queue:
                self._waiting[owner] = queue
            if not given.cancelled():
                given.set_result(None)
                return
        self._free += 1

    def wanted_by_others(self, owner: str) -> bool:
        """Whether another account waits."""
        return any(other != owner for other in self._waiting)


class Turn:
    """A turn that somebody has."""

    def __init__(self, turns: Turns, owner: str) -> None:
        self._turns = turns
        self._owner = owner
        self._held = False

    async def take(self, *, first: bool = False) -> None:
        await self._turns.take(self._owner, first=first)
        self._held = True

    def end(self) -> None:
        if self._held:
            self._held = False
            self._turns.give(self._owner)

    async def pause(self) -> None:
        """Let another account that waits go before; returns at once where none does."""
        if self._turns.wanted_by_others(self._owner):
            self.end()
            await self.take(first=True)
