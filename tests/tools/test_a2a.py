"""A2aClient against real agents: what their cards say, what messages bring, and how they fail."""

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from gateways import a2a
from gateways.a2a import A2aClient
from gateways.errors import A2aFailed, A2aUnreachable
from gateways.outbound import Outbound
from tests.gateways.peer import Peer, plain
from tests.tools.agents import agent


@pytest.fixture(scope="module", params=["streaming", "plain", "legacy"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An agent with streams, one without, and one that speaks the protocol's version 0.3."""
    with agent(request.param) as url:
        yield url


@pytest.fixture
async def door() -> AsyncIterator[Outbound]:
    """A door that opens to this machine, for agents alone."""
    opened = Outbound(["a2a=127.0.0.1/32"])
    yield opened
    await opened.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    running = await Peer().start()
    yield running
    await running.stop()


async def test_a_card_and_what_messages_bring(door: Outbound, address: str) -> None:
    client = A2aClient(door)
    card = await client.card(address)
    assert (card.name, card.description) == ("Echo agent", "Says again what it hears.")
    assert card.input_modes == ["text/plain"]
    assert card.output_modes == ["text/plain", "application/json"]
    assert not card.push_notifications
    assert msgspec.json.decode(msgspec.json.encode(card.whole)) == card.whole
    assert await client.ask(card.whole, "hello 你好") == "echo: hello 你好\ndone"
    assert await client.ask(card.whole, "message hi") == "heard hi"
    assert await client.ask(card.whole, "ask which one?") == "which one?"
    with pytest.raises(A2aFailed, match="failed: out of tea"):
        await client.ask(card.whole, "fail out of tea")


async def test_the_card_says_whether_there_are_streams(door: Outbound) -> None:
    for kind, streams in (("streaming", True), ("plain", False)):
        with agent(kind) as address:
            assert (await A2aClient(door).card(address)).streaming is streams


async def test_a_slow_agent_is_given_up(door: Outbound, address: str) -> None:
    card = await A2aClient(door).card(address)
    with pytest.raises(A2aUnreachable, match="no whole answer within 1 s"):
        await A2aClient(door, call_s=1).ask(card.whole, "wait")


async def test_a_card_that_names_an_address_inside_leads_nowhere(peer: Peer) -> None:
    """Security 24, 27: what a card names is checked where it is connected to."""
    inside = peer.url.removeprefix("http://")
    with agent("streaming", named=inside) as address:
        port = address.rpartition(":")[2]
        door = Outbound([f"a2a=127.0.0.1:{port}"])
        try:
            card = await A2aClient(door).card(address)
            with pytest.raises(A2aUnreachable, match=r"127\.0\.0\.1"):
                await A2aClient(door).ask(card.whole, "hello")
        finally:
            await door.close()
    assert peer.requests == []


async def test_an_agent_inside_is_not_asked_for_its_card(peer: Peer) -> None:
    door = Outbound(["mcp=127.0.0.1/32"])
    try:
        with pytest.raises(A2aUnreachable):
            await A2aClient(door).card(peer.url)
    finally:
        await door.close()
    assert peer.requests == []


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, ""),
        (500, "secret"),
        (200, "secret"),
        (200, "[1]"),
        (200, '{"name": 5, "description": "secret"}'),
        (200, '{"skills": 5, "name": "secret"}'),
        (200, "[" * 100_000),
        (200, '{"name": "' + "x" * 300_000 + '"}'),
    ],
)
async def test_what_is_no_card(door: Outbound, peer: Peer, status: int, body: str) -> None:
    peer.routes["/.well-known/agent-card.json"] = plain(status, body, "application/json")
    peer.routes["/.well-known/agent.json"] = plain(404, "")
    with pytest.raises(A2aUnreachable) as refused:
        await A2aClient(door).card(peer.url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "answer",
    [
        plain(401, "secret"),
        plain(200, "secret", "application/json"),
        plain(200, '{"jsonrpc": "2.0", "id": "1", "error": "secret"}', "application/json"),
        plain(200, '{"jsonrpc": "2.0", "id": "1", "result": {}}', "application/json"),
        plain(302, "", "text/plain", location="http://169.254.169.254/"),
        plain(200, " " * (a2a.ANSWER_MAX + 10), "application/json"),
    ],
)
async def test_what_is_no_answer(
    door: Outbound, peer: Peer, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    peer.routes["/rpc"] = answer
    card = {
        "name": "Peer",
        "supportedInterfaces": [
            {"url": f"{peer.url}/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        ],
    }
    with pytest.raises((A2aUnreachable, A2aFailed)) as refused:
        await A2aClient(door).ask(card, "hello")
    assert "secret" not in str(refused.value)
    assert not [one for one in caplog.records if one.name.startswith("a2a")]


async def test_a_card_without_a_way_to_speak(door: Outbound) -> None:
    with pytest.raises(A2aUnreachable):
        await A2aClient(door).ask({"name": "Mute"}, "hello")


def test_no_sdk_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, server.composition, server.serving, gateways.a2a, gateways.mcp;"
        "print(sorted({'a2a', 'google.protobuf', 'mcp'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
