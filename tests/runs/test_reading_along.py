"""A conversation that is read while its run goes on: what is read, and the lines behind it, are
the whole, wherever the run stands."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from gateways.models.model import Delta, ModelCall, ToolCall
from gateways.models.script import ScriptModel
from gateways.webpage import Page, WebPages
from storage.conversations import Message
from tests.runs.conftest import Here
from tests.runs.test_sub_agents import hand
from tests.runs.test_turns import script
from tests.runs.world import ADA, World

TOLD = {"assistant_text", "reasoning_content", "thinking", "stage_summary", "tool_call_result"}


def joined(messages: list[Message], lines: list[dict[str, Any]]) -> dict[str, str]:
    """What each message says with the lines that follow, by its id."""
    texts = {one.message_id: one.text for one in messages if one.type in TOLD and one.text}
    for line in lines:
        if line["type"] in TOLD:
            texts[line["message_id"]] = texts.get(line["message_id"], "") + line["content"]
    return texts


async def test_nothing_is_lost_or_said_twice(here: World) -> None:
    """Read again and again while the run thinks, calls tools, hands out tasks and answers."""
    task = script({"call": "time"}, {"tokens": 10, "every_ms": 3})
    run = await here.start(
        script(
            {"tokens": 20, "every_ms": 3},
            {"call": "calculator", "args": {"expression": "6 * 7"}},
            hand(("A", task), ("B", task)),
            {"tokens": 30, "every_ms": 3},
        ),
        deep_thinking=True,
        force_summary=True,
        custom_sub_agents=[{"name": "A"}, {"name": "B"}],
    )
    read = []
    async with here.runs.follow(run.id, idle_s=10) as follower:
        async for records in follower:
            found = await here.conversations.transcript(ADA, "s")
            assert len({one.message_id for one in found.messages}) == len(found.messages)
            read.append(found)
            if records[-1].type == "run.ended":
                break
    lines = await here.lines(run)
    whole = joined(await here.messages(), [])
    assert whole == joined([], lines)
    assert len({found.next_line for found in read}) > 3
    for found in read:
        assert joined(found.messages, lines[found.next_line :]) == whole


class TwoAtOnce(ScriptModel):
    """A model that asks for two tools at once, and then answers."""

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        if call.messages[-1]["role"] == "tool":
            async for delta in super().stream(call):
                yield delta
            return
        yield ToolCall("c1", "calculator", '{"expression": "6 * 7"}')
        yield ToolCall("c2", "web_fetch", '{"url": "http://127.0.0.1/"}')


async def test_a_result_that_came_before_another(
    make: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told at once, and kept with the last one."""
    go_on = asyncio.Event()

    async def slow(_: WebPages, url: str) -> Page:
        await go_on.wait()
        return Page(url=url, title="", text="the page", truncated=False)

    monkeypatch.setattr(WebPages, "read", slow)
    async with make(script=TwoAtOnce()) as here:
        run = await here.start("hi")
        await here.shown(run, 2)
        found = await here.conversations.transcript(ADA, "s")
        last = found.messages[-1]
        assert (last.type, last.text, last.tool_call_id) == ("tool_call_result", "42", "c1")
        go_on.set()
        lines = await here.lines(run)
        kept = await here.messages()
        assert joined(found.messages, lines[found.next_line :]) == joined(kept, [])
        again = next(one for one in kept if one.message_id == last.message_id)
        assert (again.role, again.type, again.details, again.agent_name) == (
            *(last.role, last.type, last.details, last.agent_name),
        )
