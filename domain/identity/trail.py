"""What is written down of accounts: events for audit, and revocations for every process.

All of it is a part of the unit that does the thing, so neither is ever without the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from domain.identity.known import Known, Revocation
from storage.database import AfterCommit, Unit
from storage.records import Event

SESSIONS = "sessions"
"""The stream of revocations, and of failed logins that belong to no account."""

REVOKED = "sessions.revoked"
"""The type of the events whose payload is a Revocation."""

Append = Callable[[str, Sequence[Event]], Unit[Any]]
"""The event log's sub-unit: events at the end of a stream."""


class Trail:
    """Sub-units for the units that change accounts and login sessions."""

    def __init__(self, append: Append, known: Known) -> None:
        self._append = append
        self._known = known

    def tell(
        self, user_id: str, kind: str, *, actor: str, address: str, **facts: str | int | bool
    ) -> Unit[None]:
        """Append an event about an account: who did it, and from where. Never a secret."""
        payload = msgspec.json.encode({"actor": actor, "address": address, **facts})
        yield from self._append(f"user:{user_id}", [Event(kind, payload)])

    def revoke(self, revocation: Revocation) -> Unit[None]:
        """Append a revocation; this process applies it as soon as the unit has committed."""
        yield from self._append(SESSIONS, [Event(REVOKED, msgspec.json.encode(revocation))])
        yield AfterCommit(lambda: self._known.apply(revocation))
