"""Schemas that anybody may have written, and what tools are called here."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.caller import Caller
from domain.errors import Unusable
from domain.mcp import McpServers, ServerFields
from domain.tool_schema import Unfit, check_arguments, check_schema
from gateways.errors import McpUnreachable
from gateways.mcp import Described, Endpoint, McpClient
from gateways.outbound import Outbound
from gateways.secretbox import SecretBox
from storage.database import Database
from storage.events import EventLog
from storage.mcp import McpStore
from storage.wakeups import OneProcess
from tests.storage.accounts import make_accounts

ANN, BOB = Caller("ann", "operator"), Caller("bob", "operator")
ADDRESS = "https://93.184.216.34/mcp"


def address(name: str) -> str:
    """Where a server of a test would be."""
    return f"{ADDRESS}/{name.replace(' ', '-')}"


NOTHING: dict[str, Any] = {"type": "object"}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def doubling(times: int) -> dict[str, Any]:
    """Each definition holds the next one twice: 2 ** times checks of one value."""
    defs: dict[str, Any] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(times)
    }
    return {"$defs": {**defs, f"d{times}": {"type": "object"}}, "$ref": "#/$defs/d0"}


BAD = {
    "no object": {"type": "string"},
    "no type": {"type": "banana"},
    "properties of another form": {"properties": 5},
    "a reference to the outside": {"$ref": "http://127.0.0.1:9/schema"},
    "a reference to a file": {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
    "an unknown dialect": {"$schema": "http://127.0.0.1:9/dialect", "type": "object"},
    "a pattern that looks around": {"properties": {"a": {"pattern": "(?=x)"}}},
    "a pattern that is none": {"properties": {"a": {"pattern": "("}}},
    "a pattern that explodes": {"properties": {"a": {"pattern": "((a{1000}){1000}){1000}"}}},
    "nested too deep": nested(40),
    "too long": {"type": "object", "description": "x" * 70_000},
    "references that double": doubling(20),
}


@pytest.mark.parametrize("schema", BAD.values(), ids=BAD)
def test_a_schema_that_cannot_be_used(schema: dict[str, Any]) -> None:
    begun = time.process_time()
    with pytest.raises(Unfit):
        check_schema(schema)
    assert time.process_time() - begun < 1


def test_patterns_take_linear_time() -> None:
    """Security 51: a pattern that a backtracking engine never finishes."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    check_schema(schema)
    begun = time.process_time()
    with pytest.raises(Unfit):
        check_arguments(schema, {"a": "a" * 100_000 + "!"})
    assert time.process_time() - begun < 1


def test_arguments_are_told_by_place_and_never_repeated() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"$ref": "#"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    check_schema(schema)
    check_arguments(schema, {"a": 1, "b": {"a": 2}})
    for arguments in ({}, {"a": "canary"}, {"a": 1, "b": {"a": "canary"}}):
        with pytest.raises(Unfit) as refused:
            check_arguments(schema, arguments)
        assert "canary" not in str(refused.value)


class Speaking(McpClient):
    """What the servers of a test say they have."""

    def __init__(self, outbound: Outbound) -> None:
        super().__init__(outbound)
        self.has: dict[str, list[Described]] = {}

    async def tools(self, endpoint: Endpoint) -> list[Described]:
        await asyncio.sleep(0)
        if endpoint.url not in self.has:
            raise McpUnreachable("no such server")
        return self.has[endpoint.url]


class Here:
    """MCP servers over a database, and what they say."""

    def __init__(self, database: Database, store: McpStore, log: EventLog) -> None:
        door = Outbound()
        self.client = Speaking(door)
        self.store = store
        self.mcp = McpServers(
            database,
            store,
            log,
            SecretBox([bytes(32)]),
            door,
            self.client,
            reserved=frozenset({"time"}),
        )

    def says(self, name: str, *tools: str) -> None:
        self.client.has[address(name)] = [Described(tool, "", NOTHING) for tool in tools]

    async def add(self, name: str, *tools: str, caller: Caller = ANN) -> None:
        self.says(name, *tools)
        url = address(name)
        fields = ServerFields(name=name, protocol="streamable_http", streamable_http_url=url)
        await self.mcp.add(caller, fields)

    async def names(self, caller: Caller = ANN) -> dict[str, str]:
        return {tool.name: tool.remote_name for tool in await self.mcp.tools(caller)}


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Here]:
    await make_accounts(database, "ann", "bob")
    log = EventLog(database, OneProcess())
    yield Here(database, McpStore(database), log)
    await log.close()


async def test_names_fit_models_and_stand_once(here: Here) -> None:
    await here.add("one", "read", "time", "a.b", "a/b", "数", "x" * 100, "x" * 101)
    await here.add("two words", "read", "read")
    await here.add("one", "read", caller=BOB)
    assert await here.names() == {
        "read": "read",
        "one_time": "time",
        "a_b": "a.b",
        "one_a_b": "a/b",
        "_": "数",
        "x" * 64: "x" * 100,
        ("one_" + "x" * 100)[:64]: "x" * 101,
        "two_words_read": "read",
    }
    assert await here.names(BOB) == {"read": "read"}


async def test_a_tool_keeps_its_name_over_refreshes(here: Here) -> None:
    await here.add("one", "b")
    await here.add("two", "a", "b")
    here.says("one", "a", "b", "c")
    await here.mcp.refresh(ANN, "one")
    kept = {"one_a": "a", "b": "b", "c": "c", "a": "a", "two_b": "b"}
    assert await here.names() == kept
    del here.client.has[address("one")]
    assert (await here.mcp.refresh(ANN, "one")).disabled
    assert await here.names() == {"a": "a", "two_b": "b"}
    here.says("one", "a", "b", "c")
    assert not (await here.mcp.refresh(ANN, "one")).disabled
    assert await here.names() == kept


async def test_refreshes_side_by_side_give_no_name_twice(here: Here) -> None:
    servers = [f"s{number}" for number in range(6)]
    await asyncio.gather(*(here.add(name, "same", "other") for name in servers))
    await asyncio.gather(*(here.mcp.refresh(ANN, name) for name in servers * 2))
    names = await here.names()
    assert len(names) == 12
    assert {"same", "other"} < names.keys()


async def test_one_name_added_twice_at_once(here: Here) -> None:
    made = await asyncio.gather(*(here.add("one", "a") for _ in range(4)), return_exceptions=True)
    refused = [each for each in made if each is not None]
    assert len(refused) == 3
    assert all(isinstance(each, Unusable) and each.key == "mcp.exists" for each in refused)
    assert await here.names() == {"a": "a"}


async def test_tools_that_cannot_be_used_are_left_out(here: Here) -> None:
    here.says("one")
    here.client.has[address("one")] = [
        Described("good", "with \x00 and \ud800", NOTHING),
        *(Described(f"bad {number}", "", schema) for number, schema in enumerate(BAD.values())),
        Described("", "", NOTHING),
        Described("nul\x00", "", NOTHING),
        Described("half\ud800", "", NOTHING),
        Described("half", "", {"type": "object", "description": "\ud800"}),
    ]
    url = address("one")
    fields = ServerFields(name="one", protocol="streamable_http", streamable_http_url=url)
    await here.mcp.add(ANN, fields)
    assert await here.names() == {"good": "good"}
