"""McpClient against real servers: what it lists, what calls give, and how they fail."""

import asyncio
import logging
import time

import pytest

from gateways.errors import McpError, McpUnreachable
from gateways.mcp import Endpoint, McpClient, Protocol
from gateways.outbound import Outbound
from tests.gateways.peer import Peer, plain
from tests.tools.servers import Running, everything

KEY = "canary-7f3a9c"


@pytest.fixture
def client(outbound: Outbound) -> McpClient:
    return McpClient(outbound)


async def test_lists_and_calls(client: McpClient, server: Running) -> None:
    tools = {tool.name: tool for tool in await client.tools(server.endpoint)}
    assert tools["add"].description == "Adds two numbers."
    assert tools["add"].parameters["required"] == ["a", "b"]
    assert "odd name/with.dots — 数" in tools
    told = await client.call(server.endpoint, "echo", {"text": "你好\n\u2028"})
    assert (told.text, told.structured, told.failed) == ("你好\n\u2028", None, False)
    structured = await client.call(server.endpoint, "weather", {"city": "Bonn"})
    assert structured.structured == {"city": "Bonn", "degrees": 21.5}
    odd = await client.call(server.endpoint, "odd name/with.dots — 数", {})
    assert odd.text == "odd"


async def test_a_tool_that_fails_says_why(client: McpClient, server: Running) -> None:
    failed = await client.call(server.endpoint, "fail", {"reason": "out of tea"})
    assert failed.failed
    assert "out of tea" in failed.text


async def test_what_is_not_there(client: McpClient, server: Running) -> None:
    assert (await client.call(server.endpoint, "nothing", {})).failed


@pytest.mark.parametrize("protocol", ["streamable_http", "sse"])
async def test_a_key_is_sent_and_never_told(
    protocol: Protocol, client: McpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with everything(protocol, KEY) as running:
        assert await client.tools(running.endpoint)
        wrong = Endpoint(protocol, running.endpoint.url, f"{KEY}-wrong")
        with pytest.raises(McpError) as refused:
            await client.tools(wrong)
    assert KEY not in str(refused.value)
    assert KEY not in repr(wrong)
    assert not [one for one in caplog.records if one.name.startswith("mcp") and KEY in one.message]


async def test_a_slow_tool_is_given_up(outbound: Outbound, server: Running) -> None:
    client = McpClient(outbound, call_s=1.0)
    with pytest.raises(McpUnreachable, match="no answer within 1 s"):
        await client.call(server.endpoint, "wait", {"seconds": 30})
    assert (await client.call(server.endpoint, "echo", {"text": "still"})).text == "still"


async def test_cancelling_ends_a_call_at_once(client: McpClient, server: Running) -> None:
    begun = time.monotonic()
    call = asyncio.create_task(client.call(server.endpoint, "wait", {"seconds": 30}))
    await asyncio.sleep(0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - begun < 10


async def test_a_huge_result_is_refused(client: McpClient, server: Running) -> None:
    assert len((await client.call(server.endpoint, "huge", {"size": 500_000})).text) == 500_000
    with pytest.raises(McpError):
        await client.call(server.endpoint, "huge", {"size": 6_000_000})


@pytest.mark.parametrize("protocol", ["streamable_http", "sse"])
async def test_a_server_that_dies_in_mid_call(protocol: Protocol, outbound: Outbound) -> None:
    client = McpClient(outbound, call_s=10)
    with everything(protocol) as running:
        with pytest.raises(McpError):
            await client.call(running.endpoint, "die", {})
        with pytest.raises(McpUnreachable):
            await client.tools(running.endpoint)


@pytest.mark.parametrize("protocol", ["streamable_http", "sse"])
async def test_what_is_no_server(protocol: Protocol, outbound: Outbound) -> None:
    """Not JSON, not the protocol, an endless silence, a server error: each ends, and none of its
    bytes are told."""
    client, peer = McpClient(outbound, list_s=1.0), await Peer().start()
    for media in ("text/html", "application/json", "text/event-stream"):
        peer.routes[f"/{media}"] = plain(200, "secret bytes of an inner host", media)
    peer.routes["/error"] = plain(500, '{"secret": "bytes"}', "application/json")

    async def silent(*_: object) -> None:
        await asyncio.sleep(5)

    peer.routes["/silent"] = silent
    for path in [*peer.routes]:
        with pytest.raises(McpError) as refused:
            await client.tools(Endpoint(protocol, peer.url + path))
        assert "secret" not in str(refused.value), path
    await peer.stop()


@pytest.mark.parametrize("protocol", ["streamable_http", "sse"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_leaves_the_origin(
    protocol: Protocol, status: int, outbound: Outbound
) -> None:
    """Nor to the metadata address, nor, with the key, to anybody else (security 24, 25, 28)."""
    client, peer, other = McpClient(outbound), await Peer().start(), await Peer().start()
    for target in ("http://169.254.169.254/latest/meta-data", f"{other.url}/mcp"):
        peer.routes["/mcp"] = plain(status, "", location=target)
        with pytest.raises(McpError):
            await client.tools(Endpoint(protocol, f"{peer.url}/mcp", KEY))
    assert other.requests == []
    await peer.stop()
    await other.stop()


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/mcp",
        "http://10.0.0.1/mcp",
        "http://[::ffff:7f00:1]/mcp",
        "http://0x7f.1/mcp",
        "file:///etc/passwd",
        "http://a@127.0.0.1/mcp",
    ],
)
@pytest.mark.parametrize("protocol", ["streamable_http", "sse"])
async def test_addresses_are_checked_at_use(
    protocol: Protocol, url: str, client: McpClient
) -> None:
    with pytest.raises(McpUnreachable):
        await client.tools(Endpoint(protocol, url))


async def test_another_purposes_opening_does_not_count(server: Running) -> None:
    """The operator opened this machine for models, not for MCP."""
    door = Outbound(["model=127.0.0.1/32"])
    with pytest.raises(McpUnreachable):
        await McpClient(door).tools(server.endpoint)
    await door.close()
