"""Rows of A2A agents, and of what each said of itself when it was last asked."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, update

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.schema import a2a_servers


class A2aServer(msgspec.Struct, frozen=True):
    """A row of `a2a_servers`, in table order. Times are UTC seconds since the epoch.

    `tool_name` is what models call it by. `card` is its card as JSON; None, with `error` saying
    why, where it could not be read when it was last asked, or was not asked yet (`refreshed_at`
    0). `enabled` is the administrators' word.
    """

    id: str
    base_url: str
    tool_name: str
    name: str
    description: str
    input_modes: list[str]
    output_modes: list[str]
    streaming: bool
    push_notifications: bool
    card: dict[str, Any] | None
    enabled: bool
    error: str
    created_at: float
    refreshed_at: float


_OLDEST_FIRST = (a2a_servers.c.created_at, a2a_servers.c.id)
_THIS = a2a_servers.c.id == bindparam("server_id")
_FIXED = ("id", "base_url", "tool_name", "created_at")

LIST = Statement(select(a2a_servers).order_by(*_OLDEST_FIRST), into=A2aServer)
FIND = Statement(select(a2a_servers).where(_THIS), into=A2aServer)
LOCK = Statement(select(a2a_servers).where(_THIS).with_for_update(), into=A2aServer)
TAKEN = Statement(select(a2a_servers.c.tool_name))
COUNT = Statement(select(func.count()).select_from(a2a_servers))
INSERT = Statement(insert(a2a_servers))
UPDATE = Statement(
    update(a2a_servers)
    .where(_THIS)
    .values({name: bindparam(name) for name in A2aServer.__struct_fields__ if name not in _FIXED})
)
DELETE = Statement(delete(a2a_servers).where(_THIS))


class A2aStore:
    """A2A agents over a Database, the oldest first. They are the platform's, so there is no owner.

    Units raise NoSuchRow("a2a_server"), Duplicate("uq_a2a_servers_base_url") and
    Duplicate("uq_a2a_servers_tool_name").
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_all(self) -> Sequence[A2aServer]:
        return await self._database.scan(LIST())

    async def get(self, server_id: str) -> A2aServer | None:
        return await self._database.read_one(FIND(server_id=server_id))

    def lock(self, server_id: str) -> Unit[A2aServer | None]:
        """An agent's row, locked until the unit ends."""
        rows = yield LOCK(server_id=server_id)
        return rows[0] if rows else None

    def tool_names(self) -> Unit[set[str]]:
        """What agents are called by models."""
        rows = yield TAKEN()
        return {name for (name,) in rows}

    def count(self) -> Unit[int]:
        rows = yield COUNT()
        count: int = rows[0][0]
        return count

    def insert(self, server: A2aServer) -> Unit[None]:
        yield INSERT(**msgspec.structs.asdict(server))

    def update(self, server: A2aServer) -> Unit[None]:
        """Everything but its address, its tool's name and when it was made."""
        fields = {
            name: value
            for name, value in msgspec.structs.asdict(server).items()
            if name not in _FIXED
        }
        if not (yield UPDATE(server_id=server.id, **fields)):
            raise NoSuchRow("a2a_server")

    def delete(self, server_id: str) -> Unit[None]:
        if not (yield DELETE(server_id=server_id)):
            raise NoSuchRow("a2a_server")
