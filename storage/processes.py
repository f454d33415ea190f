"""Rows of the processes that serve, and of the leases they take.

Times are the caller's clock; the processes of one deployment keep theirs within a second.
"""

import time
from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, delete, insert, or_, select, update

from storage.database import Database, Duplicate, Statement, Unit
from storage.schema import leases, processes


class Process(msgspec.Struct, frozen=True):
    """A row of `processes`, in table order."""

    id: str
    host: str
    started_at: float
    beat_at: float


INSERT = Statement(insert(processes))
BEAT = Statement(
    update(processes)
    .where(processes.c.id == bindparam("process_id"))
    .values(beat_at=bindparam("now"))
)
LIST = Statement(select(processes).order_by(processes.c.id), into=Process)
DELETE = Statement(delete(processes).where(processes.c.id == bindparam("process_id")))
TAKE = Statement(
    update(leases)
    .where(
        leases.c.name == bindparam("lease"),
        or_(leases.c.holder == bindparam("new_holder"), leases.c.until < bindparam("now")),
    )
    .values(holder=bindparam("new_holder"), until=bindparam("new_until"))
)
LEASE = Statement(select(leases.c.holder).where(leases.c.name == bindparam("lease")))
ADD_LEASE = Statement(insert(leases))
RELEASE = Statement(
    delete(leases).where(
        leases.c.name == bindparam("lease"), leases.c.holder == bindparam("old_holder")
    )
)


class ProcessStore:
    """Processes and leases over a Database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_all(self) -> list[Process]:
        return await self._database.read(LIST())

    async def beat(self, process_id: str, host: str) -> None:
        """Say that the process lives; its row is made if it is gone."""
        await self._database.write(lambda: self._beat(process_id, host))

    def _beat(self, process_id: str, host: str) -> Unit[None]:
        now = time.time()
        if not (yield BEAT(process_id=process_id, now=now)):
            yield INSERT(id=process_id, host=host, started_at=now, beat_at=now)

    async def remove(self, process_ids: Sequence[str]) -> None:
        if process_ids:
            await self._database.write(lambda: self._remove(process_ids))

    def _remove(self, process_ids: Sequence[str]) -> Unit[None]:
        for process_id in process_ids:
            yield DELETE(process_id=process_id)

    async def take(self, lease: str, holder: str, seconds: float) -> bool:
        """Take or renew a lease; False while another holds it."""
        try:
            return await self._database.write(lambda: self._take(lease, holder, seconds))
        except Duplicate:
            return False

    def _take(self, lease: str, holder: str, seconds: float) -> Unit[bool]:
        now = time.time()
        until = now + seconds
        if (yield TAKE(lease=lease, new_holder=holder, now=now, new_until=until)):
            return True
        if (yield LEASE(lease=lease)):
            return False
        yield ADD_LEASE(name=lease, holder=holder, until=until)
        return True

    async def release(self, lease: str, holder: str) -> None:
        """Give a lease back; nothing happens if another holds it."""

        def unit() -> Unit[None]:
            yield RELEASE(lease=lease, old_holder=holder)

        await self._database.write(unit)
