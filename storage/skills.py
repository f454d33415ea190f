"""Rows of skills. A skill's files beside its SKILL.md lie in storage.skill_files."""

from collections.abc import Sequence
from typing import Literal, cast

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.schema import agent_grants, agents, skills

Dimension = Literal["system", "user", "agent"]
SYSTEM = "system"
"""The place of the skills that everybody has."""


def of_user(user_id: str) -> str:
    """The place of an account's own skills."""
    return f"user:{user_id}"


def of_agent(agent_id: str) -> str:
    """The place of the skills that an agent has for itself."""
    return f"agent:{agent_id}"


class Skill(msgspec.Struct, frozen=True):
    """A row of `skills`, in table order. Times are UTC seconds since the epoch.

    `place` is SYSTEM, `of_user` or `of_agent`; a name stands once in it. `content` is the text of
    SKILL.md, `files` are all others, path to size in bytes, in the order of their numbers. `digest`
    tells two skills apart by what they hold.
    """

    id: str
    owner_id: str
    agent_id: str | None
    place: str
    name: str
    description: str
    content: str
    files: dict[str, int]
    digest: str
    created_at: float
    updated_at: float

    @property
    def dimension(self) -> Dimension:
        return cast(Dimension, self.place.partition(":")[0])


class _Id(msgspec.Struct, frozen=True):
    id: str


_OWN_AGENTS = select(agents.c.id).where(agents.c.owner_id == bindparam("viewer"))
_GRANTED = select(agent_grants.c.agent_id).where(agent_grants.c.user_id == bindparam("viewer"))
_OLDEST_FIRST = (skills.c.created_at, skills.c.id)

LIST = Statement(select(skills).order_by(*_OLDEST_FIRST), into=Skill)
LIST_VISIBLE = Statement(
    select(skills)
    .where(
        or_(
            skills.c.place.in_(bindparam("places", expanding=True)),
            skills.c.agent_id.in_(_OWN_AGENTS),
            skills.c.agent_id.in_(_GRANTED),
        )
    )
    .order_by(*_OLDEST_FIRST),
    into=Skill,
)
LIST_IN = Statement(
    select(skills)
    .where(skills.c.place.in_(bindparam("places", expanding=True)))
    .order_by(*_OLDEST_FIRST),
    into=Skill,
)
FIND = Statement(select(skills).where(skills.c.id == bindparam("skill_id")), into=Skill)
IDS = Statement(select(skills.c.id), into=_Id)
COUNT = Statement(
    select(func.count()).select_from(skills).where(skills.c.place == bindparam("of_place"))
)
INSERT = Statement(insert(skills))
REWRITE = Statement(
    update(skills)
    .where(skills.c.id == bindparam("skill_id"))
    .values(
        description=bindparam("new_description"),
        content=bindparam("new_content"),
        digest=bindparam("new_digest"),
        updated_at=bindparam("now"),
    )
)
DELETE = Statement(delete(skills).where(skills.c.id == bindparam("skill_id")))
REMOVE = Statement(
    delete(skills)
    .where(skills.c.place == bindparam("of_place"), skills.c.name == bindparam("of_name"))
    .returning(skills.c.id),
    into=_Id,
)


class SkillStore:
    """Skills over a Database, the oldest first. Units raise NoSuchRow("skill") where there is no
    such skill, and Duplicate("uq_skills_place_name")."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_all(self) -> Sequence[Skill]:
        """Every account's."""
        return await self._database.scan(LIST())

    async def list_visible(self, viewer: str) -> Sequence[Skill]:
        """The system's, the viewer's own, and those of agents that the viewer may see."""
        places = [SYSTEM, of_user(viewer)]
        return await self._database.read(LIST_VISIBLE(viewer=viewer, places=places))

    async def list_in(self, places: Sequence[str]) -> Sequence[Skill]:
        """Those that stand in one of these places."""
        return await self._database.read(LIST_IN(places=list(places)))

    async def get(self, skill_id: str) -> Skill | None:
        """Anybody's skill."""
        return await self._database.read_one(FIND(skill_id=skill_id))

    async def ids(self) -> set[str]:
        """The ids of all."""
        return {row.id for row in await self._database.scan(IDS())}

    def count(self, place: str) -> Unit[int]:
        rows = yield COUNT(of_place=place)
        count: int = rows[0][0]
        return count

    def put(self, skill: Skill) -> Unit[list[str]]:
        """Keep a skill in place of the one of its name, whose id is returned if there was one."""
        replaced = yield REMOVE(of_place=skill.place, of_name=skill.name)
        yield INSERT(**msgspec.structs.asdict(skill))
        return [row.id for row in replaced]

    def rewrite(
        self, skill_id: str, *, description: str, content: str, digest: str, now: float
    ) -> Unit[None]:
        """Write SKILL.md anew."""
        changed = yield REWRITE(
            skill_id=skill_id,
            new_description=description,
            new_content=content,
            new_digest=digest,
            now=now,
        )
        if not changed:
            raise NoSuchRow("skill")

    def delete(self, skill_id: str) -> Unit[None]:
        if not (yield DELETE(skill_id=skill_id)):
            raise NoSuchRow("skill")
