"""Agents: who may see, use and change them.

The owner and administrators change an agent; accounts the owner has granted it to read and use it;
to everyone else it does not exist. Tools, skills, workflows and knowledge bases may be named
before they exist; a provider or a sub-agent must exist for the agent's owner.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, Forbidden, NotFound, Unusable
from domain.ids import uuid7
from storage.agents import Agent, AgentFields, AgentStore
from storage.database import Database, Duplicate, NoSuchRow, Unit
from storage.events import EventLog
from storage.providers import ProviderStore

Deleted = Callable[[str], Awaitable[None]]


class Agents:
    """Agents of every account.

    `embedded` are the ids of the system's providers. Where an agent is not visible to the caller,
    every method raises NotFound("agent.not_found"); where it is but is not the caller's to
    change, Forbidden("agent.forbidden").
    """

    def __init__(
        self,
        database: Database,
        agents: AgentStore,
        providers: ProviderStore,
        log: EventLog,
        *,
        embedded: frozenset[str],
    ) -> None:
        self._database = database
        self._agents = agents
        self._providers = providers
        self._log = log
        self._embedded = embedded
        self._deleted: list[Deleted] = []

    def on_deleted(self, deleted: Deleted) -> None:
        """Call `deleted` with the id of each agent that is gone: its files are erased."""
        self._deleted.append(deleted)

    async def visible(self, caller: Caller) -> list[Agent]:
        """The caller's own agents and those granted to the caller, or all for an administrator;
        newest first."""
        if caller.is_admin:
            return await self._agents.list_all()
        return await self._agents.list_visible(caller.user_id)

    async def get(self, caller: Caller, agent_id: str) -> Agent:
        """An agent that the caller may read and use."""
        if caller.is_admin:
            found = await self._agents.get(agent_id)
        else:
            found = await self._agents.get_visible(caller.user_id, agent_id)
        if found is None:
            raise NotFound("agent.not_found")
        return found

    async def usable(
        self, caller: Caller, ids: Sequence[str], *, lent: Sequence[str], lender: str
    ) -> tuple[list[Agent], list[str]]:
        """Of these agents those that the caller may use, `lent` being what `lender` may use and
        lends; and the ids of the others."""
        found: list[Agent] = []
        unknown: list[str] = []
        for one in dict.fromkeys(ids):
            agent = await self._agents.get_visible(caller.user_id, one)
            if agent is None and caller.is_admin:
                agent = await self._agents.get(one)
            if agent is None and one in lent:
                agent = await self._agents.get_visible(lender, one)
            if agent is None:
                unknown.append(one)
            else:
                found.append(agent)
        return found, unknown

    async def create(self, caller: Caller, fields: AgentFields) -> str:
        """Make an agent of the caller's and return its id.

        Raises Conflict("agent.exists"); Unusable("agent.name_blank"),
        Unusable("agent.provider_unknown"), Unusable("agent.sub_agent_unknown").
        """
        fields = _cleaned(fields)
        agent_id = uuid7()

        def unit() -> Unit[None]:
            yield from self._check(caller.user_id, fields, everything=caller.is_admin)
            yield from self._agents.create(caller.user_id, agent_id, fields)
            made = deed("agent.created", caller, name=fields.name)
            yield from self._log.append(f"agent:{agent_id}", [made])

        try:
            await self._database.write(unit)
        except Duplicate:
            raise Conflict("agent.exists") from None
        return agent_id

    async def replace(
        self, caller: Caller, agent_id: str, fields: AgentFields, *, stated_id: str | None = None
    ) -> Agent:
        """Write every field of an agent anew; `stated_id` is the id that the new fields carry.

        Raises what `create` raises, and Unusable("agent.id_mismatch").
        """
        if stated_id and stated_id != agent_id:
            raise Unusable("agent.id_mismatch")
        fields = _cleaned(fields)
        owner = (await self._writable(caller, agent_id)).owner_id
        if agent_id in (fields.sub_agent_ids or ()):
            raise Unusable("agent.sub_agent_self")
        everything = caller.is_admin and owner == caller.user_id

        def unit() -> Unit[Agent]:
            yield from self._check(owner, fields, everything=everything)
            changed = yield from self._agents.replace(owner, agent_id, fields)
            told = deed("agent.replaced", caller, name=fields.name, version=changed.version)
            yield from self._log.append(f"agent:{agent_id}", [told])
            return changed

        try:
            return await self._database.write(unit)
        except Duplicate:
            raise Conflict("agent.exists") from None
        except NoSuchRow:
            raise NotFound("agent.not_found") from None

    async def delete(self, caller: Caller, agent_id: str) -> None:
        """Remove an agent and its grants. Its conversations stay."""
        owner = (await self._writable(caller, agent_id)).owner_id

        def unit() -> Unit[None]:
            yield from self._agents.delete(owner, agent_id)
            yield from self._log.append(f"agent:{agent_id}", [deed("agent.deleted", caller)])

        try:
            await self._database.write(unit)
        except NoSuchRow:
            raise NotFound("agent.not_found") from None
        for deleted in self._deleted:
            await deleted(agent_id)

    async def grants(self, caller: Caller, agent_id: str) -> list[str]:
        """Ids of the accounts that the agent is granted to."""
        await self._writable(caller, agent_id)
        return await self._agents.grants(agent_id)

    async def set_grants(self, caller: Caller, agent_id: str, user_ids: Sequence[str]) -> None:
        """Grant the agent to exactly these accounts; the owner among them is passed over.

        Raises Unusable("agent.user_unknown"), and then changes nothing.
        """
        owner = (await self._writable(caller, agent_id)).owner_id
        wanted = [one for one in dict.fromkeys(user_ids) if one != owner]

        def unit() -> Unit[None]:
            unknown = yield from self._agents.set_grants(owner, agent_id, wanted)
            if unknown:
                raise Unusable("agent.user_unknown", user_id=_some(unknown))
            told = deed("agent.granted", caller, user_ids=wanted)
            yield from self._log.append(f"agent:{agent_id}", [told])

        try:
            await self._database.write(unit)
        except NoSuchRow:
            raise NotFound("agent.not_found") from None

    async def _writable(self, caller: Caller, agent_id: str) -> Agent:
        found = await self.get(caller, agent_id)
        if found.owner_id != caller.user_id and not caller.is_admin:
            raise Forbidden("agent.forbidden")
        return found

    def _check(self, owner: str, fields: AgentFields, *, everything: bool) -> Unit[None]:
        """That the owner has the provider and may use the sub-agents."""
        provider_id = fields.provider_id
        if provider_id and provider_id not in self._embedded:
            own = yield from self._providers.is_own(owner, provider_id)
            if not own:
                raise Unusable("agent.provider_unknown", provider_id=provider_id[:128])
        unknown = yield from self._agents.unknown(
            owner, fields.sub_agent_ids or (), everything=everything
        )
        if unknown:
            raise Unusable("agent.sub_agent_unknown", agent_id=_some(unknown))


def _cleaned(fields: AgentFields) -> AgentFields:
    """Without white space around the name; what is "" was not given."""
    name = fields.name.strip()
    if not name:
        raise Unusable("agent.name_blank")
    return msgspec.structs.replace(
        fields,
        name=name,
        provider_id=fields.provider_id or None,
        memory_type=fields.memory_type or None,
    )


def _some(ids: Sequence[str]) -> str:
    """The first few ids, for a message."""
    told = ", ".join(one[:64] for one in ids[:5])
    return told if len(ids) <= 5 else f"{told}, …"
