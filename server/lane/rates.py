"""Rate limits of operations by bucket (`x-rate-limit`), in memory or shared over Redis."""

import time
from collections.abc import Mapping
from typing import Any

from domain.errors import Throttled
from server.lane.refusals import Refusal

_REDIS_S = 1.0
"""How long Redis may take to answer."""


class Rates:
    """Buckets with their limits (`{"login": "10/minute"}`), counted per user or address."""

    def __init__(self, buckets: Mapping[str, str], redis_url: str = "") -> None:
        self._buckets = buckets
        self._redis_url = redis_url
        self._limits: dict[str, Any] = {}
        self._strategy: Any = None
        self._unanswered: type[Exception] = Exception

    def _open(self) -> None:
        from limits import parse
        from limits.aio.storage import MemoryStorage, RedisStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter
        from limits.errors import StorageError

        storage = (
            RedisStorage(
                f"async+{self._redis_url}",
                implementation="redispy",
                wrap_exceptions=True,
                socket_timeout=_REDIS_S,
                socket_connect_timeout=_REDIS_S,
            )
            if self._redis_url
            else MemoryStorage()
        )
        self._unanswered = StorageError
        self._strategy = SlidingWindowCounterRateLimiter(storage)
        self._limits = {name: parse(limit) for name, limit in self._buckets.items()}

    async def hit(self, bucket: str, key: str) -> None:
        """Count one request of `key`. Raises Throttled when the bucket's limit is passed, and
        Refusal 503 while Redis does not answer: uncounted, nobody would be limited."""
        if self._strategy is None:
            self._open()
        limit = self._limits[bucket]
        try:
            if await self._strategy.hit(limit, bucket, key):
                return
            window = await self._strategy.get_window_stats(limit, bucket, key)
        except self._unanswered:
            raise Refusal(503, "request.uncounted", headers=[(b"retry-after", b"1")]) from None
        raise Throttled(
            "request.throttled",
            retry_after=max(1, int(window.reset_time - time.time())),
            limit=limit.amount,
            window_seconds=limit.get_expiry(),
            bucket=bucket,
        )
