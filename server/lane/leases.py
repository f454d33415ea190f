"""How many streams and websockets an account holds open, by bucket (`x-stream-limit`).

A lease is taken before a stream begins and given back when it ends. In memory it cannot outlive
its process. In Redis it is a member of a sorted set that every process of the deployment sees; it
is renewed while its stream is open and runs out when its process dies.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from domain.errors import Throttled
from server.lane.refusals import Refusal

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger("quartet.lane")

TTL_S = 120
"""How long a lease of a process that died counts."""
RENEW_S = 30.0
RETRY_S = 5
"""When a caller that has too many open should look again."""
_REDIS_S = 1.0
"""How long Redis may take to answer."""

# One step, so that two processes cannot both take the last place.
_TAKE = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""


class Leases:
    """Buckets with the number that one account may hold (`{"sse": 10, "ws": 5}`)."""

    def __init__(self, buckets: Mapping[str, int], redis_url: str = "") -> None:
        self._buckets = buckets
        self._redis_url = redis_url
        self._held: Counter[tuple[str, str]] = Counter()
        self._named: set[tuple[str, str]] = set()
        self._redis: Redis | None = None
        self._renewal: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def held(self, bucket: str, user_id: str) -> AsyncIterator[None]:
        """Hold one place of an account for as long as the block runs.

        Raises Throttled("request.too_many_streams"); Refusal 503 while Redis does not answer:
        uncounted, nobody would be limited.
        """
        limit = self._buckets[bucket]
        if self._redis_url:
            name = await self._take(bucket, user_id, limit)
            try:
                yield
            finally:
                await self._give_back(name)
            return
        place = (bucket, user_id)
        if self._held[place] >= limit:
            raise self._refused(bucket, limit)
        self._held[place] += 1
        try:
            yield
        finally:
            self._held[place] -= 1
            if not self._held[place]:
                del self._held[place]

    def place(self, bucket: str, user_id: str) -> AbstractAsyncContextManager[None]:
        """`held`, or nothing to hold where no bucket is named."""
        return self.held(bucket, user_id) if bucket else contextlib.nullcontext()

    async def close(self) -> None:
        """Give back what is held, if Redis answers at once."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._redis is not None:
            for name in tuple(self._named):
                await self._give_back(name)
            with contextlib.suppress(Exception):
                await self._redis.aclose()
            self._redis = None

    @staticmethod
    def _refused(bucket: str, limit: int) -> Throttled:
        return Throttled(
            "request.too_many_streams",
            retry_after=RETRY_S,
            limit=limit,
            window_seconds=TTL_S,
            bucket=bucket,
        )

    # --- in Redis ---------------------------------------------------------------------------

    async def _take(self, bucket: str, user_id: str, limit: int) -> tuple[str, str]:
        from redis.exceptions import RedisError

        key, lease = f"quartet:leases:{bucket}:{user_id}", secrets.token_hex(12)
        now = time.time()
        try:
            taken = await self._client().eval(_TAKE, 1, key, now, now + TTL_S, limit, lease, TTL_S)
        except (RedisError, OSError):
            raise Refusal(503, "request.uncounted", headers=[(b"retry-after", b"1")]) from None
        if not taken:
            raise self._refused(bucket, limit)
        self._named.add((key, lease))
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())
        return key, lease

    async def _give_back(self, name: tuple[str, str]) -> None:
        self._named.discard(name)
        # Redis forgets it by itself if it cannot be told.
        with contextlib.suppress(Exception):
            await self._client().zrem(*name)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            if not self._named:
                continue
            until = time.time() + TTL_S
            try:
                async with self._client().pipeline(transaction=False) as pipeline:
                    for key, lease in self._named:
                        pipeline.zadd(key, {lease: until})
                        pipeline.expire(key, TTL_S)
                    await pipeline.execute()
            except Exception as error:
                logger.warning("open streams cannot be counted: %s", error)

    def _client(self) -> Any:
        if self._redis is None:
            from redis.asyncio import Redis

            self._redis = Redis.from_url(
                self._redis_url, socket_timeout=_REDIS_S, socket_connect_timeout=_REDIS_S
            )
        return self._redis
