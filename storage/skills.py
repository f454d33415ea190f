"""Rows of skills. A skill's files beside its SKILL.md lie in storage.skill_files."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec
from sqlalchemy import bindparam, delete, insert, literal, or_, select, update

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.schema import agent_grants, agents, skills
from storage.tool_preferences import FORGET

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
    SKILL.md, `files` are all others, path to size in bytes, in the order of their numbers; they lie
    under `bundle`. `digest` tells two skills apart by what they hold. `entry` is how the skill is
    run, in the words of domain.skill_entry, empty where it is instructions alone; `refs` are files
    that are read with it. `enabled`, `version`, `source_*` and `last_sync_at`, when it was last
    copied into a sandbox, matter in SYSTEM alone. `owner_id` is None where the account that added a
    skill of SYSTEM is gone.
    """

    id: str
    owner_id: str | None
    agent_id: str | None
    place: str
    name: str
    description: str
    content: str
    files: dict[str, int]
    digest: str
    bundle: str
    created_at: float
    updated_at: float
    version: str = "0.1.0"
    source_type: str = "local"
    source_ref: str = ""
    runtime_type: str = "native"
    entry: dict[str, Any] = {}
    refs: list[str] = []
    enabled: bool = True
    last_sync_at: float | None = None

    @property
    def dimension(self) -> Dimension:
        return cast(Dimension, self.place.partition(":")[0])


class _Bundle(msgspec.Struct, frozen=True):
    bundle: str


_STAYS = {"id", "owner_id", "agent_id", "place", "enabled", "last_sync_at", "created_at"}
_REPLACED = [name for name in Skill.__struct_fields__ if name not in _STAYS] + ["owner_id"]
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
_BRIEFLY = (
    select(*(literal("").label(c.name) if c is skills.c.content else c for c in skills.c))
    .where(skills.c.place == bindparam("of_place"))
    .order_by(*_OLDEST_FIRST)
)
LIST_BRIEFLY = Statement(_BRIEFLY, into=Skill)
LOCK_IN = Statement(_BRIEFLY.with_for_update(), into=Skill)
FIND = Statement(select(skills).where(skills.c.id == bindparam("skill_id")), into=Skill)
BUNDLES = Statement(select(skills.c.bundle), into=_Bundle)
LOCK = Statement(
    select(skills).where(skills.c.id == bindparam("skill_id")).with_for_update(), into=Skill
)
INSERT = Statement(insert(skills))
REPLACE = Statement(
    update(skills)
    .where(skills.c.id == bindparam("skill_id"))
    .values({name: bindparam(f"new_{name}") for name in _REPLACED})
)
ENABLE = Statement(
    update(skills)
    .where(skills.c.id == bindparam("skill_id"))
    .values(enabled=bindparam("new_enabled"), updated_at=bindparam("now"))
)
SYNCED = Statement(
    update(skills).where(skills.c.id == bindparam("skill_id")).values(last_sync_at=bindparam("now"))
)
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
DISOWN = Statement(
    update(skills)
    .where(skills.c.place == SYSTEM, skills.c.owner_id == bindparam("owner"))
    .values(owner_id=None)
)
DELETE = Statement(delete(skills).where(skills.c.id == bindparam("skill_id")))


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

    async def list_briefly(self, place: str) -> Sequence[Skill]:
        """Those of a place without their content, which is empty."""
        return await self._database.read(LIST_BRIEFLY(of_place=place))

    async def get(self, skill_id: str) -> Skill | None:
        """Anybody's skill."""
        return await self._database.read_one(FIND(skill_id=skill_id))

    async def bundles(self) -> set[str]:
        """Where the files of all of them lie."""
        return {row.bundle for row in await self._database.scan(BUNDLES())}

    def lock(self, skill_id: str) -> Unit[Skill | None]:
        """Anybody's skill, locked until the unit ends."""
        rows = yield LOCK(skill_id=skill_id)
        return rows[0] if rows else None

    def lock_in(self, place: str) -> Unit[list[Skill]]:
        """Those of a place without their content, locked until the unit ends."""
        rows: list[Skill] = yield LOCK_IN(of_place=place)
        return rows

    def insert(self, skill: Skill) -> Unit[None]:
        yield INSERT(**msgspec.structs.asdict(skill))

    def replace(self, skill: Skill) -> Unit[None]:
        """Write everything of a skill anew but its place, whether it is enabled, and what has
        happened to it."""
        new = {f"new_{name}": getattr(skill, name) for name in _REPLACED}
        if not (yield REPLACE(skill_id=skill.id, **new)):
            raise NoSuchRow("skill")

    def enable(self, skill_id: str, *, enabled: bool, now: float) -> Unit[None]:
        if not (yield ENABLE(skill_id=skill_id, new_enabled=enabled, now=now)):
            raise NoSuchRow("skill")

    def synced(self, skill_id: str, now: float) -> Unit[None]:
        """Note that it was copied into a sandbox; nothing where it is gone."""
        yield SYNCED(skill_id=skill_id, now=now)

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

    def disown(self, owner: str) -> Unit[None]:
        """The system's skills that an account added are nobody's: its own go with the account."""
        yield DISOWN(owner=owner)

    def delete(self, skill_id: str) -> Unit[None]:
        """Remove a skill, with what accounts wanted of it."""
        yield FORGET(of_kind="skill", of_tool=skill_id)
        if not (yield DELETE(skill_id=skill_id)):
            raise NoSuchRow("skill")
