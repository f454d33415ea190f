"""SkillStore on every database."""

import msgspec
import pytest

from domain.ids import uuid7
from storage.database import Database, Duplicate, NoSuchRow, Orphan
from storage.skills import SYSTEM, Skill, SkillStore, of_user
from tests.storage.accounts import make_accounts


@pytest.fixture
async def store(database: Database) -> SkillStore:
    await make_accounts(database, "ann", "bob")
    return SkillStore(database)


def skill(name: str, owner: str = "ann", place: str = "", at: float = 1.5) -> Skill:
    return Skill(
        id=uuid7(),
        owner_id=owner,
        agent_id=None,
        place=place or of_user(owner),
        name=name,
        description="说明",
        content="---\n",
        files={"b/c.py": 3, "a": 2},
        digest="d",
        created_at=at,
        updated_at=at,
    )


async def test_every_field_comes_back_with_its_type(database: Database, store: SkillStore) -> None:
    made = skill("a")
    assert await database.write(lambda: store.put(made)) == []
    found = await store.get(made.id)
    assert found == made
    assert list(found.files) == ["b/c.py", "a"]
    assert (found.dimension, type(found.created_at)) == ("user", float)


async def test_a_name_stands_once_in_its_place(database: Database, store: SkillStore) -> None:
    first, second, system = skill("a"), skill("a"), skill("a", "ann", SYSTEM)
    assert await database.write(lambda: store.put(first)) == []
    assert await database.write(lambda: store.put(system)) == []
    assert await database.write(lambda: store.put(second)) == [first.id]
    assert await store.ids() == {second.id, system.id}
    assert await database.write(lambda: store.count(SYSTEM)) == 1
    again = msgspec.structs.replace(second, name="b", id=system.id)
    with pytest.raises(Duplicate):
        await database.write(lambda: store.put(again))
    assert await store.ids() == {second.id, system.id}


async def test_owners_see_their_own_and_the_systems(database: Database, store: SkillStore) -> None:
    for made in (skill("a", at=3.0), skill("b", "bob", at=2.0), skill("c", "ann", SYSTEM, 1.0)):
        await database.write(lambda made=made: store.put(made))
    assert [one.name for one in await store.list_visible("ann")] == ["c", "a"]
    assert [one.name for one in await store.list_visible("bob")] == ["c", "b"]
    assert [one.name for one in await store.list_all()] == ["c", "b", "a"]
    assert [one.name for one in await store.list_in([of_user("bob")])] == ["b"]
    assert await store.list_in([]) == []


async def test_rewriting_and_deleting_need_a_skill(database: Database, store: SkillStore) -> None:
    made = skill("a")
    await database.write(lambda: store.put(made))
    new = {"description": "x", "content": "y", "digest": "z", "now": 9.0}
    await database.write(lambda: store.rewrite(made.id, **new))
    found = await store.get(made.id)
    assert found is not None
    assert (found.description, found.content, found.digest, found.updated_at) == (
        "x",
        "y",
        "z",
        9.0,
    )
    await database.write(lambda: store.delete(made.id))
    for unit in (lambda: store.delete(made.id), lambda: store.rewrite(made.id, **new)):
        with pytest.raises(NoSuchRow):
            await database.write(unit)


async def test_nobody_has_no_skill(database: Database, store: SkillStore) -> None:
    with pytest.raises(Orphan):
        await database.write(lambda: store.put(skill("a", "carol")))
