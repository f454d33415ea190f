"""Tools of MCP servers in the loop, against a real server."""

from collections.abc import Iterator
from typing import Any

import pytest

from domain.caller import Caller
from domain.mcp import ServerFields
from domain.runs.ending import CUT_OFF
from tests.runs.conftest import Here
from tests.runs.test_turns import script
from tests.runs.world import ADA, BOB, World, types
from tests.tools.servers import Running, everything


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with everything("streamable_http") as running:
        yield running


def results(lines: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """What the tools gave, and whether they failed."""
    return [
        (line["content"], line["metadata"]["failed"])
        for line in lines
        if line["type"] == "tool_call_result"
    ]


async def add(here: World, server: Running, owner: Caller = ADA, name: str = "docs") -> None:
    url = server.endpoint.url
    fields = ServerFields(name=name, protocol="streamable_http", streamable_http_url=url)
    await here.mcp.add(owner, fields)


async def counted(here: World, owner: Caller = ADA) -> int:
    """How often the server's add and wait were called."""
    tool = (await here.mcp.offered(owner.user_id, ["count"]))["count"]
    return int((await here.mcp.call(tool, {})).text)


async def test_an_agent_calls_its_owners_tools(here: World, server: Running) -> None:
    """Beside the built-in ones, several at once; what fails is told to the model."""
    await add(here, server)
    agent = await here.agent(tools=["add", "calculator", "fail", "docs_calculator", "no_such"])
    before = await counted(here)
    said = script(
        {"call": "add", "args": {"a": 2, "b": 3}},
        {"call": "calculator", "args": {"expression": "6*7"}},
        {"call": "docs_calculator", "args": {}},
        {"call": "fail", "args": {"reason": "out of tea"}},
        {"call": "add", "args": {"a": "two"}},
        {"call": "echo", "args": {"text": "not named by the agent"}},
        {"say": "Done."},
    )
    lines = await here.turn(said, agent_id=agent)
    told = results(lines)
    assert told[:3] == [("5", False), ("42", False), ("not the built-in", False)]
    assert [failed for _, failed in told[3:]] == [True, True, True]
    assert "out of tea" in told[3][0]
    assert "do not fit" in told[4][0]
    assert "There is no tool" in told[5][0]
    assert "no_such" in next(line["content"] for line in lines if line["type"] == "system")
    assert types(lines)[-1] == "stream_end"
    assert await counted(here) == before + 1


async def test_whose_tools_are_whose(here: World, server: Running) -> None:
    """A grant lends the tools that the agent names, and no other of its owner's."""
    await add(here, server)
    agent = await here.agent(tools=["add"])
    await here.agents.set_grants(ADA, agent, [BOB.user_id])
    said = script(
        {"call": "add", "args": {"a": 2, "b": 3}}, {"call": "echo", "args": {"text": "hers"}}
    )
    lent = results(await here.turn(said, agent_id=agent, caller=BOB))
    assert lent[0] == ("5", False)
    assert lent[1][1]
    asked = await here.turn(
        said, session_id="t", agent_id=agent, caller=BOB, available_tools=["add", "echo"]
    )
    assert [failed for _, failed in results(asked)] == [False, True]
    alone = await here.turn(said, session_id="u", caller=BOB, available_tools=["add", "echo"])
    assert [failed for _, failed in results(alone)] == [True, True]
    await add(here, server, BOB, "his")
    his = await here.turn(said, session_id="v", caller=BOB, available_tools=["add", "echo"])
    assert results(his) == [("5", False), ("hers", False)]


async def test_a_server_that_is_gone_is_told_to_the_model(here: World) -> None:
    """It dies in the middle of a call; then it does not answer; then it is disabled."""
    with everything("streamable_http") as server:
        await add(here, server)
        agent = await here.agent(tools=["die", "echo"])
        said = script({"call": "die", "args": {}}, {"say": "So it is."})
        died = await here.turn(said, agent_id=agent)
        assert [failed for _, failed in results(died)] == [True]
        assert types(died)[-1] == "stream_end"
    said = script({"call": "echo", "args": {"text": "x"}}, {"say": "So it is."})
    [(gone, failed)] = results(await here.turn(said, session_id="t", agent_id=agent))
    assert failed
    assert "echo failed" in gone
    assert (await here.mcp.refresh(ADA, "docs")).disabled
    lines = await here.turn(said, session_id="u", agent_id=agent)
    assert "echo" in next(line["content"] for line in lines if line["type"] == "system")


async def test_interrupting_ends_a_call(here: World, server: Running) -> None:
    await add(here, server)
    agent = await here.agent(tools=["wait"])
    run = await here.start(
        script({"call": "wait", "args": {"seconds": 30}}, {"say": "no"}), agent_id=agent
    )
    await here.shown(run, 2)
    await here.runs.interrupt(ADA, "s")
    lines = await here.lines(run)
    assert results(lines) == [(CUT_OFF, True)]
    await here.idle()


async def test_a_call_is_not_made_again_after_a_crash(make: Here, server: Running) -> None:
    """The call has begun when its process is lost: who takes the run up ends it as interrupted."""
    async with make() as first:
        await add(first, server)
        agent = await first.agent(tools=["wait"])
        before = await counted(first)
        run = await first.start(
            script({"call": "wait", "args": {"seconds": 2}}, {"say": "no"}), agent_id=agent
        )
        await first.shown(run, 2)
        while await counted(first) == before:
            pass
    async with make() as second:
        lines = await second.lines(run)
        assert results(lines) == [(CUT_OFF, True)]
        assert (await second.run(run.id)).reason == "interrupted_by_restart"
        assert await counted(second) == before + 1
