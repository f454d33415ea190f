"""McpStore on every database."""

import msgspec
import pytest

from domain.ids import uuid7
from storage.database import Database, Duplicate, NoSuchRow
from storage.mcp import McpServer, McpStore, McpTool, OfferedTool
from tests.storage.accounts import make_accounts


def server(owner: str, name: str, at: float = 1.0, **fields: object) -> McpServer:
    made = McpServer(
        id=uuid7(),
        owner_id=owner,
        name=name,
        protocol="streamable_http",
        url="https://mcp.example.com/mcp",
        api_key_sealed="sealed",
        api_key_hint="cret",
        disabled=False,
        created_at=at,
        refreshed_at=at,
    )
    return msgspec.structs.replace(made, **fields)


def tool(of: McpServer, position: int, name: str) -> McpTool:
    schema = {"type": "object", "properties": {"数": {"type": "integer"}}}
    return McpTool(of.id, of.owner_id, position, name, f"{name}/remote", "Does \n'it'.", schema)


@pytest.fixture
async def store(database: Database) -> McpStore:
    await make_accounts(database, "ann", "bob")
    return McpStore(database)


async def keep(database: Database, store: McpStore, made: McpServer, *tools: McpTool) -> None:
    await database.write(lambda: store.insert(made))
    await database.write(lambda: store.put_tools(made.id, tools))


async def test_every_field_comes_back_with_its_type(database: Database, store: McpStore) -> None:
    made = server("ann", "文档", 1710000000.123, protocol="sse", disabled=True)
    await keep(database, store, made)
    found = await store.get(made.id)
    assert found == made == await store.find_own("ann", "文档")
    assert type(found.disabled) is bool
    assert type(found.created_at) is float
    enabled = await database.write(lambda: store.refreshed(made.id, disabled=False, now=2.0))
    assert enabled == msgspec.structs.replace(made, disabled=False, refreshed_at=2.0)


async def test_owners_see_their_own_in_order(database: Database, store: McpStore) -> None:
    new, old = server("ann", "new", 2.0), server("ann", "old", 1.0)
    his = server("bob", "old", 3.0)
    await keep(database, store, new, tool(new, 1, "n2"), tool(new, 0, "n1"))
    await keep(database, store, old, tool(old, 0, "o"))
    await keep(database, store, his, tool(his, 0, "o"))
    assert [one.id for one in await store.list_own("ann")] == [old.id, new.id]
    assert [one.id for one in await store.list_all()] == [old.id, new.id, his.id]
    assert [one.name for one in await store.tools_own("ann")] == ["o", "n1", "n2"]
    assert [one.owner_id for one in await store.tools_all()] == ["ann", "ann", "ann", "bob"]
    named = await store.tools_named("ann", ["n2", "o", "none"])
    assert [(one.name, one.server_name) for one in named] == [("o", "old"), ("n2", "new")]
    assert named[0] == OfferedTool(**msgspec.structs.asdict(tool(old, 0, "o")), server_name="old")
    assert await store.tools_named("ann", []) == []
    assert await store.find_own("bob", "new") is None
    assert [one.owner_id for one in await store.find_named("old")] == ["ann", "bob"]
    assert await database.write(lambda: store.count("ann")) == 2
    names = await database.write(lambda: store.names("ann"))
    assert names[new.id, "n2/remote"] == "n2"
    assert len(names) == 3


async def test_names_stand_once_for_an_owner(database: Database, store: McpStore) -> None:
    one, two, his = server("ann", "one"), server("ann", "two"), server("bob", "one")
    await keep(database, store, one, tool(one, 0, "same"))
    await keep(database, store, his, tool(his, 0, "same"))
    with pytest.raises(Duplicate) as refused:
        await database.write(lambda: store.insert(server("ann", "one")))
    assert refused.value.constraint == "uq_mcp_servers_owner_name"
    await keep(database, store, two)
    with pytest.raises(Duplicate) as refused:
        await database.write(lambda: store.put_tools(two.id, [tool(two, 0, "same")]))
    assert refused.value.constraint == "uq_mcp_tools_owner_name"


async def test_tools_are_replaced_hidden_and_deleted_with_their_server(
    database: Database, store: McpStore
) -> None:
    made = server("ann", "one")
    await keep(database, store, made, tool(made, 0, "a"), tool(made, 1, "b"))
    await database.write(lambda: store.put_tools(made.id, [tool(made, 0, "b")]))
    assert [one.name for one in await store.tools_own("ann")] == ["b"]
    await database.write(lambda: store.refreshed(made.id, disabled=True, now=2.0))
    assert await store.tools_own("ann") == await store.tools_named("ann", ["b"]) == []
    for owner in ("bob", "ann"):
        if owner == "bob":
            with pytest.raises(NoSuchRow):
                await database.write(lambda: store.delete("bob", made.id))
        else:
            await database.write(lambda: store.delete("ann", made.id))
    assert await store.get(made.id) is None
    assert await database.write(lambda: store.names("ann")) == {}
