"""MCP servers that a request brings along, against real ones."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from domain.brought_mcp import HEADERS_MAX, SERVERS_MAX
from domain.errors import Unusable
from domain.runs.ending import CUT_OFF
from tests.runs.conftest import Here
from tests.runs.test_mcp_tools import add, counted, results
from tests.runs.test_sub_agents import hand, of_tasks
from tests.runs.test_turns import Recorder, script
from tests.runs.world import ADA, World, text
from tests.tools.servers import Running, everything

KEY = "canary-brought-5cH9xQ2v"
ADD = {"call": "add", "args": {"a": 2, "b": 3}}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with everything("streamable_http") as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with everything("streamable_http", KEY) as running:
        yield running


@pytest.fixture(scope="module")
def sse() -> Iterator[Running]:
    with everything("sse", KEY) as running:
        yield running


async def test_a_runs_own_servers(here: World, guarded: Running, sse: Running) -> None:
    """By key or by header, over either protocol, for that run and no other."""
    said = script(ADD, {"call": "calculator", "args": {"expression": "1"}}, {"say": "Done."})
    ways: list[dict[str, Any]] = [
        {"url": guarded.endpoint.url, "api_key": KEY},
        {
            "streamable_http_url": guarded.endpoint.url,
            "headers": {"Authorization": f"Bearer {KEY}"},
        },
        {"sse_url": sse.endpoint.url, "api_key": KEY, "disabled": False},
        {"protocol": "sse", "url": sse.endpoint.url, "api_key": KEY, "headers": None},
    ]
    for number, way in enumerate(ways):
        lines = await here.turn(said, session_id=f"s{number}", extra_mcp_config={"docs": way})
        assert results(lines) == [("5", False), ("1", False)], way
        after = await here.turn(said, session_id=f"s{number}")
        assert results(after)[0][1]
    assert not await here.mcp.tools(ADA)
    assert not await here.mcp.visible(ADA)


async def test_beside_the_tools_that_are_there(make: Here, server: Running) -> None:
    """Names that are taken get the server's before them; what is named and comes along is not
    skipped."""
    model = Recorder()
    async with make(script=model) as here:
        await add(here, server)
        agent = await here.agent(tools=["echo"])
        config = {"more": {"url": server.endpoint.url}}
        said = script({"call": "more_echo", "args": {"text": "hi"}}, ADD, {"say": "Done."})
        lines = await here.turn(
            said,
            agent_id=agent,
            available_tools=["echo", "add", "nothing"],
            extra_mcp_config=config,
        )
        assert results(lines) == [("hi", False), ("5", False)]
        assert text(lines, "system") == "Skipped, as not available: nothing"
        names = [tool["function"]["name"] for tool in model.calls[0].tools]
        assert len(names) == len(set(names))
        assert {"echo", "more_echo", "add", "more_calculator"} <= set(names)


async def test_a_server_that_does_not_answer_is_skipped(here: World, guarded: Running) -> None:
    with everything("streamable_http") as gone:
        pass
    config = {
        "gone": {"url": gone.endpoint.url},
        "locked": {"url": guarded.endpoint.url, "api_key": "wrong"},
        "off": {"url": "http://10.0.0.1/mcp", "disabled": True},
    }
    lines = await here.turn(script(ADD, {"say": "Done."}), extra_mcp_config=config)
    assert text(lines, "system") == "Skipped, as not available: gone, locked"
    assert "There is no tool 'add'" in results(lines)[0][0]
    assert text(lines) == "Done."


async def test_sub_agents_have_what_they_name(make: Here, server: Running) -> None:
    model = Recorder()
    async with make(script=model) as here:
        names = await here.agent(name="Names", tools=["add", "no_such"])
        other = await here.agent(name="Other", tools=["time"])
        task = script(ADD, {"say": "Done."})
        lines = await here.turn(
            script(hand(("Names", task), ("Other", task), ("Like", task)), {"say": "Done."}),
            available_sub_agent_ids=[names, other],
            custom_sub_agents=[{"name": "Like"}],
            extra_mcp_config={"docs": {"url": server.endpoint.url}},
        )
        gave = {
            line["agent_name"]: line["metadata"]["failed"]
            for line in of_tasks(lines)
            if line["type"] == "tool_call_result"
        }
        assert gave == {"Names": False, "Other": True, "Like": False}
        [skipped] = [line["content"] for line in of_tasks(lines) if line["type"] == "system"]
        assert skipped == "Skipped, as not available: no_such"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"command": "sh", "args": ["-c", "id"]}, "chat.mcp_config"),
    ({"protocol": "stdio", "url": "http://127.0.0.1/"}, "chat.mcp_config"),
    ({"url": "http://127.0.0.1/", "typo": 1}, "chat.mcp_config"),
    ({"url": "http://127.0.0.1/", "headers": {"Host": "x"}}, "chat.mcp_config"),
    ({"url": "http://127.0.0.1/", "headers": {"Accept-Encoding": "gzip"}}, "chat.mcp_config"),
    ({"url": "http://127.0.0.1/", "headers": {"a b": "x"}}, "chat.mcp_config"),
    ({"url": "http://127.0.0.1/", "headers": {"x": "a\r\nb: c"}}, "chat.mcp_config"),
    ({"url": "http://127.0.0.1/", "api_key": "a\nb"}, "chat.mcp_config"),
    (
        {"url": "http://127.0.0.1/", "headers": {f"x{n}": "" for n in range(HEADERS_MAX + 1)}},
        "chat.mcp_config",
    ),
    ({"url": "http://127.0.0.1/", "api_key": "****abcd"}, "mcp.key_masked"),
    ({}, "mcp.url_missing"),
    ({"protocol": "sse", "streamable_http_url": "http://127.0.0.1/"}, "mcp.url_missing"),
    ({"url": "file:///etc/passwd"}, "mcp.address_invalid"),
    ({"url": "http://127.0.0.1/#x"}, "mcp.address_invalid"),
    ({"url": "http://169.254.169.254/mcp"}, "mcp.address_refused"),
    ({"url": "http://[::ffff:10.0.0.1]/mcp"}, "mcp.address_refused"),
]


@pytest.mark.parametrize(("given", "key"), REFUSED, ids=lambda one: str(one)[:60])
async def test_what_is_no_server_is_refused_before_anything_is_kept(
    here: World, given: dict[str, Any], key: str
) -> None:
    with pytest.raises(Unusable) as refusal:
        await here.start("x", extra_mcp_config={"bad": given})
    assert refusal.value.key == key
    assert await here.store.unfinished() == []


async def test_a_request_brings_a_bounded_number(here: World) -> None:
    one = {"url": "http://127.0.0.1/", "disabled": True}
    assert await here.turn("hi", extra_mcp_config={f"{n}": one for n in range(SERVERS_MAX)})
    for config in (
        {f"{n}": one for n in range(SERVERS_MAX + 1)},
        {"long": {**one, "headers": {f"x{n}": "v" * 8000 for n in range(10)}}},
        {"bare": "http://127.0.0.1/"},
    ):
        with pytest.raises(Unusable) as refusal:
            await here.start("x", session_id="t", extra_mcp_config=config)
        assert refusal.value.key == "chat.mcp_config"


async def test_a_run_between_strides_goes_on_with_its_servers(make: Here, guarded: Running) -> None:
    """The servers are in its row, sealed, and opened by whoever takes it up."""
    config = {"docs": {"url": guarded.endpoint.url, "headers": {"authorization": f"Bearer {KEY}"}}}
    async with make() as first:

        async def nothing(*_: object) -> None:
            """A crash at this point."""

        first.runs._workflows.start = nothing  # type: ignore[method-assign]
        run = await first.start(script(ADD, {"say": "Done."}), extra_mcp_config=config)
        assert KEY not in json.dumps((await first.run(run.id)).request)
        assert guarded.endpoint.url not in json.dumps((await first.run(run.id)).request)
    async with make() as second:
        assert results(await second.lines(run)) == [("5", False)]


async def test_a_call_is_not_made_again_after_a_crash(make: Here, server: Running) -> None:
    config = {"docs": {"url": server.endpoint.url}}
    async with make() as first:
        await add(first, server)
        before = await counted(first)
        said = script({"call": "wait", "args": {"seconds": 2}}, {"say": "no"})
        run = await first.start(said, extra_mcp_config=config)
        await first.shown(run, 2)
        while await counted(first) == before:
            pass
    async with make() as second:
        lines = await second.lines(run)
        assert results(lines) == [(CUT_OFF, True)]
        assert (await second.run(run.id)).reason == "interrupted_by_restart"
        assert await counted(second) == before + 1


async def test_servers_that_cannot_be_opened_end_the_run(make: Here, server: Running) -> None:
    """As after the key was lost: the run ends, rather than go on without them."""
    config = {"docs": {"url": server.endpoint.url}}
    async with make() as first:

        async def nothing(*_: object) -> None:
            """A crash at this point."""

        first.runs._workflows.start = nothing  # type: ignore[method-assign]
        run = await first.start(script(ADD, {"say": "Done."}), extra_mcp_config=config)
    async with make(secrets_key=bytes(range(32))) as second:
        lines = await second.lines(run)
        assert [line["type"] for line in lines] == ["error", "stream_end"]
        assert (await second.run(run.id)).state == "failed"


async def test_nothing_tells_the_key(here: World, guarded: Running) -> None:
    config = {"docs": {"url": guarded.endpoint.url, "headers": {"Authorization": f"Bearer {KEY}"}}}
    run = await here.start(script(ADD, {"say": "Done."}), extra_mcp_config=config)
    lines = await here.lines(run)
    assert results(lines) == [("5", False)]
    records = await here.log.read(f"run:{run.id}")
    told = json.dumps(lines).encode() + b"".join(record.payload for record in records)
    assert KEY.encode() not in told
    assert all(KEY not in repr(message) for message in await here.messages())
    assert KEY not in repr(await here.run(run.id))
