"""ToolPreferences on every database."""

import pytest

from storage.database import Database, Orphan
from storage.tool_preferences import ToolPreferences
from tests.storage.accounts import make_accounts


@pytest.fixture
async def store(database: Database) -> ToolPreferences:
    await make_accounts(database, "ann", "bob")
    return ToolPreferences(database)


async def test_each_account_has_its_own_by_kind(database: Database, store: ToolPreferences) -> None:
    assert await store.of("ann", "mcp") == {}
    for owner, kind, tool, enabled in [
        ("ann", "mcp", "one", False),
        ("ann", "mcp", "two", True),
        ("ann", "a2a", "one", True),
        ("bob", "mcp", "one", True),
    ]:
        await database.write(lambda: store.put(owner, kind, tool, enabled=enabled))
    found = await store.of("ann", "mcp")
    assert found == {"one": False, "two": True}
    assert type(found["one"]) is bool
    assert await store.of("ann", "a2a") == {"one": True}
    assert await store.of("bob", "mcp") == {"one": True}
    assert await store.of("bob", "a2a") == {}


async def test_the_last_word_counts(database: Database, store: ToolPreferences) -> None:
    for enabled in (True, False, True, False):
        await database.write(lambda: store.put("ann", "mcp", "one", enabled=enabled))
    assert await store.of("ann", "mcp") == {"one": False}


async def test_what_is_gone_is_forgotten_for_everybody(
    database: Database, store: ToolPreferences
) -> None:
    for owner in ("ann", "bob"):
        for kind in ("mcp", "a2a"):
            await database.write(lambda: store.put(owner, kind, "one", enabled=False))
    await database.write(lambda: store.forget("mcp", "one"))
    await database.write(lambda: store.forget("mcp", "never there"))
    for owner in ("ann", "bob"):
        assert await store.of(owner, "mcp") == {}
        assert await store.of(owner, "a2a") == {"one": False}


async def test_nobody_has_none(database: Database, store: ToolPreferences) -> None:
    with pytest.raises(Orphan):
        await database.write(lambda: store.put("nobody", "mcp", "one", enabled=True))
    assert await store.of("nobody", "mcp") == {}
