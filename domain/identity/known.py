"""Credentials that were verified, remembered so that a request needs no query; and the ends of
login sessions, so that nothing remembered outlives what it stands for.
"""

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from domain.caller import Caller


class Revocation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The payload of an event of the stream `sessions`: login sessions of an account ended.

    With `whole`, everything known of the account is stale (its role or status changed, or it is
    gone): every credential is verified again and every open stream of it is cut.
    """

    user_id: str
    session_ids: list[str] = []
    whole: bool = False


class Remembered(msgspec.Struct, frozen=True, gc=False):
    """A verified credential. `end` is shared by all credentials of one login session."""

    caller: Caller
    expires_at: float
    end: asyncio.Event


Memory = dict[str, Remembered]


class Known:
    """Bounded; synchronous; no I/O. The oldest of `size` credentials of a kind is forgotten first.

    `fresh` answers False while revocations cannot be read: then nothing is recalled, and each
    request is verified against the database (rules, "Runs, events, cursors").
    """

    def __init__(self, clock: Callable[[], float], size: int = 10_000) -> None:
        self._clock = clock
        self._size = size
        self.bearers: Memory = {}
        self.cookies: Memory = {}
        self.proxied: Memory = {}
        self._ends: WeakValueDictionary[tuple[str, str], asyncio.Event] = WeakValueDictionary()
        self._ended: dict[str, None] = {}
        self._callbacks: list[Callable[[Revocation], Any]] = []
        self.generation = 0
        """Grows with each revocation: what was read before one is not remembered after it."""
        self.fresh: Callable[[], bool] = lambda: True

    def recall(self, memory: Memory, credential: str) -> Caller | None:
        """Who a credential stood for when it was verified, if that still holds."""
        found = memory.get(credential)
        if found is None:
            return None
        if found.end.is_set() or found.expires_at <= self._clock():
            del memory[credential]
            return None
        return found.caller if self.fresh() else None

    def remember(
        self, memory: Memory, credential: str, caller: Caller, expires_at: float, generation: int
    ) -> None:
        """Keep a credential verified since `generation`; of no effect if that has passed."""
        if generation != self.generation:
            return
        if len(memory) >= self._size:
            del memory[next(iter(memory))]
        memory[credential] = Remembered(caller, expires_at, self.ended(caller))

    def ended(self, caller: Caller) -> asyncio.Event:
        """Set when the caller's login session ends or its account changes.

        The same event for all that ask while one of them holds it; nothing is kept when none does.
        """
        key = caller.user_id, caller.session_id
        end = self._ends.get(key)
        if end is None:
            end = asyncio.Event()
            if caller.session_id in self._ended:
                end.set()
            else:
                self._ends[key] = end
        return end

    def is_revoked(self, session_id: str) -> bool:
        """Whether this process has lately learned that a login session was ended."""
        return session_id in self._ended

    def on_revoked(self, callback: Callable[[Revocation], Any]) -> None:
        """Call `callback` for each revocation, on the event loop."""
        self._callbacks.append(callback)

    def apply(self, revocation: Revocation) -> None:
        """Forget what a revocation ends. Applying one twice does no harm."""
        self.generation += 1
        for session_id in revocation.session_ids:
            if len(self._ended) >= self._size:
                del self._ended[next(iter(self._ended))]
            self._ended[session_id] = None
            self._end((revocation.user_id, session_id))
        if revocation.whole:
            for key in [key for key in self._ends if key[0] == revocation.user_id]:
                self._end(key)
        for callback in self._callbacks:
            callback(revocation)

    def _end(self, key: tuple[str, str]) -> None:
        end = self._ends.pop(key, None)
        if end is not None:
            end.set()
