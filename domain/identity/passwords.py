"""Password hashes: argon2id (RFC 9106) in a pool of its own.

Hashing takes tens of milliseconds and megabytes on purpose, so it never runs on the event loop,
never on more than a few threads, and never for a queue without end: a flood of logins is told to
come back instead of taking the machine.
"""

import asyncio
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from domain.errors import Throttled, Unusable

T = TypeVar("T")

LONGEST = 1024
"""Bytes of the longest password that is hashed."""


class Passwords:
    """Hashes and verifies. The defaults are OWASP's for argon2id: 19 MiB, two passes, one lane.

    `shortest` and `longest` count characters; they bind passwords set from now on, not those that
    exist.
    """

    def __init__(
        self,
        *,
        shortest: int = 8,
        longest: int = 128,
        threads: int = 2,
        waiting: int = 64,
        memory_kib: int = 19 * 1024,
        passes: int = 2,
    ) -> None:
        self._shortest = shortest
        self._longest = longest
        self._room = threading.Semaphore(threads + waiting)
        self._memory_kib = memory_kib
        self._passes = passes
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._made: tuple[Any, str] | None = None

    def check(self, password: str) -> None:
        """Raises Unusable("password.length") for a password that may not be set."""
        fits = self._shortest <= len(password) <= self._longest
        if not fits or len(_bytes(password)) > LONGEST:
            raise Unusable("password.length", minimum=self._shortest, maximum=self._longest)

    async def hash(self, password: str) -> str:
        """The hash of a password that `check` let pass. Raises Unusable, Throttled."""
        self.check(password)
        return await self.rehash(password)

    async def rehash(self, password: str) -> str:
        """A hash at today's costs of a password that was just verified. Raises Throttled."""
        return await self._run(lambda: self._hasher()[0].hash(_bytes(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one that was hashed. Without a hash (no such account, or one
        that has no password) it takes the same time and answers False. Raises Throttled."""
        if len(_bytes(password)) > LONGEST:
            return False
        return await self._run(lambda: self._verify(stored, password))

    def is_outdated(self, stored: str) -> bool:
        """Whether a hash was made with other costs than today's."""
        return bool(self._hasher()[0].check_needs_rehash(stored))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, stored: str | None, password: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError

        hasher, nobodys = self._hasher()
        try:
            matches = bool(hasher.verify(stored or nobodys, _bytes(password)))
        except (VerificationError, InvalidHashError):
            return False
        return matches and stored is not None

    def _hasher(self) -> tuple[Any, str]:
        """The hasher, and the hash of a password that nobody knows."""
        if self._made is None:
            from argon2 import PasswordHasher

            hasher = PasswordHasher(
                time_cost=self._passes, memory_cost=self._memory_kib, parallelism=1
            )
            self._made = hasher, hasher.hash(secrets.token_hex(32))
        return self._made

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise Throttled("login.busy", retry_after=1)
        future = self._pool.submit(work)
        # Held until the thread is done with it, not until its caller has lost patience.
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
