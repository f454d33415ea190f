"""Limits on guessing: how many wrong passwords, for one account from one address and for one
address in all.

Nothing counts by account alone, so nobody can lock somebody else out from elsewhere. An attempt
counts from its start and is given back when it succeeds: a hundred guesses sent at once count like
a hundred in a row.
"""

import hashlib
import ipaddress
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from domain.errors import Throttled
from storage.users import folded


class Lockout:
    """Counts in memory, or in Redis when `redis_url` is given, so that all processes count
    together; when Redis does not answer, each process counts for itself."""

    def __init__(
        self, *, failures: int, address_failures: int, window_s: int, redis_url: str = ""
    ) -> None:
        self._failures = failures
        self._address_failures = address_failures
        self._window_s = window_s
        self._redis_url = redis_url
        self._counters: Counters | None = None

    async def begin(self, account: str, address: str) -> "Attempt":
        """Count an attempt on an account: its id, or whatever the client called one that there is
        not.

        Raises Throttled("login.locked") when there were too many that failed.
        """
        if self._counters is None:
            self._counters = Counters(
                self._failures, self._address_failures, self._window_s, self._redis_url
            )
        place = network(address)
        attempt = Attempt(self._counters, _digest(account), place)
        wait = await self._counters.add(attempt.account, place)
        if wait:
            raise Throttled("login.locked", retry_after=wait)
        return attempt

    async def close(self) -> None:
        if self._counters is not None:
            await self._counters.close()


class Attempt:
    """An attempt that has failed until it is said to have succeeded."""

    def __init__(self, counters: "Counters", account: str, place: str) -> None:
        self._counters = counters
        self.account = account
        self.place = place

    async def judge(self, verifying: Awaitable[bool]) -> bool:
        """Whether the password is right. Then this account is forgiven at this address; the address
        keeps what else it got wrong. Raises Throttled where nobody could look, which then does not
        count."""
        try:
            right = await verifying
        except Throttled:
            await self._counters.give_back(self.account, self.place)
            raise
        if right:
            await self._counters.forgive(self.account, self.place)
        return right


class Counters:
    """Fixed windows of the limits library."""

    def __init__(self, failures: int, address_failures: int, window_s: int, redis_url: str) -> None:
        from limits import RateLimitItemPerSecond
        from limits.aio.storage import MemoryStorage
        from limits.aio.strategies import FixedWindowRateLimiter
        from limits.errors import StorageError

        self._pair = RateLimitItemPerSecond(failures, window_s, "login")
        self._place = RateLimitItemPerSecond(address_failures, window_s, "login-address")
        self._unanswered = StorageError
        self._here = FixedWindowRateLimiter(MemoryStorage())
        self._shared: Any = None
        if redis_url:
            from limits.aio.storage import RedisStorage

            storage = RedisStorage(
                f"async+{redis_url}",
                implementation="redispy",
                wrap_exceptions=True,
                key_prefix="quartet:lockout",
                socket_timeout=1.0,
                socket_connect_timeout=1.0,
            )
            self._shared = FixedWindowRateLimiter(storage)

    async def add(self, account: str, place: str) -> int:
        """Count an attempt; seconds to wait if it is one too many, else 0."""
        if self._shared is not None:
            try:
                return await self._add(self._shared, account, place)
            except self._unanswered:
                pass
        return await self._add(self._here, account, place)

    async def forgive(self, account: str, place: str) -> None:
        for limiter in filter(None, (self._here, self._shared)):
            with suppress(self._unanswered):
                await limiter.clear(self._pair, account, place)
                await self._take_back(limiter, self._place, place)

    async def give_back(self, account: str, place: str) -> None:
        """One attempt."""
        for limiter in filter(None, (self._here, self._shared)):
            with suppress(self._unanswered):
                await self._take_back(limiter, self._pair, account, place)
                await self._take_back(limiter, self._place, place)

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.storage.bridge.get_connection().aclose()

    async def _add(self, limiter: Any, account: str, place: str) -> int:
        for item, names in ((self._place, (place,)), (self._pair, (account, place))):
            if not await limiter.hit(item, *names):
                stats = await limiter.get_window_stats(item, *names)
                return max(1, int(stats.reset_time - time.time()))
        return 0

    async def _take_back(self, limiter: Any, item: Any, *names: str) -> None:
        if await limiter.storage.get(item.key_for(*names)) > 0:
            await limiter.hit(item, *names, cost=-1)


def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one IPv6 customer gets."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _digest(account: str) -> str:
    """People type passwords where a name belongs: what they typed is kept nowhere."""
    return hashlib.sha256(folded(account).encode("utf-8", "surrogatepass")).hexdigest()[:32]
