"""Telling the other processes that streams have grown.

A wake-up carries stream names, never an event, and may be lost: whoever follows a stream reads
its rows. `poll_s` says how often a follower must look by itself meanwhile.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("quartet.storage")

LOST_POLL_S = 0.5
"""How often followed streams are read while no wake-up can arrive."""
SAFE_POLL_S = 5.0
"""How often they are read although wake-ups arrive."""

_PING_S = 2.0
_RETRY_MIN_S = 0.1
_RETRY_MAX_S = 5.0
_LAST_WORDS_S = 1.0
_NAMED_MAX = 1000
"""Most streams that one wake-up names; beyond, it says that any may have grown."""

Heard = Callable[[Collection[str] | None], None]
"""Called with the names of streams that have grown elsewhere; None: any may have grown."""


class Wakeups(Protocol):
    """How processes over one database wake one another."""

    @property
    def poll_s(self) -> float | None:
        """Seconds between looks at the rows of followed streams; None: no other process writes."""

    def listen(self, heard: Heard) -> None:
        """Start to listen; `heard` runs on the event loop."""

    def announce(self, streams: Collection[str]) -> None:
        """Say that `streams` have grown. Never waits, never fails."""

    async def close(self) -> None:
        """Stop listening."""


class OneProcess:
    """Wake-ups where this process is the only one that writes (SQLite): there are none to send."""

    poll_s: float | None = None

    def listen(self, heard: Heard) -> None:
        pass

    def announce(self, streams: Collection[str]) -> None:
        pass

    async def close(self) -> None:
        pass


class Polling(OneProcess):
    """Wake-ups for several processes that share nothing but the database."""

    poll_s: float | None = LOST_POLL_S


class RedisWakeups:
    """Wake-ups over one Redis channel. Losing Redis loses time, never an event."""

    def __init__(self, url: str, *, channel: str = "quartet:wakeups") -> None:
        self._url = url
        self._channel = channel
        self._sender = secrets.token_hex(8)
        self._pending: set[str] = set()
        self._something = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._hears = False

    @property
    def poll_s(self) -> float | None:
        return SAFE_POLL_S if self._hears else LOST_POLL_S

    def listen(self, heard: Heard) -> None:
        async def receive(redis: "Redis") -> None:
            await self._receive(redis, heard)

        self._tasks = [
            asyncio.create_task(self._keep(receive)),
            asyncio.create_task(self._keep(self._send)),
        ]

    def announce(self, streams: Collection[str]) -> None:
        self._pending.update(streams)
        self._something.set()
        self._sent.clear()

    async def close(self) -> None:
        """Stop listening; what was announced last is still sent if Redis answers at once."""
        if not self._tasks:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._sent.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _receive(self, redis: "Redis", heard: Heard) -> None:
        """Pass on what the others announce, until the connection fails."""
        pinged = False
        async with redis.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            try:
                while True:
                    message = await pubsub.get_message(timeout=_PING_S)
                    if message is None:
                        # A peer that vanished without a FIN shows only by its silence.
                        if pinged:
                            raise TimeoutError("no answer to a ping")
                        await pubsub.ping()
                        pinged = True
                        continue
                    pinged = False
                    if message["type"] == "subscribe":
                        self._hears = True
                        heard(None)
                    elif message["type"] == "message":
                        sender, *streams = message["data"].decode().split("\n")
                        if sender != self._sender:
                            heard(streams if streams else None)
            finally:
                self._hears = False

    async def _send(self, redis: "Redis") -> None:
        """Announce what has grown, until the connection fails."""
        while True:
            await self._something.wait()
            self._something.clear()
            streams, self._pending = self._pending, set()
            named = streams if len(streams) <= _NAMED_MAX else ()
            try:
                await redis.publish(self._channel, "\n".join([self._sender, *named]))
            except BaseException:
                self._pending |= streams
                self._something.set()
                raise
            if not self._pending:
                self._sent.set()

    async def _keep(self, work: "Callable[[Redis], Awaitable[None]]") -> None:
        """Run `work` on a connection of its own, again and again, backing off while it fails."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError

        clock = asyncio.get_running_loop().time
        delay = _RETRY_MIN_S
        while True:
            began = clock()
            redis = Redis.from_url(
                self._url,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=2.0,
                socket_timeout=2.0,
            )
            try:
                await work(redis)
            except (RedisError, OSError, TimeoutError) as error:
                if delay == _RETRY_MIN_S:
                    log.warning("wake-ups: Redis is away (%s)", error)
            finally:
                with suppress(RedisError, OSError):
                    await redis.aclose()
            if clock() - began > _RETRY_MAX_S:
                delay = _RETRY_MIN_S
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 (spreads retries)
            delay = min(delay * 2, _RETRY_MAX_S)
