"""Whole turns on the scripted model: what is streamed, and what is kept."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from domain.caller import ANONYMOUS
from domain.drafting import Drafting
from domain.errors import Conflict, Forbidden, NotFound, Unusable
from domain.turn.file_tools import NAMES as FILE_TOOLS
from domain.turn.plan import InputMessage, TurnRequest
from gateways.models.model import Delta, ModelCall
from gateways.models.script import ScriptModel
from handlers.sage.conversation import message as shown
from tests.runs.conftest import Here
from tests.runs.world import ADA, BOB, SCRIPT, World, text, types


def script(*steps: object) -> str:
    return "script:" + msgspec.json.encode(steps).decode()


class Recorder(ScriptModel):
    """The scripted model, with the calls that reached it."""

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        self.calls.append(call)
        async for delta in super().stream(call):
            yield delta


async def test_a_turn_streams_and_ends(here: World) -> None:
    run = await here.start("hello there world")
    lines = await here.lines(run)
    assert types(lines) == ["assistant_text", "token_usage", "stream_end"]
    assert text(lines) == "hello there world"
    assert len({line["message_id"] for line in lines if line["type"] == "assistant_text"}) == 1
    assert lines[-1]["total_stream_count"] == len(lines)
    ended = await here.run(run.id)
    assert (ended.state, ended.reason, ended.lines) == ("completed", None, len(lines))
    kept = await here.messages()
    assert [(m.role, m.type, m.text) for m in kept] == [
        ("user", "user_input", "hello there world"),
        ("assistant", "assistant_text", "hello there world"),
    ]
    tokens = await here.usage.tokens(ADA.user_id, 1)
    assert (tokens.calls, tokens.output_tokens) == (1, 3)
    assert (await here.usage.tokens(BOB.user_id, 1)).calls == 0


async def test_tools_run_in_the_loop(here: World) -> None:
    said = script(
        {"say": "let me see"},
        {"call": "calculator", "args": {"expression": "6 * 7"}},
        {"call": "time", "args": {"timezone": "UTC"}},
        {"call": "calculator", "args": {"expression": "__import__('os')"}},
        {"call": "nothing", "args": {}},
        {"say": "done"},
    )
    lines = await here.turn(said, agent_id=None)
    results = [line for line in lines if line["type"] == "tool_call_result"]
    assert results[0]["content"] == "42"
    assert results[1]["content"].endswith("UTC)")
    assert [line["metadata"]["failed"] for line in results] == [False, False, True, True]
    calls = [line for line in lines if line["type"] == "tool_call"]
    assert [c["tool_calls"][0]["id"] for c in calls] == [r["tool_call_id"] for r in results]
    assert all("content" not in call for call in calls)
    assert lines[-3]["content"] == "done"
    assert await here.usage.tool_counts(ADA.user_id, 1) == {
        "calculator": 2,
        "nothing": 1,
        "time": 1,
    }
    assert await here.usage.tool_counts(BOB.user_id, 1) == {}
    assert [m.role for m in await here.messages()] == ["user", *["assistant"] * 2, "tool"] + [
        "assistant",
        "tool",
    ] * 3 + ["assistant"]


async def test_a_tool_that_is_not_chosen_does_not_run(here: World) -> None:
    said = script({"call": "time"}, {"say": "so"})
    lines = await here.turn(said, available_tools=["calculator", "market-research"])
    result = next(line for line in lines if line["type"] == "tool_call_result")
    assert result["metadata"]["failed"]
    notes = [line["content"] for line in lines if line["type"] == "system"]
    assert notes == ["Skipped, as not available: market-research"]


async def test_the_loop_limit_ends_the_turn(here: World) -> None:
    said = script({"call": "time"}, {"call": "time"}, {"call": "time"}, {"say": "never"})
    lines = await here.turn(said, max_loop_count=2)
    assert [line["type"] for line in lines].count("tool_call_result") == 1
    assert "The limit of rounds is reached." in text(lines, "system")
    assert lines[-1]["type"] == "stream_end"


async def test_thoughts_and_summaries_are_no_rounds(make: Here) -> None:
    """As maxLoopCount is described: they come beside the one round, in which there are no tools."""
    model = Recorder()
    async with make(script=model) as here:
        said = script({"call": "time"}, {"say": "never"})
        lines = await here.turn(
            said, max_loop_count=1, deep_thinking=True, force_summary=True, more_suggest=True
        )
        assert [bool(call.tools) for call in model.calls] == [False] * len(model.calls)
        assert len(model.calls) == 4
        assert "The limit of rounds is reached." in text(lines, "system")


async def test_a_question_ends_the_turn_and_the_next_message_answers_it(here: World) -> None:
    said = script({"say": "hm "}, {"ask": "Which one?"}, {"say": "thanks"})
    assert text(await here.turn(said)) == "hm Which one?"
    assert text(await here.turn("the red one")) == "thanks"


async def test_failures_end_with_an_error_and_what_came_before_stays(here: World) -> None:
    run = await here.start(script({"say": "so far "}, {"fail": "quota", "status": 429}))
    lines = await here.lines(run)
    assert types(lines) == ["assistant_text", "error", "stream_end"]
    assert "quota" in lines[-2]["content"]
    assert set(lines[-2]) == {"type", "content", "role", "message_id", "session_id"}
    ended = await here.run(run.id)
    assert (ended.state, ended.reason) == ("failed", "model_refused")
    assert (await here.messages())[-2].text == "so far "
    dropped = await here.start(script({"drop": True}))
    assert types(await here.lines(dropped)) == ["error", "stream_end"]
    assert (await here.run(dropped.id)).reason == "model_dropped"
    assert text(await here.turn("and on")) == "and on"


async def test_a_failure_stays_in_the_conversation_and_is_shown_to_no_model(make: Here) -> None:
    """It was told as the run's last line, and nothing of it was kept."""
    model = Recorder()
    async with make(script=model) as here:
        run = await here.start(script({"say": "so far "}, {"fail": "quota", "status": 429}))
        lines = await here.lines(run)
        found = await here.conversations.find(ADA, "s")
        kept = shown((await here.messages())[-1], found.session_id)
        assert (kept.type, kept.role, kept.metadata) == (
            *("error", "assistant", {"reason": "model_refused"}),
        )
        assert (kept.content, kept.message_id) == (lines[-2]["content"], lines[-2]["message_id"])
        assert text(await here.turn("and on")) == "and on"
        assert [m["content"] for m in model.calls[-1].messages[2:]] == ["so far ", "and on"]
        share_id = await here.conversations.share(ADA, "s")
        _, said = await here.conversations.shared(ANONYMOUS, share_id)
        assert [one.text for one in said][1:] == ["so far ", "and on", "and on"]
        assert (await here.conversations.page(ADA, search="quota")).total == 1
        assert (await here.conversations.page(ADA, search="refused")).total == 0


async def test_a_failure_from_outside_stays_in_the_conversation(here: World) -> None:
    run = await here.start(script({"tokens": 2000, "every_ms": 5}))
    await here.shown(run, 2)
    await here.database.write(lambda: here.runs._endings.fail(run.id, "lost"))
    lines = await here.lines(run)
    *_, cut, kept = await here.messages()
    assert (cut.text, kept.type, kept.message_id) == (
        *(text(lines), "error", lines[-2]["message_id"]),
    )
    await here.turn("hi", session_id="t")
    await here.turn("hi", session_id="t", agent_mode="simple")
    assert not any(one.type == "error" for one in await here.messages("t"))


async def test_overrides_reach_the_model(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        agent_id = await here.agent(
            name="Guide",
            system_prefix="You guide.",
            system_context={"b": 1, "a": "x"},
            skills=["market-research"],
        )
        lines = await here.turn(
            "one two three",
            agent_id=agent_id,
            system_context={"c": [1]},
            llm_model_config={
                "llm_provider_id": "embedded/script",
                "temperature": 0.2,
                "max_tokens": 2,
            },
        )
        assert text(lines) == "one two "
        call = model.calls[0]
        assert (call.temperature, call.max_tokens) == (0.2, 2)
        assert call.messages[0]["content"] == "You guide.\n\n# Context\n- a: x\n- b: 1\n- c: [1]"
        assert {tool["function"]["name"] for tool in call.tools} == {
            "time",
            "calculator",
            "web_fetch",
            "web_search",
            *FILE_TOOLS,
        }
        assert text(lines, "system") == "Skipped, as not available: market-research"
        await here.turn("x", agent_id=agent_id, system_prefix="Be brief.", agent_name="Else")
        assert model.calls[1].messages[0]["content"].startswith("Be brief.")


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_an_agent_without_a_prompt_gets_the_default_template(
    make: Here, language: str
) -> None:
    """Its description says so; it got a line with its name."""
    model = Recorder()
    async with make(script=model) as here:
        bare, own = await here.agent(), await here.agent(system_prefix="You guide.")
        template = Drafting.default_prompt(language)
        for agent_id, begins in (
            (bare, template),
            (own, "You guide."),
            (None, "You are a helpful"),
        ):
            messages = [InputMessage(role="user", content="hi")]
            request = TurnRequest(messages=messages, agent_id=agent_id, llm_model_config=SCRIPT)
            started = await here.runs.start(ADA, request, language=language)
            await here.lines(started.run)
            assert model.calls[-1].messages[0]["content"].startswith(begins)


async def test_images_reach_models_that_take_them(make: Here) -> None:
    model = Recorder()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "what is it"}, image]
    async with make(script=model) as here:
        await here.turn("", messages=[{"role": "user", "content": content}])
        assert model.calls[0].messages[1]["content"] == content
        again = {"llm_provider_id": "embedded/smollm2"}
        lines = await here.turn("and now", llm_model_config=again, available_tools=["time"])
        assert text(lines) == "and now"
        assert text(lines, "system") == "Skipped, as not available: time"
        refused = [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/x.png"}}]
        lines = await here.turn("", messages=[{"role": "user", "content": refused}])
        assert types(lines)[-2:] == ["error", "stream_end"]


async def test_images_reach_the_model_of_an_agent_that_enables_them(make: Here) -> None:
    """The flag was kept and had no effect: the provider alone decided."""
    model = Recorder()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "what is it"}, image]
    messages = [{"role": "user", "content": content}]
    async with make(script=model) as here:
        sees, blind = await here.agent(multimodal=True), await here.agent(multimodal=False)
        await here.turn("", messages=messages, agent_id=sees)
        assert model.calls[0].messages[1]["content"] == content
        with pytest.raises(Unusable) as refusal:
            await here.start("", messages=messages, agent_id=blind, session_id="t")
        assert refusal.value.key == "chat.image_not_enabled"
        other = {"llm_provider_id": "embedded/smollm2"}
        with pytest.raises(Unusable) as refusal:
            await here.start("", messages=messages, agent_id=sees, llm_model_config=other)
        assert refusal.value.key == "chat.image_refused"
        assert text(await here.turn("and now", agent_id=blind)) == "and now"
        assert model.calls[-1].messages[1]["content"] == "what is it\n[image]"


async def test_a_name_for_one_run_is_not_kept_as_the_conversations(here: World) -> None:
    """A list of conversations showed it as if the agent were called so."""
    agent_id = await here.agent(name="Guide")

    async def named() -> str | None:
        return (await here.conversations.find(ADA, "s")).agent_name

    await here.turn("hi", agent_id=agent_id, agent_name="For now")
    assert ((await here.messages())[-1].agent_name, await named()) == ("For now", "Guide")
    await here.turn("hi", agent_id=agent_id)
    assert ((await here.messages())[-1].agent_name, await named()) == ("Guide", "Guide")
    await here.turn("hi", agent_name="Nobody")
    assert await named() is None


async def test_memory(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        agent_id = await here.agent()
        await here.turn("my cat is Tom", session_id="a", agent_id=agent_id)
        await here.turn("hi", session_id="b", agent_id=agent_id, memory_type="user")
        assert "- my cat is Tom" in model.calls[-1].messages[0]["content"]
        await here.turn("again", session_id="b", agent_id=agent_id)
        assert "Tom" not in model.calls[-1].messages[0]["content"]
        assert [m["content"] for m in model.calls[-1].messages[1:]] == ["hi", "hi", "again"]
        await here.turn("alone", session_id="b", agent_id=agent_id, memory_type="none")
        assert [m["content"] for m in model.calls[-1].messages[1:]] == ["alone"]
        await here.turn(
            "few", session_id="b", agent_id=agent_id, context_budget_config={"recent_turns": 1}
        )
        assert [m["content"] for m in model.calls[-1].messages[1:]] == ["alone", "alone", "few"]
        await here.turn("mine", session_id="a", agent_id=None, caller=BOB)
        assert [m["content"] for m in model.calls[-1].messages[1:]] == ["mine"]


async def test_what_is_remembered_was_said_to_the_agent(make: Here) -> None:
    """It went by the agent that a conversation had last, whoever had been talked to."""
    model = Recorder()
    async with make(script=model) as here:
        mine, other = await here.agent(), await here.agent()
        await here.agents.set_grants(ADA, mine, ["bob"])
        await here.turn("to me first", session_id="a", agent_id=mine)
        await here.turn("to the other", session_id="a", agent_id=other)
        await here.turn("to nobody", session_id="b")
        await here.turn("to me again", session_id="b", agent_id=mine)
        await here.turn("of bob", session_id="c", agent_id=mine, caller=BOB)
        await here.turn("hi", session_id="d", agent_id=mine, memory_type="user")
        system = model.calls[-1].messages[0]["content"]
        assert system.endswith("- to me again\n- to me first")


async def test_thinking_summary_and_suggestions(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        lines = await here.turn(
            "what now", deep_thinking=True, force_summary=True, more_suggest=True
        )
        assert [t for t in types(lines) if t != "token_usage"] == [
            "thinking",
            "assistant_text",
            "stage_summary",
            "query_suggest",
            "stream_end",
        ]
        assert len(model.calls) == 4
        assert "# Your thoughts" in model.calls[1].messages[0]["content"]
        assert [m["content"] for m in model.calls[1].messages[1:]] == ["what now"]
        simple = await here.turn("short", deep_thinking=True, agent_mode="simple", session_id="t")
        assert types(simple) == ["assistant_text", "token_usage", "stream_end"]


async def test_a_workflow_becomes_tasks(here: World) -> None:
    said = script(
        {"call": "choose_workflow", "args": {"name": "compare"}},
        {"call": "finish_step"},
        {"say": "compared"},
    )
    assert await here.turn(said, available_workflows={"compare": ["Find them", "Compare them"]})
    tasks = await here.runs.tasks(ADA, "s")
    assert [(t["description"], t["status"], t["workflow"]) for t in tasks] == [
        ("Find them", "completed", "compare"),
        ("Compare them", "in_progress", "compare"),
    ]
    with pytest.raises(NotFound):
        await here.runs.tasks(BOB, "s")


async def test_what_cannot_be_done_is_refused_before_anything_is_kept(here: World) -> None:
    nothing: dict[str, Any] = {"extra_mcp_config": {}, "available_skills": [], "agent_mode": None}
    nothing |= {"multi_agent": None, "custom_sub_agents": [], "available_sub_agent_ids": []}
    assert text(await here.turn("fine", session_id="ok", **nothing)) == "fine"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for messages, key in [
        ([], "chat.empty"),
        ([{"role": "user", "content": " "}], "chat.nothing_to_answer"),
        ([{"role": "system", "content": "x"}], "chat.nothing_to_answer"),
        ([{"role": "user", "content": "x", "message_id": "m"}] * 2, "chat.message_repeated"),
    ]:
        with pytest.raises(Unusable) as refusal:
            await here.start("", messages=messages)
        assert refusal.value.key == key
    for fields, key in [
        ({"context_budget_config": {"history_ratio": 2}}, "chat.context_budget"),
        ({"context_budget_config": {"what": 1}}, "chat.context_budget"),
        ({"llm_model_config": {"llm_provider_id": "nobody"}}, "agent.provider_unknown"),
        (
            {
                "llm_model_config": {"llm_provider_id": "embedded/smollm2"},
                "messages": [{"role": "user", "content": [image]}],
            },
            "chat.image_refused",
        ),
    ]:
        with pytest.raises(Unusable) as refusal:
            await here.start("x", **fields)
        assert refusal.value.key == key
    mine = await here.agent()
    with pytest.raises(NotFound):
        await here.start("x", agent_id=mine, caller=BOB)
    with pytest.raises(Forbidden):
        await here.start("x", user_id="ada", caller=BOB)
    with pytest.raises(NotFound):
        await here.messages("s")


async def test_message_ids_are_kept_and_unique(here: World) -> None:
    message = {"role": "user", "content": "x", "message_id": "mine"}
    assert text(await here.turn("", messages=[message])) == "x"
    assert (await here.messages())[0].message_id == "mine"
    assert text(await here.turn("", messages=[message])) == "x"
    assert [m.role for m in await here.messages()] == ["user", "assistant", "assistant"]
    with pytest.raises(Conflict):
        await here.start("", messages=[{**message, "content": "y"}])


async def test_many_turns_side_by_side(here: World) -> None:
    said = [f"turn number {i}" for i in range(30)]
    runs = await asyncio.gather(*(here.start(t, f"s{i}") for i, t in enumerate(said)))
    lines = await asyncio.gather(*(here.lines(run) for run in runs))
    assert [text(each) for each in lines] == said
    assert await here.runs.active(ADA) == []
