"""MCP servers and A2A agents of the platform: what is asked when, and what turns get of them."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from sqlalchemy import select

from domain.caller import Caller
from domain.errors import Conflict, Forbidden, Invalid, NotFound, Unusable
from domain.platform.addresses import normalised
from domain.platform.refreshing import is_due
from domain.tools import ToolFailed
from gateways.errors import OutboundRefused
from storage.database import Statement
from storage.schema import mcp_servers
from storage.tool_preferences import ToolPreferences
from tests.app_config.conftest import ANN, BOB, ROOT, Here
from tests.tools.agents import agent
from tests.tools.servers import SERVER, Running, everything

STDIO = {"transport": "stdio", "command": sys.executable, "args": [str(SERVER), "stdio"]}
CANARY = "canary-8a01b7e2"


@pytest.fixture(scope="module")
def over_http() -> Iterator[Running]:
    with everything("streamable_http") as running:
        yield running


@pytest.fixture(scope="module")
def over_sse() -> Iterator[Running]:
    with everything("sse") as running:
        yield running


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    with agent("streaming") as address:
        yield address


async def called(here: Here, user: Caller, name: str, **arguments: Any) -> Any:
    tools = await here.platform.tools.offered(user.user_id)
    return await tools[name].call(msgspec.json.encode(arguments).decode())


async def test_the_three_transports(here: Here, over_http: Running, over_sse: Running) -> None:
    mcp = here.platform.mcp
    await mcp.merge(
        ROOT,
        {
            "http": {"url": over_http.endpoint.url, "description": "Over HTTP", "extra": [1]},
            "sse": {"transport": "sse", "url": over_sse.endpoint.url},
            "stdio": STDIO,
        },
    )
    kept = {one.server.name: one for one in await mcp.list()}
    assert {name: one.server.protocol for name, one in kept.items()} == {
        "http": "streamable_http",
        "sse": "sse",
        "stdio": "stdio",
    }
    for one in kept.values():
        assert one.server.error == ""
        assert {"add", "odd name/with.dots — 数"} <= set(one.tools)
    tools = await here.platform.tools.offered("ann")
    adding = [
        name
        for name, tool in tools.items()
        if tool.function()["function"]["description"] == "Adds two numbers."
    ]
    assert len(adding) == 3
    assert "add" in adding, "the first that answers has the name to itself"
    assert set(adding) < {"add", "http_add", "sse_add", "stdio_add"}
    assert "http_calculator" in tools
    assert "calculator" not in tools, "a reserved name is nobody's"
    for name in adding:
        result = await called(here, ANN, name, a=20, b=22)
        assert result.content == {"result": {"result": 42}}
        assert tools[name].toolbox == "mcp"
        assert tools[name].function()["function"]["parameters"]["required"] == ["a", "b"]
    said = await called(here, ANN, "echo", text="hi")
    assert (said.text, said.content) == ("hi", {"result": "hi"})
    with pytest.raises(ToolFailed, match="out of tea"):
        await called(here, ANN, "fail", reason="out of tea")
    with pytest.raises(ToolFailed, match="do not fit"):
        await called(here, ANN, "add", a=1, b="x")


async def test_headers_are_sent(here: Here) -> None:
    with everything("streamable_http", CANARY) as guarded:
        server = {"url": guarded.endpoint.url, "headers": {"Authorization": f"Bearer {CANARY}"}}
        wrong = {**server, "headers": {"Authorization": "Bearer other"}}
        await here.platform.mcp.merge(
            ROOT, {"right": server, "wrong": wrong, "none": {**server, "headers": None}}
        )
        found = {one.server.name: one for one in await here.platform.mcp.list()}
        assert found["right"].tools
        for name in ("wrong", "none"):
            assert found[name].tools == []
            assert found[name].server.error
        assert CANARY not in repr(found)


async def test_what_is_switched_off_is_not_offered(here: Here, over_http: Running) -> None:
    platform = here.platform
    await platform.mcp.merge(ROOT, {"http": {"url": over_http.endpoint.url}})
    await platform.tools.prefer(ANN, "mcp", "http", enabled=False)
    assert "add" not in await platform.tools.offered("ann")
    assert "add" in await platform.tools.offered("bob")
    [hers], [his] = await platform.tools.mcp(ANN), await platform.tools.mcp(BOB)
    assert (hers.enabled_global, hers.enabled_user) == (True, False)
    assert (his.enabled_global, his.enabled_user) == (True, True)
    assert await platform.tools.named("ann", ["add"]) == {}, "also where a run was offered it"
    assert set(await platform.tools.named("bob", ["add", "none"])) == {"add"}
    await platform.mcp.set_enabled(ROOT, "http", enabled=False)
    assert "add" not in await platform.tools.offered("bob")
    assert await platform.tools.named("bob", ["add"]) == {}
    [his] = await platform.tools.mcp(BOB)
    assert (his.enabled_global, his.enabled_user) == (False, True)
    await platform.mcp.set_enabled(ROOT, "http", enabled=True)
    await platform.tools.prefer(ANN, "mcp", "http", enabled=True)
    assert "add" in await platform.tools.offered("ann")


async def test_a_tool_that_is_gone_since(here: Here, over_http: Running) -> None:
    await here.platform.mcp.merge(ROOT, {"http": {"url": over_http.endpoint.url}})
    tool = (await here.platform.tools.offered("ann"))["echo"]
    await here.platform.mcp.delete(ROOT, "http")
    with pytest.raises(ToolFailed, match="gone"):
        await tool.call('{"text": "x"}')


async def test_servers_are_merged_by_name(here: Here, over_http: Running) -> None:
    mcp = here.platform.mcp
    await mcp.merge(ROOT, {"one": {"url": over_http.endpoint.url}, "two": STDIO})
    await here.platform.tools.prefer(ANN, "mcp", "one", enabled=False)
    before = {one.server.name: one.server for one in await mcp.list()}
    await mcp.merge(ROOT, {"one": {"url": "http://127.0.0.1:9/mcp", "enabled": False}})
    after = {one.server.name: one for one in await mcp.list()}
    assert after["two"].server == before["two"]
    one = after["one"]
    assert (one.server.id, one.server.created_at) == (before["one"].id, before["one"].created_at)
    assert (one.server.enabled, one.tools, one.server.refreshed_at) == (False, [], 0.0)
    [preferred, _] = await here.platform.tools.mcp(ANN)
    assert not preferred.enabled_user, "what accounts want of it stays"
    await mcp.delete(ROOT, "one")
    await mcp.merge(ROOT, {"one": {"url": "http://127.0.0.1:9/mcp", "enabled": False}})
    assert all(each.enabled_user for each in await here.platform.tools.mcp(ANN))


async def test_what_is_not_listed_by_the_operator_says_so(here: Here) -> None:
    servers: dict[str, dict[str, Any]] = {
        "shell": {"transport": "stdio", "command": "/bin/sh", "args": ["-c", "true"]},
        "inline": {"transport": "stdio", "command": sys.executable, "args": ["-c", "1"]},
        "preload": {**STDIO, "env": {"LD_PRELOAD": "/tmp/x.so"}},
    }
    await here.platform.mcp.merge(ROOT, servers)
    for one in await here.platform.mcp.list():
        assert (one.server.error, one.tools) == ("not allowed by the operator", [])
    assert await here.platform.tools.offered("ann") == {}


async def test_stdio_is_for_administrators(here: Here, over_http: Running) -> None:
    """Also where the operator lets anybody keep servers (SANDBOX_OPEN_CONFIG)."""
    with pytest.raises(Forbidden) as refused:
        await here.platform.mcp.merge(ANN, {"ok": {"url": over_http.endpoint.url}, "a": STDIO})
    assert refused.value.key == "mcp.stdio_forbidden"
    assert await here.platform.mcp.list() == []


@pytest.mark.parametrize("enabled", [True, False])
async def test_what_administrators_start_is_theirs_to_change(
    here: Here, over_http: Running, enabled: bool
) -> None:
    mcp = here.platform.mcp
    await mcp.merge(ROOT, {"kept": {**STDIO, "enabled": enabled}})
    before = await mcp.list()
    for change in (
        mcp.set_enabled(ANN, "kept", enabled=not enabled),
        mcp.delete(ANN, "kept"),
        mcp.merge(ANN, {"kept": {"url": over_http.endpoint.url}}),
        mcp.merge(ANN, {"kept": {**STDIO, "args": ["other"]}}),
        mcp.merge(
            ANN, {"hers": {"url": over_http.endpoint.url}, "kept": {"url": "http://127.0.0.1:9/"}}
        ),
    ):
        with pytest.raises(Forbidden) as refused:
            await change
        assert refused.value.key == "mcp.stdio_forbidden"
        assert await mcp.list() == before
    await mcp.set_enabled(ROOT, "kept", enabled=not enabled)
    await mcp.merge(ROOT, {"kept": {"url": over_http.endpoint.url}})
    await mcp.set_enabled(ANN, "kept", enabled=False)
    await mcp.delete(ANN, "kept")
    assert await mcp.list() == [], "a server that is started by nobody is anybody's"


@pytest.mark.parametrize(
    ("name", "config", "place", "rule"),
    [
        ("a", {}, ["url"], "required"),
        ("a", {"transport": "sse", "url": " "}, ["url"], "required"),
        ("a", {"transport": "stdio"}, ["command"], "required"),
        ("a", {"transport": "stdio", "url": "https://example.com"}, ["command"], "required"),
        ("a", {"transport": "carrier-pigeon", "url": "https://example.com"}, [], "type"),
        ("a", {**STDIO, "args": "x"}, [], "type"),
        ("a", {**STDIO, "env": {"A": 1}}, [], "type"),
        ("a", {**STDIO, "env": {"A=B": "1"}}, ["env"], "pattern"),
        ("a", {**STDIO, "args": ["x"] * 101}, ["args"], "maxItems"),
        ("a", {**STDIO, "args": ["x" * 9000]}, [], "maxLength"),
        ("a", {"url": "https://example.com", "headers": {"a b": "x"}}, ["headers"], "pattern"),
        (
            "a",
            {"url": "https://example.com", "headers": {"a": "x\r\ny: z"}},
            ["headers"],
            "pattern",
        ),
        *(
            ("a", {"url": "https://example.com", "headers": {name: "x"}}, ["headers"], "pattern")
            for name in ("Host", "Accept-Encoding", "te", "upgrade", "mcp-session-id")
        ),
        ("a/b", {"url": "https://example.com"}, [], "pattern"),
        ("..", {"url": "https://example.com"}, [], "pattern"),
        ("x" * 129, {"url": "https://example.com"}, [], "pattern"),
    ],
)
async def test_what_cannot_be_kept(
    here: Here, name: str, config: dict[str, Any], place: list[str], rule: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await here.platform.mcp.merge(ROOT, {"good": STDIO, name: config})
    assert refused.value.loc == ("mcpServers", name, *place)
    assert refused.value.rule == rule
    assert await here.platform.mcp.list() == [], "all or none"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.1/mcp", "refused"),
        ("http://[::ffff:a00:1]/mcp", "refused"),
        ("http://169.254.169.254/mcp", "refused"),
        ("http://0x7f.1/mcp", "invalid"),
        ("http://user@127.0.0.1/mcp", "invalid"),
        ("http://127.0.0.1:9/mcp#x", "invalid"),
        ("ftp://127.0.0.1/mcp", "invalid"),
    ],
)
async def test_addresses_that_are_refused(here: Here, url: str, why: str) -> None:
    with pytest.raises(Unusable) as refused:
        await here.platform.mcp.merge(ROOT, {"a": {"url": url}})
    assert refused.value.key == f"platform.address_{why}"
    with pytest.raises(Unusable) as refused:
        await here.platform.a2a.add(ROOT, url)
    assert refused.value.key == f"platform.address_{why}"
    assert await here.platform.mcp.list() == [] == await here.platform.a2a.list()


async def test_skills_call_what_their_account_wants(
    here: Here, over_http: Running, echo: str
) -> None:
    platform, tools = here.platform, here.platform.tools
    await platform.mcp.merge(ROOT, {"http": {"url": over_http.endpoint.url}})
    await platform.a2a.add(ROOT, echo)
    [agent] = await platform.a2a.list()
    sums = {"a": 20, "b": 22}
    spellings = (agent.id, agent.name, agent.base_url, f"{agent.base_url.upper()}/")
    assert (await tools.call_mcp("ann", "http", "add", sums)).structured == {"result": 42}
    for named in spellings:
        assert "hello" in await tools.ask_a2a("ann", named, "hello")
    await tools.prefer(ANN, "mcp", "http", enabled=False)
    await tools.prefer(ANN, "a2a", agent.id, enabled=False)
    with pytest.raises(ToolFailed, match="no tool add of a server http"):
        await tools.call_mcp("ann", "http", "add", sums)
    for named in spellings:
        with pytest.raises(ToolFailed, match="no agent"):
            await tools.ask_a2a("ann", named, "hello")
    assert (await tools.call_mcp("bob", "http", "add", sums)).structured == {"result": 42}
    assert "hello" in await tools.ask_a2a("bob", agent.id, "hello")


async def test_the_names_of_agents_are_theirs(here: Here, over_http: Running) -> None:
    """A server's tool cannot stand for an agent, whoever was there first."""
    servers = {name: {"url": over_http.endpoint.url} for name in ("first", "a2a_x")}
    await here.platform.mcp.merge(ROOT, servers)
    tools = await here.platform.tools.offered("ann")
    same = [
        name
        for name, tool in tools.items()
        if "name of an agent's tool" in tool.function()["function"]["description"]
    ]
    assert set(same) == {f"{prefix}_a2a_127_0_0_1_9_agents_x" for prefix in ("first", "mcp_a2a_x")}
    assert not any(name.startswith("a2a_") for name in tools)


async def test_a_preference_of_what_is_deleted_meanwhile(here: Here) -> None:
    tools = here.platform.tools
    gone = {"url": "http://127.0.0.1:9/mcp", "enabled": False}
    preferences = ToolPreferences(here.database)
    for _ in range(10):
        await here.platform.mcp.merge(ROOT, {"a": gone})
        await here.platform.a2a.add(ROOT, "http://127.0.0.1:9")
        [agent] = await here.platform.a2a.list()
        done = await asyncio.gather(
            *(tools.prefer(who, "mcp", "a", enabled=False) for who in (ANN, BOB)),
            *(tools.prefer(who, "a2a", agent.id, enabled=False) for who in (ANN, BOB)),
            here.platform.mcp.delete(ROOT, "a"),
            here.platform.a2a.delete(ROOT, agent.id),
            *(tools.prefer(who, "mcp", "a", enabled=False) for who in (ANN, BOB)),
            *(tools.prefer(who, "a2a", agent.id, enabled=False) for who in (ANN, BOB)),
            return_exceptions=True,
        )
        assert {type(one) for one in done} <= {type(None), NotFound}
        for who in ("ann", "bob"):
            assert await preferences.of(who, "mcp") == {} == await preferences.of(who, "a2a")


async def test_why_a_server_has_no_tools_says_nothing_of_the_network(here: Here) -> None:
    """Everybody may read why (SANDBOX_OPEN_CONFIG: of any address they like)."""
    with everything("streamable_http", CANARY) as guarded:
        await here.platform.mcp.merge(
            ROOT,
            {
                "closed": {"url": "http://127.0.0.1:9/mcp"},
                "nameless": {"url": "http://inner.invalid/mcp"},
                "guarded": {"url": guarded.endpoint.url},
                "other": {
                    "url": f"{guarded.endpoint.url}/none",
                    "headers": {"Authorization": f"Bearer {CANARY}"},
                },
                "sse": {"url": "http://127.0.0.1:9/sse", "transport": "sse"},
            },
        )
    errors = {one.server.name: one.server.error for one in await here.platform.mcp.list()}
    assert set(errors.values()) <= {"its answer is an error", "no answer"}
    assert errors["closed"] == errors["nameless"] == errors["sse"] == "no answer"


async def test_a_server_that_comes_back(here: Here) -> None:
    with everything("streamable_http") as first:
        url = first.endpoint.url
        await here.platform.mcp.merge(ROOT, {"a": {"url": url}})
    [kept] = await here.platform.mcp.list()
    assert "echo" in kept.tools, "lists answer from the last time it was asked"
    with pytest.raises(ToolFailed):
        await called(here, ANN, "echo", text="x")
    await here.platform.mcp.refresh(kept.server.id)
    [kept] = await here.platform.mcp.list()
    assert kept.tools == []
    assert kept.server.error == "no answer"
    assert await here.platform.tools.offered("ann") == {}
    with everything("streamable_http", port=urlsplit(url).port or 0):
        await here.platform.mcp.refresh(kept.server.id)
        [kept] = await here.platform.mcp.list()
        assert kept.server.error == ""
        assert (await called(here, ANN, "echo", text="x")).text == "x"


async def test_agents(here: Here, echo: str) -> None:
    a2a = here.platform.a2a
    await a2a.add(ROOT, f" {echo}/ ")
    await a2a.add(ROOT, "http://127.0.0.1:9/agents/x")
    known, unknown = await a2a.list()
    assert (known.name, known.description) == ("Echo agent", "Says again what it hears.")
    assert (known.streaming, known.push_notifications, known.enabled) == (True, False, True)
    assert (unknown.name, unknown.description) == ("127.0.0.1:9", "http://127.0.0.1:9/agents/x")
    assert (unknown.streaming, unknown.input_modes, unknown.output_modes) == (False, [], [])
    with pytest.raises(Conflict) as refused:
        await a2a.add(ROOT, echo)
    assert refused.value.key == "a2a.exists"
    tools = await here.platform.tools.offered("ann")
    [name] = tools
    assert name.startswith("a2a_127_0_0_1_")
    told = tools[name].function()["function"]
    assert "Echo agent" in told["description"]
    assert "Echoes." in told["description"]
    said = await called(here, ANN, name, message="hello")
    assert said.text == "echo: hello\ndone"
    assert said.content == {"a2a_result": said.text}
    assert tools[name].toolbox == "a2a"
    for arguments in ('{"message": ""}', "{}", '{"message": "x", "more": 1}', "not json"):
        with pytest.raises(ToolFailed):
            await tools[name].call(arguments)
    with pytest.raises(ToolFailed, match="out of tea"):
        await called(here, ANN, name, message="fail out of tea")

    await here.platform.tools.prefer(ANN, "a2a", known.id, enabled=False)
    assert await here.platform.tools.offered("ann") == {}
    assert set(await here.platform.tools.offered("bob")) == {name}
    await a2a.set_enabled(ROOT, known.id, enabled=False)
    assert await here.platform.tools.offered("bob") == {}
    with pytest.raises(ToolFailed, match="gone"):
        await tools[name].call('{"message": "hello"}')
    await a2a.set_enabled(ROOT, known.id, enabled=True)
    await a2a.delete(ROOT, known.id)
    assert [one.id for one in await a2a.list()] == [unknown.id]
    assert len(await here.platform.tools.a2a(ANN)) == 1


async def test_an_agent_that_goes_and_comes_back(here: Here) -> None:
    with agent("plain") as address:
        await here.platform.a2a.add(ROOT, address)
        [known] = await here.platform.a2a.list()
        assert known.card is not None
    await here.platform.a2a.refresh(known.id)
    [gone] = await here.platform.a2a.list()
    assert (gone.card, gone.description, gone.error != "") == (None, address, True)
    assert await here.platform.tools.offered("ann") == {}
    with agent("plain", port=urlsplit(address).port or 0):
        await here.platform.a2a.refresh(known.id)
        [back] = await here.platform.a2a.list()
        assert (back.card, back.error) == (known.card, "")
        assert (await called(here, ANN, back.tool_name, message="x")).text.startswith("echo: x")


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("http://127.0.0.1:9/agents/x", True),
        ("HTTP://127.0.0.1:9/agents/x//", True),
        ("http://127.0.0.1:9/./agents/y/../x", True),
        ("http://127.0.0.1:9/agents/%78", True),
        ("http://127.0.0.1:9/agents/y/%2e%2E/x/", True),
        ("http://127.0.0.1:9/agents/X", False),
        ("http://127.0.0.1:9/agents/%2fx", False),
        ("http://127.0.0.1/agents/x", False),
    ],
)
async def test_an_address_is_one_however_it_is_spelt(here: Here, address: str, same: bool) -> None:
    a2a = here.platform.a2a
    await a2a.add(ROOT, "http://127.0.0.1:9/agents/x")
    if same:
        with pytest.raises(Conflict) as refused:
            await a2a.add(ROOT, address)
        assert refused.value.key == "a2a.exists"
    else:
        await a2a.add(ROOT, address)
    assert len(await a2a.list()) == (1 if same else 2)


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("HTTPS://Agents.Example.COM.:443", "https://agents.example.com/"),
        ("http://example.com:80/a/../b/", "http://example.com/b/"),
        ("https://example.com:80/a%7eb%c3%a9", "https://example.com:80/a~b%C3%A9"),
        ("http://[2001:DB8:0::1]:8080/x", "http://[2001:db8::1]:8080/x"),
    ],
)
def test_spellings(address: str, kept: str) -> None:
    assert normalised(address) == kept


@pytest.mark.parametrize("address", ["http://ex%61mple.com/", "http://127.1/", "file:///x"])
def test_what_is_no_address_has_no_spelling(address: str) -> None:
    with pytest.raises(OutboundRefused):
        normalised(address)


async def test_what_is_not_there(here: Here) -> None:
    platform = here.platform
    for missing in (
        platform.mcp.delete(ROOT, "none"),
        platform.mcp.set_enabled(ROOT, "none", enabled=True),
        platform.tools.prefer(ANN, "mcp", "none", enabled=True),
    ):
        with pytest.raises(NotFound) as refused:
            await missing
        assert refused.value.key == "mcp.not_found"
    for missing in (
        platform.a2a.delete(ROOT, "none"),
        platform.a2a.set_enabled(ROOT, "none", enabled=True),
        platform.tools.prefer(ANN, "a2a", "none", enabled=True),
    ):
        with pytest.raises(NotFound) as refused:
            await missing
        assert refused.value.key == "a2a.not_found"


async def test_an_address_is_sealed_with_the_rest(here: Here, over_http: Running) -> None:
    """A key may stand in it."""
    url = f"{over_http.endpoint.url}?key={CANARY}"
    await here.platform.mcp.merge(ROOT, {"a": {"url": url}})
    [kept] = await here.platform.mcp.list()
    assert "echo" in kept.tools
    assert (await called(here, ANN, "echo", text="x")).text == "x"
    assert CANARY not in repr(kept)
    rows = await here.database.scan(Statement(select(mcp_servers))())
    assert len(rows) == 1
    assert CANARY not in repr(list(rows))


async def test_the_configuration_is_sealed(here: Here) -> None:
    server = {**STDIO, "env": {"TOKEN": CANARY}, "headers": {"X": CANARY}, "note": CANARY}
    await here.platform.mcp.merge(ROOT, {"a": server})
    [kept] = await here.platform.mcp.list()
    assert CANARY not in repr(kept)
    sealed = here.box.open(kept.server.config_sealed, f"mcp:{kept.server.id}")
    assert msgspec.json.decode(sealed) == server, "with what nobody here knows"
    told = (await called(here, ANN, "environment")).content["result"]
    assert told["TOKEN"] == CANARY, "the server that was given it has it"


async def test_what_is_due_is_asked_without_a_request(here: Here, over_http: Running) -> None:
    """A server that another process saved, and one whose answer is old."""
    mcp = here.platform.mcp
    await mcp.merge(ROOT, {"a": {"url": over_http.endpoint.url, "enabled": False}})
    [kept] = await mcp.list()
    on = msgspec.structs.replace(kept.server, enabled=True)
    await here.database.write(lambda: mcp._store.update_platform(on))
    asking = asyncio.create_task(mcp.refreshing.now_and_then())
    try:
        for _ in range(1500):
            await asyncio.sleep(0.02)
            if (await mcp.list())[0].tools:
                break
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert await mcp._due() == [], "it is not due again"
    [kept] = await mcp.list()
    for error, age, due in [("", 500, False), ("", 700, True), ("x", 30, False), ("x", 70, True)]:
        assert is_due(kept.server.refreshed_at, error, kept.server.refreshed_at + age) is due
