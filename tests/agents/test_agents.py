"""Agents: who may see, use and change them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import UNSET

from domain.errors import Conflict, Forbidden, NotFound, Unusable
from domain.providers import ProviderFields
from generated.sage.models import AgentConfig
from handlers.sage.agent import fields_of, shown
from storage.agents import AgentFields
from storage.database import Database
from tests.providers.parts import ANN, BOB, CAS, ROOT, Parts, parts, told


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Parts]:
    async with parts(database) as made:
        yield made


async def refused(attempt: object, error: type[Exception], key: str) -> None:
    with pytest.raises(error) as caught:
        await attempt
    assert caught.value.key == key


async def test_create_get_replace_delete(here: Parts) -> None:
    made = await here.agents.create(ANN, AgentFields(name="  one  ", provider_id=""))
    found = await here.agents.get(ANN, made)
    assert (found.name, found.owner_id, found.provider_id) == ("one", "ann", None)
    changed = await here.agents.replace(
        ANN, made, AgentFields(name="two", provider_id="embedded/script"), stated_id=made
    )
    assert (changed.name, changed.provider_id) == ("two", "embedded/script")
    await here.agents.delete(ANN, made)
    await refused(here.agents.get(ANN, made), NotFound, "agent.not_found")
    kinds = ["agent.created", "agent.replaced", "agent.deleted"]
    assert await told(here.log, f"agent:{made}") == kinds


async def test_names_are_unique_per_owner(here: Parts) -> None:
    await here.agents.create(ANN, AgentFields(name="one"))
    two = await here.agents.create(ANN, AgentFields(name="two"))
    await here.agents.create(BOB, AgentFields(name="one"))
    for attempt in (
        here.agents.create(ANN, AgentFields(name=" one ")),
        here.agents.replace(ANN, two, AgentFields(name="one")),
    ):
        await refused(attempt, Conflict, "agent.exists")
    await refused(here.agents.create(ANN, AgentFields(name=" \t")), Unusable, "agent.name_blank")


async def test_references_must_exist_for_the_owner(here: Parts) -> None:
    provider = await here.providers.create(
        ANN, ProviderFields(base_url="https://93.184.216.34", api_key="sk-abcdefgh", model="m")
    )
    hers = await here.agents.create(ANN, AgentFields(name="sub", provider_id=provider))
    top = await here.agents.create(ANN, AgentFields(name="top", sub_agent_ids=[hers]))
    with_provider = AgentFields(name="x", provider_id=provider)
    with_sub = AgentFields(name="x", sub_agent_ids=[hers])
    for caller in (BOB, ROOT):
        await refused(here.agents.create(caller, with_provider), Unusable, "agent.provider_unknown")
    await refused(here.agents.create(BOB, with_sub), Unusable, "agent.sub_agent_unknown")
    await refused(
        here.agents.create(ANN, AgentFields(name="x", sub_agent_ids=["no", hers])),
        Unusable,
        "agent.sub_agent_unknown",
    )
    await refused(
        here.agents.replace(ANN, top, AgentFields(name="top", sub_agent_ids=[top])),
        Unusable,
        "agent.sub_agent_self",
    )
    await here.agents.set_grants(ANN, hers, ["bob"])
    await here.agents.create(BOB, with_sub)
    await here.agents.replace(ROOT, top, AgentFields(name="top", provider_id=provider))
    assert [agent.name for agent in await here.agents.visible(ANN)] == ["top", "sub"]


async def test_whatever_else_is_named_may_not_exist_yet(here: Parts) -> None:
    await here.agents.create(
        ANN,
        AgentFields(name="a", tools=["no"], skills=["no"], knowledge_bases=["no"], mode="odd"),
    )


async def test_to_strangers_it_does_not_exist(here: Parts) -> None:
    made = await here.agents.create(ANN, AgentFields(name="one"))
    for agent_id in (made, "nothing"):
        for attempt in (
            here.agents.get(BOB, agent_id),
            here.agents.replace(BOB, agent_id, AgentFields(name="x")),
            here.agents.delete(BOB, agent_id),
            here.agents.grants(BOB, agent_id),
            here.agents.set_grants(BOB, agent_id, []),
        ):
            await refused(attempt, NotFound, "agent.not_found")
    assert await here.agents.visible(BOB) == []


async def test_a_granted_account_reads_and_changes_nothing(here: Parts) -> None:
    made = await here.agents.create(ANN, AgentFields(name="one"))
    await here.agents.set_grants(ANN, made, ["ann", "bob", "bob"])
    assert await here.agents.grants(ANN, made) == ["bob"]
    assert (await here.agents.get(BOB, made)).name == "one"
    assert [agent.id for agent in await here.agents.visible(BOB)] == [made]
    for attempt in (
        here.agents.replace(BOB, made, AgentFields(name="x")),
        here.agents.delete(BOB, made),
        here.agents.grants(BOB, made),
        here.agents.set_grants(BOB, made, ["cas"]),
    ):
        await refused(attempt, Forbidden, "agent.forbidden")
    await refused(
        here.agents.set_grants(ANN, made, ["cas", "nobody"]), Unusable, "agent.user_unknown"
    )
    assert await here.agents.grants(ANN, made) == ["bob"]
    await here.agents.set_grants(ANN, made, [])
    await refused(here.agents.get(BOB, made), NotFound, "agent.not_found")


async def test_an_administrator_changes_all_for_their_owners(here: Parts) -> None:
    made = await here.agents.create(ANN, AgentFields(name="one"))
    assert [agent.id for agent in await here.agents.visible(ROOT)] == [made]
    await here.agents.replace(ROOT, made, AgentFields(name="two"))
    await here.agents.set_grants(ROOT, made, ["cas", "ann"])
    assert await here.agents.grants(ROOT, made) == ["cas"]
    found = await here.agents.get(CAS, made)
    assert (found.name, found.owner_id) == ("two", "ann")
    await here.agents.delete(ROOT, made)
    assert await here.agents.visible(ANN) == []


async def test_the_stated_id_is_the_paths(here: Parts) -> None:
    made = await here.agents.create(ANN, AgentFields(name="one"))
    for stated in ("", None, made):
        await here.agents.replace(ANN, made, AgentFields(name="one"), stated_id=stated)
    await refused(
        here.agents.replace(ANN, made, AgentFields(name="one"), stated_id="other"),
        Unusable,
        "agent.id_mismatch",
    )


async def test_created_at_once_one_has_the_name(here: Parts) -> None:
    results = await asyncio.gather(
        *(here.agents.create(ANN, AgentFields(name="one")) for _ in range(6)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Conflict) for one in results) == 5
    ((made,),) = [[one for one in results if isinstance(one, str)]]
    assert await told(here.log, f"agent:{made}") == ["agent.created"]


async def test_the_wire_form_goes_there_and_back(here: Parts) -> None:
    body = AgentConfig(
        name="Research Agent",
        id="ignored",
        user_id="bob",
        systemPrefix="You are careful.",
        systemContext={"k": 1},
        availableWorkflows={"w": ["a", "b"]},
        availableTools=["web_search"],
        memoryType="session",
        maxLoopCount=10,
        llm_provider_id="embedded/script",
        deepThinking=None,
        agentMode=UNSET,
    )
    made = await here.agents.create(ANN, fields_of(body))
    read = shown(await here.agents.get(ANN, made))
    assert (read.id, read.user_id) == (made, "ann")
    assert (read.systemContext, read.availableWorkflows) == ({"k": 1}, {"w": ["a", "b"]})
    assert (read.agentMode, read.availableSkills, read.deepThinking) == (None, None, False)
    assert read.created_at.endswith("Z")
