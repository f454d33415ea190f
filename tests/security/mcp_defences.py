"""The defences around tools and MCP servers: attacks, and what takes each defence away."""

import asyncio
import time
from typing import Any

import jsonschema_rs

from domain import tool_schema
from domain.tool_schema import Unfit, check_schema
from gateways.errors import McpError
from gateways.mcp import Endpoint, McpClient
from gateways.outbound import Outbound
from tests.gateways.peer import Peer, plain
from tests.security.defences import without
from tests.security.place import Place, unique


def _no_refusal(self: Any, purpose: str, host: str, port: int, address: Any) -> None:
    """Every address is as good as another."""


@without(27, at_use={"gateways.addresses:AllowList.refusal": _no_refusal})
async def an_mcp_server_inside_is_not_reached(place: Place) -> None:
    peer = await Peer().start()
    door = Outbound(["model=127.0.0.1/32"])
    try:
        await McpClient(door, list_s=10).tools(Endpoint("streamable_http", f"{peer.url}/mcp"))
    except McpError:
        pass
    finally:
        await door.close()
        await peer.stop()
    assert peer.requests == []


@without(25, origin={"mcp.shared._httpx_utils:_within_origin": lambda url, location: True})
async def an_mcp_server_sends_nobody_elsewhere(place: Place) -> None:
    """Also to an address that the operator allows: it did not ask for the caller's arguments."""
    peer, other = await Peer().start(), await Peer().start()
    peer.routes["/mcp"] = plain(307, "", location=f"{other.url}/mcp")
    door = Outbound(["mcp=127.0.0.1/32"])
    try:
        await McpClient(door, list_s=10).tools(
            Endpoint("streamable_http", f"{peer.url}/mcp", "key")
        )
    except McpError:
        pass
    finally:
        await door.close()
        await peer.stop()
        await other.stop()
    assert peer.requests
    assert other.requests == []


@without(27, at_save={"gateways.addresses:AllowList.refusal": _no_refusal})
async def an_mcp_server_inside_is_not_saved(place: Place) -> None:
    """Nor asked: adding one lists its tools."""
    peer = await Peer().start()
    try:
        for field, protocol in (("streamable_http_url", "streamable_http"), ("sse_url", "sse")):
            body = {"name": unique("inside"), "protocol": protocol, field: f"{peer.url}/mcp"}
            assert (await place.owner.ask("POST", "/api/mcp/add", body)).http == 400
            listed = await place.owner.ask("GET", "/api/mcp/list")
            assert body["name"].encode() not in listed.body
    finally:
        await peer.stop()
    assert peer.connections == 0


@without(26, bytes={"gateways.mcp:MAX_BYTES": 1 << 40})
async def an_mcp_servers_answer_is_bounded(place: Place) -> None:
    peer = await Peer().start()
    sent = 0

    async def endless(_: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        head = plain(200, "", "application/json").replace(b"content-length: 0", b"x: y")
        writer.write(head)
        while sent < 16 * 1024 * 1024:
            writer.write(b" " * 65_536)
            await writer.drain()
            sent += 65_536

    peer.routes["/mcp"] = endless
    door = Outbound(["mcp=127.0.0.1/32"])
    try:
        await McpClient(door, list_s=5).tools(Endpoint("streamable_http", f"{peer.url}/mcp"))
    except McpError:
        pass
    finally:
        await door.close()
        await peer.stop()
    assert sent < 16 * 1024 * 1024


@without(51, engine={"domain.tool_schema:_PATTERNS": jsonschema_rs.FancyRegexOptions()})
async def a_tools_patterns_take_linear_time(place: Place) -> None:
    """A back-reference is what no linear engine can do, so one that refuses it is one."""
    tool_schema._validator.cache_clear()
    try:
        check_schema({"type": "object", "properties": {"a": {"pattern": r"^(a+)\1$"}}})
    except Unfit:
        return
    finally:
        tool_schema._validator.cache_clear()
    raise AssertionError("a pattern that needs backtracking was taken")


def _no_weight(*_: Any) -> int:
    return 0


@without(51, weight={"domain.tool_schema:_weight": _no_weight})
async def a_tools_schema_does_not_double(place: Place) -> None:
    defs: dict[str, Any] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(16)
    }
    begun = time.process_time()
    try:
        check_schema({"$defs": {**defs, "d16": {"type": "object"}}, "$ref": "#/$defs/d0"})
    except Unfit:
        assert time.process_time() - begun < 1
        return
    raise AssertionError("a schema that checks one value 65,536 times was taken")
