"""Carries the ends of login sessions from the event log into this process's memory."""

import time
from collections.abc import Sequence

import msgspec

from domain.identity.known import Known, Revocation
from domain.identity.trail import REVOKED, SESSIONS
from storage.events import EventLog, Record, Watch

STALE_S = 2.0
"""After so long without a look at the log, memory is not trusted."""


class Revocations:
    """Follows the stream `sessions`, whichever process appends to it."""

    def __init__(self, log: EventLog, known: Known) -> None:
        self._log = log
        self._known = known
        self._watch: Watch | None = None

    async def start(self) -> None:
        """Apply what is appended from now on. Raises StorageError."""
        self._watch = await self._log.watch(SESSIONS, self._apply)
        self._known.fresh = self._fresh

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def _apply(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.type == REVOKED:
                self._known.apply(msgspec.json.decode(record.payload, type=Revocation))

    def _fresh(self) -> bool:
        watch = self._watch
        return watch is not None and time.monotonic() - watch.last_ok <= STALE_S
