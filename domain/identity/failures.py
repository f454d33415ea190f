"""Failed logins, written down in batches: a flood of guesses costs few transactions."""

import asyncio
from collections import Counter

import msgspec

from domain.identity.trail import SESSIONS, Append
from storage.database import Database, StorageError, Unit
from storage.records import Event

MOST = 1000
"""Pairs of account and address in one batch; what comes beyond is counted as one."""


class FailedLogins:
    """Counts by (account, address) and appends the counts every few seconds."""

    def __init__(self, database: Database, append: Append, *, every_s: float = 2.0) -> None:
        self._database = database
        self._append = append
        self._every_s = every_s
        self._counts: Counter[tuple[str, str]] = Counter()
        self._scheduled = False

    def note(self, user_id: str, address: str) -> None:
        """Count one; `user_id` is empty when no account has the name."""
        key = user_id, address
        if key not in self._counts and len(self._counts) >= MOST:
            key = "", ""
        self._counts[key] += 1
        if not self._scheduled:
            self._scheduled = True
            self._database.in_background(self._later)

    async def flush(self) -> None:
        """Append what was counted until now. Raises StorageError; the counts are then kept."""
        self._scheduled = False
        counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            await self._database.write(lambda: self._unit(counts))
        except StorageError:
            self._counts.update(counts)
            raise

    async def _later(self) -> None:
        await asyncio.sleep(self._every_s)
        await self.flush()

    def _unit(self, counts: Counter[tuple[str, str]]) -> Unit[None]:
        streams: dict[str, list[Event]] = {}
        for (user_id, address), count in sorted(counts.items()):
            stream = f"user:{user_id}" if user_id else SESSIONS
            payload = msgspec.json.encode({"address": address, "count": count})
            streams.setdefault(stream, []).append(Event("login.failed", payload))
        for stream, events in sorted(streams.items()):
            yield from self._append(stream, events)
