"""SkillStore on every database."""

import msgspec
import pytest

from domain.ids import uuid7
from storage.database import Database, Duplicate, NoSuchRow, Orphan
from storage.skills import SYSTEM, Skill, SkillStore, of_user
from storage.tool_preferences import ToolPreferences
from storage.users import UserStore
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
        bundle=uuid7(),
        created_at=at,
        updated_at=at,
        version="1.2.0",
        source_type="github",
        source_ref="https://github.com/o/r/tree/main/a",
        runtime_type="mcp",
        entry={"server": "s"},
        refs=["a"],
        enabled=False,
        last_sync_at=2.5,
    )


async def test_every_field_comes_back_with_its_type(database: Database, store: SkillStore) -> None:
    made = skill("a")
    await database.write(lambda: store.insert(made))
    found = await store.get(made.id)
    assert found == made
    assert list(found.files) == ["b/c.py", "a"]
    assert (found.dimension, type(found.created_at)) == ("user", float)


async def test_what_is_disowned_outlives_its_account(database: Database, store: SkillStore) -> None:
    own, everybodys, his = skill("a"), skill("b", "ann", SYSTEM), skill("c", "bob", SYSTEM)
    for made in (own, everybodys, his):
        await database.write(lambda made=made: store.insert(made))
    await database.write(lambda: store.disown("ann"))
    assert await store.get(own.id) == own
    assert await store.get(everybodys.id) == msgspec.structs.replace(everybodys, owner_id=None)
    await database.write(lambda: UserStore(database).delete("ann"))
    assert {one.id for one in await store.list_all()} == {everybodys.id, his.id}
    assert await store.get(his.id) == his


async def test_a_name_stands_once_in_its_place(database: Database, store: SkillStore) -> None:
    first, second, system = skill("a"), skill("a"), skill("a", "ann", SYSTEM)
    await database.write(lambda: store.insert(first))
    await database.write(lambda: store.insert(system))
    with pytest.raises(Duplicate):
        await database.write(lambda: store.insert(second))
    assert await store.bundles() == {first.bundle, system.bundle}
    brief = msgspec.structs.replace(system, content="")
    assert await database.write(lambda: store.lock_in(SYSTEM)) == [brief]
    assert await database.write(lambda: store.lock(first.id)) == first
    assert await database.write(lambda: store.lock(second.id)) is None


async def test_what_is_replaced_keeps_its_past(database: Database, store: SkillStore) -> None:
    made = skill("a", "ann", SYSTEM)
    await database.write(lambda: store.insert(made))
    new = msgspec.structs.replace(
        skill("b", "bob", SYSTEM, 8.0), id=made.id, enabled=True, last_sync_at=None, files={"x": 1}
    )
    await database.write(lambda: store.replace(new))
    kept = {"enabled": False, "last_sync_at": 2.5, "created_at": 1.5}
    assert await store.get(made.id) == msgspec.structs.replace(new, **kept)
    await database.write(lambda: store.enable(made.id, enabled=True, now=9.0))
    await database.write(lambda: store.synced(made.id, 10.0))
    found = await store.get(made.id)
    assert found is not None
    assert (found.enabled, found.updated_at, found.last_sync_at) == (True, 9.0, 10.0)
    nobody = msgspec.structs.replace(new, id=uuid7())
    for unit in (
        lambda: store.replace(nobody),
        lambda: store.enable(nobody.id, enabled=True, now=9.0),
    ):
        with pytest.raises(NoSuchRow):
            await database.write(unit)
    await database.write(lambda: store.synced(nobody.id, 10.0))


async def test_a_skill_that_goes_takes_what_accounts_wanted_of_it(
    database: Database, store: SkillStore
) -> None:
    preferences = ToolPreferences(database)
    gone, stays = skill("a", "ann", SYSTEM), skill("b", "ann", SYSTEM)
    for made in (gone, stays):
        await database.write(lambda made=made: store.insert(made))
        await database.write(
            lambda made=made: preferences.put("bob", "skill", made.id, enabled=False)
        )
    await database.write(lambda: store.delete(gone.id))
    assert await preferences.of("bob", "skill") == {stays.id: False}


async def test_owners_see_their_own_and_the_systems(database: Database, store: SkillStore) -> None:
    for made in (skill("a", at=3.0), skill("b", "bob", at=2.0), skill("c", "ann", SYSTEM, 1.0)):
        await database.write(lambda made=made: store.insert(made))
    assert [one.name for one in await store.list_visible("ann")] == ["c", "a"]
    assert [one.name for one in await store.list_visible("bob")] == ["c", "b"]
    assert [one.name for one in await store.list_all()] == ["c", "b", "a"]
    assert [one.name for one in await store.list_in([of_user("bob")])] == ["b"]
    assert await store.list_in([]) == []
    [brief] = await store.list_briefly(SYSTEM)
    [whole] = await store.list_in([SYSTEM])
    assert (brief, whole.content) == (msgspec.structs.replace(whole, content=""), "---\n")


async def test_rewriting_and_deleting_need_a_skill(database: Database, store: SkillStore) -> None:
    made = skill("a")
    await database.write(lambda: store.insert(made))
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
        await database.write(lambda: store.insert(skill("a", "carol")))
