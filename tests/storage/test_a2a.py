"""A2aStore on every database."""

import msgspec
import pytest

from domain.ids import uuid7
from storage.a2a import A2aServer, A2aStore
from storage.database import Database, Duplicate, NoSuchRow


def agent(place: str, at: float = 1.0, **fields: object) -> A2aServer:
    made = A2aServer(
        id=uuid7(),
        base_url=f"https://{place}.example.com",
        tool_name=f"a2a_{place}",
        name="Echo 数",
        description="Says it\nagain.",
        input_modes=["text/plain"],
        output_modes=[],
        streaming=True,
        push_notifications=False,
        card={"name": "Echo 数", "skills": [{"id": "x"}], "n": 1.5},
        enabled=True,
        error="",
        created_at=at,
        refreshed_at=at,
    )
    return msgspec.structs.replace(made, **fields)


@pytest.fixture
def store(database: Database) -> A2aStore:
    return A2aStore(database)


async def test_every_field_comes_back_with_its_type(database: Database, store: A2aStore) -> None:
    made = agent("one", 1710000000.123)
    none = agent("two", card=None, error="ConnectError", enabled=False)
    await database.write(lambda: store.insert(made))
    await database.write(lambda: store.insert(none))
    assert await store.get(made.id) == made
    found = await store.get(none.id)
    assert found == none
    assert (type(found.enabled), type(found.created_at)) == (bool, float)
    assert await database.write(lambda: store.lock(made.id)) == made
    assert await store.get("nowhere") is None
    assert await database.write(lambda: store.lock("nowhere")) is None


async def test_the_oldest_comes_first(database: Database, store: A2aStore) -> None:
    new, old = agent("new", 2.0), agent("old", 1.0)
    for made in (new, old):
        await database.write(lambda: store.insert(made))
    assert [one.id for one in await store.list_all()] == [old.id, new.id]
    assert await database.write(store.count) == 2
    assert await database.write(store.tool_names) == {"a2a_new", "a2a_old"}


async def test_an_update_leaves_what_is_fixed(database: Database, store: A2aStore) -> None:
    made, other = agent("one"), agent("other")
    for each in (made, other):
        await database.write(lambda: store.insert(each))
    changed = agent("else", 9.0, id=made.id, name="New", card=None, enabled=False)
    await database.write(lambda: store.update(changed))
    assert await store.get(made.id) == msgspec.structs.replace(
        changed, base_url=made.base_url, tool_name=made.tool_name, created_at=made.created_at
    )
    assert await store.get(other.id) == other
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.update(agent("nowhere")))


async def test_addresses_and_names_stand_once(database: Database, store: A2aStore) -> None:
    made = agent("one")
    await database.write(lambda: store.insert(made))
    for again, constraint in [
        (agent("two", base_url=made.base_url), "uq_a2a_servers_base_url"),
        (agent("two", tool_name=made.tool_name), "uq_a2a_servers_tool_name"),
    ]:
        with pytest.raises(Duplicate) as taken:
            await database.write(lambda: store.insert(again))
        assert taken.value.constraint == constraint
    await database.write(lambda: store.delete(made.id))
    assert await store.list_all() == []
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.delete(made.id))
