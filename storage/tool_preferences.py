"""Rows of what accounts want of the platform's tools."""

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from storage.database import Database, Statement, Unit
from storage.schema import tool_preferences

Kind = Literal["mcp", "a2a", "skill"]

OF = Statement(
    select(tool_preferences.c.tool_id, tool_preferences.c.enabled).where(
        tool_preferences.c.owner_id == bindparam("owner"),
        tool_preferences.c.kind == bindparam("of_kind"),
    )
)


def _put(dialect: Any) -> Any:
    insert = dialect.insert(tool_preferences).values(
        {name: bindparam(name) for name in tool_preferences.c.keys()}  # noqa: SIM118
    )
    return insert.on_conflict_do_update(
        index_elements=["owner_id", "kind", "tool_id"], set_={"enabled": insert.excluded.enabled}
    )


PUT = Statement({"sqlite": _put(sqlite), "postgresql": _put(postgresql)})
FORGET = Statement(
    delete(tool_preferences).where(
        tool_preferences.c.kind == bindparam("of_kind"),
        tool_preferences.c.tool_id == bindparam("of_tool"),
    )
)


class ToolPreferences:
    """What accounts want, by kind and id of the tool; a tool that nobody spoke of has no row.
    An account's go with it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, owner: str, kind: Kind) -> Mapping[str, bool]:
        """Ids of the tools that the owner has spoken of, and whether it wants them."""
        return dict(await self._database.read(OF(owner=owner, of_kind=kind)))

    def put(self, owner: str, kind: Kind, tool_id: str, *, enabled: bool) -> Unit[None]:
        """Raises Orphan where there is no such account."""
        yield PUT(owner_id=owner, kind=kind, tool_id=tool_id, enabled=enabled)

    def forget(self, kind: Kind, tool_id: str) -> Unit[None]:
        """Nobody's any more: the tool is gone."""
        yield FORGET(of_kind=kind, of_tool=tool_id)
