"""McpStore on every database."""

import msgspec
import pytest

from domain.ids import uuid7
from storage.database import Database, Duplicate, NoSuchRow
from storage.mcp import McpServer, McpStore, McpTool, OfferedTool, PlatformServer
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
    assert [one.owner_id for one in await store.tools_own("bob")] == ["bob"]
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


# --- the platform's -----------------------------------------------------------------------------


def shared(name: str, at: float = 1.0, **fields: object) -> PlatformServer:
    made = PlatformServer(
        id=uuid7(),
        name=name,
        protocol="stdio",
        created_at=at,
        refreshed_at=at,
        enabled=True,
        description="文档",
        config_sealed="sealed",
        error="",
    )
    return msgspec.structs.replace(made, **fields)


def shared_tool(of: PlatformServer, position: int, name: str) -> McpTool:
    return McpTool(of.id, None, position, name, f"{name}/remote", "", {"type": "object"})


async def offer(database: Database, store: McpStore, made: PlatformServer, *tools: McpTool) -> None:
    await database.write(lambda: store.insert_platform(made))
    await database.write(lambda: store.put_tools(made.id, tools))


async def test_the_platforms_fields_come_back(database: Database, store: McpStore) -> None:
    made = shared("docs", 1710000000.5, enabled=False, error="ConnectError")
    await offer(database, store, made)
    found = await store.get_platform(made.id)
    assert found == made
    assert type(found.enabled) is bool
    assert await database.write(lambda: store.lock_platform(made.id)) == made
    assert await database.write(lambda: store.lock_platform_named("docs")) == made
    assert await database.write(store.count_platform) == 1
    changed = shared("other", 9.0, id=made.id, protocol="sse")
    await database.write(lambda: store.update_platform(changed))
    assert await store.get_platform(made.id) == msgspec.structs.replace(
        changed, name="docs", created_at=made.created_at
    )
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.update_platform(shared("nowhere")))


async def test_the_platform_and_accounts_see_nothing_of_each_other(
    database: Database, store: McpStore
) -> None:
    hers, ours = server("ann", "docs"), shared("docs")
    await keep(database, store, hers, tool(hers, 0, "search"))
    await offer(database, store, ours, shared_tool(ours, 0, "search"))
    assert [one.id for one in await store.list_all()] == [hers.id]
    assert [one.id for one in await store.find_named("docs")] == [hers.id]
    assert [one.server_id for one in await store.tools_own("ann")] == [hers.id]
    assert [one.server_id for one in await store.tools_named("ann", ["search"])] == [hers.id]
    assert [one.id for one in await store.list_platform()] == [ours.id]
    assert [one.server_id for one in await store.tools_platform()] == [ours.id]
    assert await store.get(ours.id) is None
    assert await store.get_platform(hers.id) is None
    assert await database.write(lambda: store.lock(ours.id)) is None
    assert await database.write(lambda: store.lock_platform(hers.id)) is None
    assert await database.write(lambda: store.names(None)) == {(ours.id, "search/remote"): "search"}
    for_ann = await database.write(lambda: store.names("ann"))
    assert set(for_ann) == {(hers.id, "search/remote")}
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.delete_platform(hers.id))
    with pytest.raises(NoSuchRow):
        await database.write(lambda: store.delete("ann", ours.id))


async def test_the_platforms_names_stand_once(database: Database, store: McpStore) -> None:
    one, two = shared("one"), shared("two", 2.0)
    await offer(database, store, one, shared_tool(one, 0, "same"))
    with pytest.raises(Duplicate) as taken:
        await database.write(lambda: store.insert_platform(shared("one")))
    assert taken.value.constraint == "uq_mcp_servers_platform_name"
    await offer(database, store, two, shared_tool(two, 0, "other"))
    with pytest.raises(Duplicate) as taken:
        await database.write(lambda: store.put_tools(two.id, [shared_tool(two, 0, "same")]))
    assert taken.value.constraint == "uq_mcp_tools_platform_name"
    assert [tool.name for tool in await store.tools_platform()] == ["same", "other"]
    await database.write(lambda: store.delete_platform(one.id))
    assert [tool.name for tool in await store.tools_platform()] == ["other"]
