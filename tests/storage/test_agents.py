"""AgentStore on every database."""

import asyncio

import msgspec
import pytest

from domain.ids import uuid7
from storage.agents import Agent, AgentFields, AgentStore
from storage.database import Database, Duplicate, NoSuchRow
from tests.storage.accounts import make_accounts

FULL = AgentFields(
    name="研究员 'Δ'",
    description="",
    system_prefix="You are careful.\n",
    system_context={"a": [1, 2.5, None, {"b": "ü"}]},
    workflows={"plan": ["look", "write"]},
    tools=["web_search"],
    sub_agent_ids=[],
    skills=[],
    knowledge_bases=["kb"],
    memory_type="session",
    max_loop_count=10,
    deep_thinking=True,
    provider_id="embedded/script",
    multimodal=True,
    multi_agent=True,
    mode="team",
)


@pytest.fixture
async def store(database: Database) -> AgentStore:
    await make_accounts(database, "ann", "bob", "cas")
    return AgentStore(database)


async def make(database: Database, store: AgentStore, owner: str, name: str) -> str:
    agent_id = uuid7()
    await database.write(lambda: store.create(owner, agent_id, AgentFields(name=name)))
    return agent_id


async def test_every_field_comes_back_with_its_type(database: Database, store: AgentStore) -> None:
    agent_id = uuid7()
    await database.write(lambda: store.create("ann", agent_id, FULL))
    found = await store.get_visible("ann", agent_id)
    assert found is not None
    for name in AgentFields.__struct_fields__:
        assert getattr(found, name) == getattr(FULL, name)
        assert type(getattr(found, name)) is type(getattr(FULL, name))
    assert (found.id, found.owner_id, found.version) == (agent_id, "ann", 1)
    assert type(found.created_at) is float
    assert found.created_at == found.updated_at


async def test_absent_fields_are_none(database: Database, store: AgentStore) -> None:
    agent_id = await make(database, store, "ann", "plain")
    found = await store.get(agent_id)
    assert found is not None
    empty = {name for name in Agent.__struct_fields__ if getattr(found, name) is None}
    assert empty == {
        "description",
        "system_prefix",
        "system_context",
        "workflows",
        "tools",
        "sub_agent_ids",
        "skills",
        "knowledge_bases",
        "memory_type",
        "max_loop_count",
        "provider_id",
        "mode",
    }


async def test_a_name_is_unique_per_owner_only(database: Database, store: AgentStore) -> None:
    await make(database, store, "ann", "one")
    await make(database, store, "bob", "one")
    with pytest.raises(Duplicate) as caught:
        await make(database, store, "ann", "one")
    assert caught.value.constraint == "uq_agents_owner_name"
    assert len(await store.list_visible("ann")) == 1


async def test_of_many_creates_of_one_name_one_wins(database: Database, store: AgentStore) -> None:
    results = await asyncio.gather(
        *(make(database, store, "ann", "one") for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, str) for result in results) == 1
    assert sum(isinstance(result, Duplicate) for result in results) == 7


async def test_a_stranger_sees_nothing_until_granted(database: Database, store: AgentStore) -> None:
    agent_id = await make(database, store, "ann", "one")
    assert await store.get_visible("bob", agent_id) is None
    assert await store.list_visible("bob") == []
    assert await database.write(lambda: store.unknown("bob", [agent_id])) == [agent_id]

    assert await database.write(lambda: store.set_grants("ann", agent_id, ["bob"])) == []
    assert await store.get_visible("bob", agent_id) == await store.get(agent_id)
    assert [agent.id for agent in await store.list_visible("bob")] == [agent_id]
    assert await database.write(lambda: store.unknown("bob", [agent_id])) == []
    assert await store.get_visible("cas", agent_id) is None


async def test_a_grantee_cannot_write(database: Database, store: AgentStore) -> None:
    agent_id = await make(database, store, "ann", "one")
    await database.write(lambda: store.set_grants("ann", agent_id, ["bob"]))
    fields = AgentFields(name="mine now")
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.replace("bob", agent_id, fields))
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.delete("bob", agent_id))
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.set_grants("bob", agent_id, ["cas"]))
    found = await store.get(agent_id)
    assert found is not None
    assert found.name == "one"
    assert await store.grants(agent_id) == ["bob"]


async def test_replace_writes_every_field(database: Database, store: AgentStore) -> None:
    agent_id = uuid7()
    await database.write(lambda: store.create("ann", agent_id, FULL))
    plain = AgentFields(name="plain")
    changed = await database.write(lambda: store.replace("ann", agent_id, plain))
    assert changed == await store.get(agent_id)
    assert (changed.version, changed.name, changed.tools, changed.system_context) == (
        2,
        "plain",
        None,
        None,
    )


async def test_replace_cannot_take_a_name(database: Database, store: AgentStore) -> None:
    await make(database, store, "ann", "one")
    two = await make(database, store, "ann", "two")
    with pytest.raises(Duplicate):
        await database.write(lambda: store.replace("ann", two, AgentFields(name="one")))


async def test_delete_takes_the_grants_along(database: Database, store: AgentStore) -> None:
    agent_id = await make(database, store, "ann", "one")
    await database.write(lambda: store.set_grants("ann", agent_id, ["bob"]))
    await database.write(lambda: store.delete("ann", agent_id))
    assert await store.get(agent_id) is None
    assert await store.grants(agent_id) == []
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.delete("ann", agent_id))


async def test_lists_are_newest_first(database: Database, store: AgentStore) -> None:
    made = [await make(database, store, "ann", f"a{number}") for number in range(3)]
    await make(database, store, "bob", "other")
    assert [agent.id for agent in await store.list_visible("ann")] == made[::-1]
    assert len(await store.list_all()) == 4


async def test_grants_are_set_as_a_whole(database: Database, store: AgentStore) -> None:
    agent_id = await make(database, store, "ann", "one")
    for wanted in (["bob", "cas", "bob"], ["cas"], []):
        await database.write(lambda wanted=wanted: store.set_grants("ann", agent_id, wanted))
        assert sorted(await store.grants(agent_id)) == sorted(set(wanted))


async def test_unknown_accounts_change_no_grant(database: Database, store: AgentStore) -> None:
    agent_id = await make(database, store, "ann", "one")
    await database.write(lambda: store.set_grants("ann", agent_id, ["bob"]))
    unit = lambda: store.set_grants("ann", agent_id, ["cas", "nobody"])  # noqa: E731
    assert await database.write(unit) == ["nobody"]
    assert await store.grants(agent_id) == ["bob"]


async def test_grants_set_at_once_leave_one_of_the_sets(
    database: Database, store: AgentStore
) -> None:
    agent_id = await make(database, store, "ann", "one")
    sets = [["bob"], ["cas"], ["bob", "cas"], []] * 3
    await asyncio.gather(
        *(
            database.write(lambda wanted=wanted: store.set_grants("ann", agent_id, wanted))
            for wanted in sets
        )
    )
    assert sorted(await store.grants(agent_id)) in ([], ["bob"], ["cas"], ["bob", "cas"])


async def test_unknown_takes_many_ids(database: Database, store: AgentStore) -> None:
    agent_id = await make(database, store, "ann", "one")
    ids = [agent_id, *(f"no-{number}" for number in range(40_000))]
    assert await database.write(lambda: store.unknown("ann", ids)) == ids[1:]
    assert await database.write(lambda: store.unknown("cas", ids, everything=True)) == ids[1:]


def test_fields_are_columns_of_the_row() -> None:
    row = {field.name: field.type for field in msgspec.structs.fields(Agent)}
    for field in msgspec.structs.fields(AgentFields):
        assert row[field.name] == field.type
