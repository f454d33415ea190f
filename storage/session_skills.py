"""Rows of the skills that sessions have taken up, each in the edition it had then."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from storage.database import Database, Statement, Unit
from storage.schema import session_skills


class SessionSkill(msgspec.Struct, frozen=True):
    """A row of `session_skills`, in table order. `edition` is a domain.skill_runtime.Edition,
    whose files were copied into the session's workspace at `synced_at`, in UTC seconds since the
    epoch."""

    conversation_id: str
    skill_id: str
    edition: dict[str, Any]
    synced_at: float


_OF = session_skills.c.conversation_id == bindparam("conversation")


def _add(dialect: Any) -> Any:
    insert = dialect.insert(session_skills).values(
        {name: bindparam(name) for name in SessionSkill.__struct_fields__}
    )
    return insert.on_conflict_do_nothing(index_elements=["conversation_id", "skill_id"])


OF = Statement(
    select(session_skills).where(_OF).order_by(session_skills.c.skill_id), into=SessionSkill
)
ADD = Statement({"sqlite": _add(sqlite), "postgresql": _add(postgresql)})


class SessionSkills:
    """Skills of sessions over a Database; a session's go with it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, conversation_id: str) -> Sequence[SessionSkill]:
        return await self._database.read(OF(conversation=conversation_id))

    def add(self, row: SessionSkill) -> Unit[None]:
        """Keep an edition, unless the session has one of the skill. Raises Orphan where the
        session is gone."""
        yield ADD(**msgspec.structs.asdict(row))
