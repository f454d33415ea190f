"""Rows of agents and of the grants that let other accounts use them."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import and_, bindparam, delete, exists, insert, or_, select, update
from sqlalchemy.sql.expression import ColumnElement

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.membership import members, per_dialect
from storage.schema import agent_grants, agents, users


class Agent(msgspec.Struct, frozen=True):
    """A row of `agents`, in table order. Times are UTC seconds since the epoch."""

    id: str
    owner_id: str
    name: str
    description: str | None
    system_prefix: str | None
    system_context: dict[str, Any] | None
    workflows: dict[str, list[str]] | None
    tools: list[str] | None
    sub_agent_ids: list[str] | None
    skills: list[str] | None
    knowledge_bases: list[str] | None
    memory_type: str | None
    max_loop_count: int | None
    deep_thinking: bool
    provider_id: str | None
    multimodal: bool
    multi_agent: bool
    mode: str | None
    created_at: float
    updated_at: float
    version: int


class AgentFields(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent's owner decides: the columns that create and replace write."""

    name: str
    description: str | None = None
    system_prefix: str | None = None
    system_context: dict[str, Any] | None = None
    workflows: dict[str, list[str]] | None = None
    tools: list[str] | None = None
    sub_agent_ids: list[str] | None = None
    skills: list[str] | None = None
    knowledge_bases: list[str] | None = None
    memory_type: str | None = None
    max_loop_count: int | None = None
    deep_thinking: bool = False
    provider_id: str | None = None
    multimodal: bool = False
    multi_agent: bool = False
    mode: str | None = None


class _Id(msgspec.Struct, frozen=True):
    id: str


def _granted(viewer: str) -> ColumnElement[bool]:
    return exists().where(
        agent_grants.c.agent_id == agents.c.id, agent_grants.c.user_id == bindparam(viewer)
    )


_OWNED = agents.c.owner_id == bindparam("viewer")
_VISIBLE = or_(_OWNED, _granted("viewer"))
_NEWEST_FIRST = (agents.c.created_at.desc(), agents.c.id.desc())

FIND = Statement(select(agents).where(agents.c.id == bindparam("agent_id")), into=Agent)
FIND_VISIBLE = Statement(
    select(agents).where(agents.c.id == bindparam("agent_id"), _VISIBLE), into=Agent
)
LIST = Statement(select(agents).order_by(*_NEWEST_FIRST), into=Agent)
LIST_VISIBLE = Statement(
    select(agents)
    .where(
        or_(
            _OWNED,
            agents.c.id.in_(
                select(agent_grants.c.agent_id).where(agent_grants.c.user_id == bindparam("viewer"))
            ),
        )
    )
    .order_by(*_NEWEST_FIRST),
    into=Agent,
)
EXISTING = Statement(
    per_dialect(
        lambda dialect: select(agents.c.id).where(agents.c.id.in_(members("ids", dialect)))
    ),
    into=_Id,
)
EXISTING_VISIBLE = Statement(
    per_dialect(
        lambda dialect: select(agents.c.id).where(
            agents.c.id.in_(members("ids", dialect)), _VISIBLE
        )
    ),
    into=_Id,
)
INSERT = Statement(insert(agents))
REPLACE = Statement(
    update(agents)
    .where(agents.c.id == bindparam("agent_id"), agents.c.owner_id == bindparam("owner"))
    .values(
        {name: bindparam(name) for name in AgentFields.__struct_fields__}
        | {"updated_at": bindparam("now"), "version": agents.c.version + 1}
    )
    .returning(agents),
    into=Agent,
)
DELETE = Statement(
    delete(agents).where(
        agents.c.id == bindparam("agent_id"), agents.c.owner_id == bindparam("owner")
    )
)
LOCK = Statement(
    select(agents.c.id)
    .where(agents.c.id == bindparam("agent_id"), agents.c.owner_id == bindparam("owner"))
    .with_for_update(),
    into=_Id,
)
GRANTS = Statement(
    select(agent_grants.c.user_id)
    .where(agent_grants.c.agent_id == bindparam("agent_id"))
    .order_by(agent_grants.c.created_at, agent_grants.c.user_id),
    into=_Id,
)
KNOWN_USERS = Statement(
    per_dialect(
        lambda dialect: (
            select(users.c.id)
            .where(users.c.id.in_(members("ids", dialect)))
            .with_for_update(read=True, key_share=True)
        )
    ),
    into=_Id,
)
GRANT = Statement(insert(agent_grants))
REVOKE_OTHERS = Statement(
    per_dialect(
        lambda dialect: delete(agent_grants).where(
            and_(
                agent_grants.c.agent_id == bindparam("agent_id"),
                agent_grants.c.user_id.not_in(members("keep", dialect)),
            )
        )
    )
)


class AgentStore:
    """Agents over a Database. Lists are newest first. Units raise NoSuchRow("agent") where the
    owner has no such agent, and Duplicate("uq_agents_owner_name")."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, agent_id: str) -> Agent | None:
        """Any account's agent."""
        return await self._database.read_one(FIND(agent_id=agent_id))

    async def get_visible(self, viewer: str, agent_id: str) -> Agent | None:
        """The agent, if it is the viewer's own or granted to the viewer."""
        return await self._database.read_one(FIND_VISIBLE(viewer=viewer, agent_id=agent_id))

    async def list_all(self) -> list[Agent]:
        """Every account's agents."""
        return await self._database.scan(LIST())

    async def list_visible(self, viewer: str) -> list[Agent]:
        """The viewer's own agents and those granted to the viewer."""
        return await self._database.read(LIST_VISIBLE(viewer=viewer))

    async def grants(self, agent_id: str) -> list[str]:
        """Ids of the accounts that may use the agent besides its owner, oldest grant first."""
        return [row.id for row in await self._database.read(GRANTS(agent_id=agent_id))]

    def unknown(
        self, viewer: str, agent_ids: Sequence[str], *, everything: bool = False
    ) -> Unit[list[str]]:
        """Those of `agent_ids` that do not exist or that the viewer may not see, as given."""
        if not agent_ids:
            return []
        ids = list(agent_ids)
        rows = yield EXISTING(ids=ids) if everything else EXISTING_VISIBLE(viewer=viewer, ids=ids)
        known = {row.id for row in rows}
        return [one for one in ids if one not in known]

    def create(self, owner: str, agent_id: str, fields: AgentFields) -> Unit[None]:
        now = time.time()
        yield INSERT(
            id=agent_id,
            owner_id=owner,
            created_at=now,
            updated_at=now,
            version=1,
            **msgspec.structs.asdict(fields),
        )

    def replace(self, owner: str, agent_id: str, fields: AgentFields) -> Unit[Agent]:
        """Write every field anew; the version grows by one."""
        rows = yield REPLACE(
            owner=owner, agent_id=agent_id, now=time.time(), **msgspec.structs.asdict(fields)
        )
        if not rows:
            raise NoSuchRow("agent")
        changed: Agent = rows[0]
        return changed

    def delete(self, owner: str, agent_id: str) -> Unit[None]:
        """Remove the agent and its grants; its conversations stay and keep its name."""
        if not (yield DELETE(owner=owner, agent_id=agent_id)):
            raise NoSuchRow("agent")

    def set_grants(self, owner: str, agent_id: str, user_ids: Sequence[str]) -> Unit[list[str]]:
        """Let exactly these accounts use the agent; grants that stay keep their time.

        Returns the ids that name no account; if there are any, nothing was changed.
        """
        if not (yield LOCK(owner=owner, agent_id=agent_id)):
            raise NoSuchRow("agent")
        wanted = list(dict.fromkeys(user_ids))
        if wanted:
            known = {row.id for row in (yield KNOWN_USERS(ids=wanted))}
            if unknown := [one for one in wanted if one not in known]:
                return unknown
        yield REVOKE_OTHERS(agent_id=agent_id, keep=wanted)
        kept = {row.id for row in (yield GRANTS(agent_id=agent_id))}
        now = time.time()
        fresh: list[Mapping[str, Any]] = [
            {"agent_id": agent_id, "user_id": one, "created_at": now}
            for one in wanted
            if one not in kept
        ]
        if fresh:
            yield GRANT.many(fresh)
        return []
