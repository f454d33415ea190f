"""Sub-agents: who gets a task, what they do with it, and what comes of it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from domain.errors import Unusable
from domain.turn import delegation
from domain.turn.loop import THINK
from domain.turn.planning import SUB_AGENTS_MAX
from gateways.errors import ModelRefused
from gateways.models.model import Capabilities, Delta, Finish, ModelCall, ToolCall
from gateways.models.script import ScriptModel
from storage.agents import AgentFields
from tests.runs.conftest import Here
from tests.runs.test_turns import Recorder, script
from tests.runs.world import ADA, BOB, World, text, types


def hand(*tasks: tuple[str, str], **more: str) -> dict[str, Any]:
    """A step of a script that hands out tasks."""
    parts = [{"agent": agent, "task": task, **more} for agent, task in tasks]
    return {"call": "delegate", "args": {"tasks": parts}}


def results(lines: list[dict[str, Any]]) -> list[str]:
    """What the run's own agent got back."""
    return [
        line["content"]
        for line in lines
        if line["type"] == "tool_call_result" and "task" not in line["metadata"]
    ]


def of_tasks(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if "task" in line.get("metadata", {})]


def prompts(model: Recorder) -> list[str]:
    return [call.messages[0]["content"] for call in model.calls]


def tools(call: ModelCall) -> set[str]:
    return {tool["function"]["name"] for tool in call.tools}


async def test_a_sub_agent_works_by_its_own_settings(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        sums = await here.agent(
            name="Sums",
            description="Counts",
            system_prefix="You count.",
            system_context={"unit": "cm"},
            tools=["calculator", "no_such"],
        )
        lead = await here.agent(name="Lead", sub_agent_ids=[sums], multi_agent=True)
        counted = script(
            {"call": "calculator", "args": {"expression": "6*7"}}, {"say": "It is 42."}
        )
        said = script(hand(("Sums", counted)), {"say": "Done."})
        run = await here.start(said, agent_id=lead, system_context={"day": "Monday"})
        lines = await here.lines(run)
        assert results(lines) == ["It is 42."]
        told = of_tasks(lines)
        assert text([line for line in lines if line not in told]) == "Done."
        assert types(told) == [
            "system",
            "token_usage",
            "tool_call",
            "tool_call_result",
            "assistant_text",
            "token_usage",
        ]
        assert {line["agent_name"] for line in told} == {"Sums"}
        [call] = [line for line in lines if line["type"] == "tool_call" and line not in told]
        assert {line["metadata"]["task"]["task_id"] for line in told} == {
            f"{call['message_id']}.0.0"
        }
        assert told[0]["metadata"]["task"] == {
            "task_id": f"{call['message_id']}.0.0",
            "agent_id": sums,
            "tool_call_id": call["tool_calls"][0]["id"],
            "parent_task_id": "",
        }
        assert "no_such" in told[0]["content"]
        first, below, again, _ = model.calls
        assert below.messages[0]["content"] == "You count.\n\n# Context\n- day: Monday\n- unit: cm"
        assert [m["content"] for m in below.messages[1:]] == [counted]
        assert tools(below) == {"calculator"}
        assert again.messages[-1]["content"] == "42"
        assert "# Sub-agents" in first.messages[0]["content"]
        assert "- Sums: Counts" in first.messages[0]["content"]
        [task] = await here.runs.tasks(ADA, "s")
        assert (task["agent_name"], task["status"]) == ("Sums", "completed")
        kept = await here.messages()
        apart = [m for m in kept if m.task_id]
        assert [m.type for m in apart] == ["tool_call", "tool_call_result", "assistant_text"]
        assert all((m.details or {})["task"]["agent_id"] == sums for m in apart)
        assert (await here.run(run.id)).lines == len(lines)
        await here.turn("and now", agent_id=lead)
        assert [m["role"] for m in model.calls[-1].messages] == [
            *("system", "user", "assistant", "tool", "assistant", "user")
        ]


async def test_a_sub_agents_model_is_its_own(make: Here) -> None:
    """A sub-agent's provider is its own; one that binds none has the run's."""
    model = Recorder()
    async with make(script=model) as here:
        plain = await here.agent(name="Plain", provider_id="embedded/smollm2")
        lines = await here.turn(
            script(hand(("Plain", "echo me")), {"say": "Done."}), available_sub_agent_ids=[plain]
        )
        assert results(lines) == ["echo me"]
        models = [
            line["metadata"]["token_usage"]["model"]
            for line in of_tasks(lines)
            if line["type"] == "token_usage"
        ]
        assert models == ["embedded/smollm2"]
        assert len(model.calls) == 2


class Meeting(ScriptModel):
    """Answers "meet" only once two calls of it are under way at once."""

    def __init__(self) -> None:
        self.barrier = asyncio.Barrier(2)

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        if call.messages[-1] == {"role": "user", "content": "meet"}:
            async with asyncio.timeout(20):
                await self.barrier.wait()
        async for delta in super().stream(call):
            yield delta


async def test_tasks_of_one_call_go_side_by_side(make: Here) -> None:
    async with make(script=Meeting()) as here:
        one, two = await here.agent(name="One"), await here.agent(name="Two")
        lines = await here.turn(
            script(hand(("One", "meet"), ("Two", "meet")), {"say": "Met."}),
            available_sub_agent_ids=[one, two],
        )
        assert results(lines) == ["## One\nmeet\n\n## Two\nmeet"]
        assert {line["agent_name"] for line in of_tasks(lines)} == {"One", "Two"}
        assert [task["status"] for task in await here.runs.tasks(ADA, "s")] == ["completed"] * 2
        run = await here.store.latest((await here.messages())[0].conversation_id)
        assert run is not None
        assert run.lines == len(lines)


class Twice(Meeting):
    """Asks for two delegations in one answer."""

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        if call.messages[-1]["content"] == "both":
            for name in ("One", "Two"):
                arguments = msgspec.json.encode(hand((name, "meet"))["args"]).decode()
                yield ToolCall(name, "delegate", arguments)
            yield Finish("tool_calls")
            return
        async for delta in super().stream(call):
            yield delta


async def test_calls_of_one_answer_go_side_by_side(make: Here) -> None:
    async with make(script=Twice()) as here:
        one, two = await here.agent(name="One"), await here.agent(name="Two")
        lines = await here.turn("both", available_sub_agent_ids=[one, two])
        assert results(lines) == ["meet", "meet"]
        calls = {line["tool_call_id"] for line in lines if line["type"] == "tool_call_result"}
        assert calls == {"One", "Two"}
        assert {line["metadata"]["task"]["tool_call_id"] for line in of_tasks(lines)} == calls


async def test_a_task_that_fails_is_told_and_the_run_goes_on(here: World) -> None:
    lines = await here.turn(
        script(
            hand(("worker", script({"say": "so far "}, {"fail": "quota", "status": 429}))),
            hand(("worker", script({"ask": "Which one?"}))),
            hand(("worker", script({"call": "time"}, {"call": "time"}))),
            hand(("nobody", "x")),
            {"call": "delegate", "args": {"tasks": "x"}},
            {"say": "On we go."},
        ),
        multi_agent=True,
        max_loop_count=10,
    )
    told = results(lines)
    assert "quota" in told[0]
    assert told[1:3] == ["Which one?", ""]
    assert "there is no sub-agent 'nobody'; there are: worker" in told[3]
    assert "do not fit" in told[4]
    failed = [
        line["metadata"]["failed"]
        for line in lines
        if line["type"] == "tool_call_result" and "task" not in line["metadata"]
    ]
    assert failed == [True, False, False, True, True]
    assert [line["type"] for line in lines if line["type"] == "error"] == []
    assert lines[-3]["content"] == "go."
    statuses = [task["status"] for task in await here.runs.tasks(ADA, "s")]
    assert statuses == ["failed", "completed", "completed"]


class Thoughtless(Recorder):
    """Refuses to think."""

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        if call.messages[-1]["content"] == THINK:
            self.calls.append(call)
            raise ModelRefused(400, "no thoughts")
        async for delta in super().stream(call):
            yield delta


async def test_a_sub_agent_that_cannot_think_is_asked_once(make: Here) -> None:
    """It fails before it has said anything, and is not begun anew."""
    model = Thoughtless()
    async with make(script=model) as here:
        thinker = await here.agent(name="Thinker", deep_thinking=True)
        said = script(hand(("Thinker", "x")), {"say": "On we go."})
        lines = await here.turn(said, available_sub_agent_ids=[thinker])
        assert "no thoughts" in results(lines)[0]
        assert text(lines) == "On we go."
        assert len(model.calls) == 3


async def test_limits_hold_below(make: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sub-agent's own loop limit, the request's, and the number of tasks."""
    many = script(*[{"call": "time"}] * 5, {"say": "never"})
    monkeypatch.setattr(delegation, "TASKS_OF_RUN", 2)
    model = Recorder()
    async with make(script=model) as here:
        brief = await here.agent(name="Brief", max_loop_count=2)
        said = script(hand(("Brief", many)), hand(("Brief", "a"), ("Brief", "b")), {"say": "End."})
        lines = await here.turn(said, available_sub_agent_ids=[brief])
        below = [line["type"] for line in of_tasks(lines)]
        assert below.count("tool_call") == 1
        assert any(
            "limit of rounds" in line["content"]
            for line in of_tasks(lines)
            if line["type"] == "system"
        )
        assert "at most 2 tasks" in results(lines)[1]
        lines = await here.turn(
            script(hand(("worker", many)), {"say": "End."}),
            session_id="t",
            multi_agent=True,
            max_loop_count=3,
        )
        assert [line["type"] for line in of_tasks(lines)].count("tool_call") == 2


async def test_tasks_are_handed_on_three_agents_deep_and_never_back(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        a = await here.agent(name="A", multi_agent=True)
        b = await here.agent(name="B", multi_agent=True, sub_agent_ids=[a])
        c = await here.agent(name="C", multi_agent=True, sub_agent_ids=[b])
        fields = AgentFields(name="A", multi_agent=True, sub_agent_ids=[b, c])
        await here.agents.replace(ADA, a, fields)
        deepest = script(hand(("A", "x")), hand(("C", "x")), {"say": "deep"})
        said = script(hand(("C", script(hand(("B", deepest)), {"say": "middle"}))), {"say": "top"})
        lines = await here.turn(said, agent_id=a)
        assert results(lines) == ["middle"]
        deep = [line for line in of_tasks(lines) if line["agent_name"] == "B"]
        assert [line["content"] for line in deep if line["type"] == "tool_call_result"] == [
            "There is no tool 'delegate'."
        ] * 2
        parents = {line["metadata"]["task"]["parent_task_id"] for line in deep}
        assert parents == {
            line["metadata"]["task"]["task_id"]
            for line in of_tasks(lines)
            if line["agent_name"] == "C"
        }
        with_delegates = [call for call in model.calls if "delegate" in tools(call)]
        offered = [
            next(t for t in call.tools if t["function"]["name"] == "delegate")["function"][
                "parameters"
            ]["properties"]["tasks"]["items"]["properties"]["agent"]["enum"]
            for call in with_delegates
        ]
        assert offered[:2] == [["B", "C"], ["B"]]


async def test_whose_agents_are_whose(make: Here) -> None:
    """A stranger's agent is one that is not there; a grant opens it, and an agent lends its own."""
    async with make() as here:
        hers = await here.agent(name="Hers")
        for unknown in (hers, "01a20630-0000-7000-8000-00000000dead"):
            with pytest.raises(Unusable) as refusal:
                await here.start("x", caller=BOB, available_sub_agent_ids=[unknown])
            assert (refusal.value.key, refusal.value.details) == (
                "agent.sub_agent_unknown",
                {"agent_id": unknown},
            )
            with pytest.raises(Unusable):
                await here.agent(BOB, sub_agent_ids=[unknown])
        said = script(hand(("Hers", "hello")), {"say": "Done."})
        lead = await here.agent(name="Lead", sub_agent_ids=[hers], multi_agent=True)
        await here.agents.set_grants(ADA, lead, [BOB.user_id])
        assert results(await here.turn(said, agent_id=lead, caller=BOB)) == ["hello"]
        asked = {"available_sub_agent_ids": [hers], "caller": BOB}
        assert results(await here.turn(said, session_id="t", agent_id=lead, **asked)) == ["hello"]
        with pytest.raises(Unusable):
            await here.start(said, session_id="u", **asked)
        await here.agents.set_grants(ADA, hers, [BOB.user_id])
        assert results(await here.turn(said, session_id="u", **asked)) == ["hello"]
        his = await here.agent(BOB, name="His", sub_agent_ids=[hers], multi_agent=True)
        await here.agents.set_grants(ADA, hers, [])
        lines = await here.turn(said, session_id="v", agent_id=his, caller=BOB)
        assert text(lines, "system").startswith(f"Skipped, as not available: {hers}")
        assert "there is no sub-agent 'Hers'" in results(lines)[0]


async def test_when_an_agent_hands_work_out(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        sub = await here.agent(name="Sub")
        saved = await here.agent(name="Saved", sub_agent_ids=[sub])
        willing = await here.agent(name="Willing", sub_agent_ids=[sub], multi_agent=True)
        for number, (fields, names) in enumerate(
            [
                ({}, None),
                ({"agent_id": saved}, None),
                ({"agent_id": saved, "multi_agent": True}, ["Sub"]),
                ({"agent_id": willing}, ["Sub"]),
                ({"agent_id": willing, "multi_agent": False}, None),
                ({"agent_id": willing, "agent_mode": "simple"}, None),
                ({"available_sub_agent_ids": [sub]}, ["Sub"]),
                ({"available_sub_agent_ids": [sub], "multi_agent": False}, None),
                ({"custom_sub_agents": [{"name": "X"}, {"name": "X"}]}, ["X", "X (2)"]),
                ({"multi_agent": True}, ["worker"]),
                ({"agent_mode": "whatever"}, None),
            ]
        ):
            await here.turn("hi", session_id=f"s{number}", **fields)
            offered = [
                tool["function"]["parameters"]["properties"]["tasks"]["items"]["properties"]
                for tool in model.calls[-1].tools
                if tool["function"]["name"] == "delegate"
            ]
            assert [one["agent"]["enum"] for one in offered] == ([names] if names else []), fields
        plain = {"llm_model_config": {"llm_provider_id": "embedded/smollm2"}}
        lines = await here.turn("hi", session_id="p", available_sub_agent_ids=[sub], **plain)
        assert "Sub" in text(lines, "system")


async def test_sub_agents_that_a_request_describes(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        agent = await here.agent(name="Lead", system_prefix="You lead.", tools=["time"])
        custom = [
            {
                "agent_id": "prices",
                "name": "Prices",
                "system_prompt": "You price.",
                "description": "Knows prices",
                "available_tools": ["calculator"],
                "available_skills": ["no-such-skill"],
                "available_workflows": {"sell": ["Ask", "Bid"]},
                "system_context": {"currency": "EUR"},
            },
            {"name": "Bare"},
        ]
        task = script({"call": "choose_workflow", "args": {"name": "sell"}}, {"say": "priced"})
        lines = await here.turn(
            script(hand(("prices", task), ("Bare", "bare")), {"say": "Done."}),
            agent_id=agent,
            custom_sub_agents=custom,
        )
        assert results(lines) == ["## prices\npriced\n\n## Bare\nbare"]
        priced = next(call for call in model.calls if "You price." in call.messages[0]["content"])
        assert "- currency: EUR" in priced.messages[0]["content"]
        assert tools(priced) == {"calculator", "choose_workflow", "finish_step"}
        bare = next(call for call in model.calls if call.messages[-1]["content"] == "bare")
        assert bare.messages[0]["content"] == "You lead."
        assert tools(bare) == {"time"}
        skipped = [line for line in of_tasks(lines) if line["type"] == "system"]
        assert [line["agent_name"] for line in skipped] == ["prices"]
        shown = [(t["workflow"], t["status"]) for t in await here.runs.tasks(ADA, "s")]
        assert sorted(shown) == [
            ("", "completed"),
            ("", "completed"),
            ("sell", "in_progress"),
            ("sell", "pending"),
        ]


async def test_fibre_makes_sub_agents_up(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        sub = await here.agent(name="Sub", system_prefix="You are sub.")
        said = script(
            hand(("Sub", "one"), ("Poet", "two"), instructions="You rhyme."), {"say": "Done."}
        )
        lines = await here.turn(
            said, agent_mode="fibre", available_sub_agent_ids=[sub], available_tools=["time"]
        )
        assert results(lines) == ["## Sub\none\n\n## Poet\ntwo"]
        assert "Divide the work" in prompts(model)[0]
        poet = next(call for call in model.calls if call.messages[-1]["content"] == "two")
        assert poet.messages[0]["content"] == "You rhyme."
        assert tools(poet) == {"time"}
        named = next(call for call in model.calls if call.messages[-1]["content"] == "one")
        assert named.messages[0]["content"] == "You are sub."
        plain = await here.turn(
            script(hand(("Poet", "two")), {"say": "Done."}),
            session_id="t",
            available_sub_agent_ids=[sub],
        )
        assert "there is no sub-agent 'Poet'" in results(plain)[0]


async def test_a_team_works_on_it_together(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        members = [await here.agent(name=name, system_prefix=f"You are {name}.") for name in "AB"]
        said = script(hand(("A", "x")), {"say": "our view"})
        lines = await here.turn(
            said, agent_mode="team", available_sub_agent_ids=members, max_loop_count=2
        )
        assert types(lines)[0] == "tool_call"
        assert [call["function"]["name"] for call in lines[0]["tool_calls"]] == ["delegate"]
        assert results(lines) == ["## A\nour view\n\n## B\nour view"]
        shared = [call for call in model.calls if call.messages[0]["content"].startswith("You are")]
        assert [call.messages[1]["content"] for call in shared[:2]] == [said, said]
        lead = model.calls[-1]
        assert "Each of them has worked on the task" in lead.messages[0]["content"]
        assert lead.messages[-1]["role"] == "tool"
        assert (
            text([line for line in lines if "task" not in line.get("metadata", {})]) == "our view"
        )
        alone = await here.turn("hm", session_id="t", agent_mode="team")
        assert results(alone) == ["hm"]
        assert {line["agent_name"] for line in of_tasks(alone)} == {"worker"}


class NoTools(Recorder):
    capabilities = Capabilities(tools=False, images=False, json_schema=True)


async def test_a_team_needs_no_tools(make: Here) -> None:
    """A model that takes none hands out nothing, so that the team did nothing, without a word."""
    model = NoTools()
    async with make(script=model) as here:
        members = [{"name": "A", "system_prompt": "You are A."}, {"name": "B"}]
        lines = await here.turn("hm", agent_mode="team", custom_sub_agents=members)
        assert results(lines) == ["## A\nhm\n\n## B\nhm"]
        assert {line["agent_name"] for line in of_tasks(lines)} == {"A", "B"}
        assert text(lines, "system") == ""
        lead = model.calls[-1]
        assert "Each of them has worked on the task" in lead.messages[0]["content"]
        assert lead.messages[-1]["content"] == results(lines)[0]
        assert not any(call.tools for call in model.calls)


async def test_without_tools_nobody_else_hands_work_out(make: Here) -> None:
    model = NoTools()
    async with make(script=model) as here:
        fields: dict[str, Any] = {"custom_sub_agents": [{"name": "A"}], "deep_thinking": True}
        for number, mode in enumerate(("default", "fibre")):
            model.calls.clear()
            lines = await here.turn("hm", session_id=f"s{number}", agent_mode=mode, **fields)
            assert of_tasks(lines) == []
            assert text(lines, "system") == "Skipped, as not available: A"
            assert not any("# Sub-agents" in call.messages[0]["content"] for call in model.calls)


async def test_a_run_has_a_bounded_cast(here: World) -> None:
    subs = [await here.agent(name=f"n{number}") for number in range(SUB_AGENTS_MAX + 2)]
    lines = await here.turn("hi", available_sub_agent_ids=subs)
    skipped = text(lines, "system")
    assert skipped == f"Skipped, as not available: n{SUB_AGENTS_MAX}, n{SUB_AGENTS_MAX + 1}"


async def test_an_interrupt_reaches_the_sub_agents(here: World) -> None:
    slow = script({"tokens": 2000, "every_ms": 5})
    one, two = await here.agent(name="One"), await here.agent(name="Two")
    run = await here.start(
        script(hand(("One", slow), ("Two", slow)), {"say": "never"}),
        available_sub_agent_ids=[one, two],
    )
    await here.shown(run, 12)
    await here.runs.interrupt(ADA, "s", "enough")
    lines = await here.lines(run)
    assert types(lines)[-2:] == ["system", "stream_end"]
    assert (await here.run(run.id)).state == "cancelled"
    await here.idle()
    assert len(await here.lines(run)) == len(lines)
    kept = {m.agent_name: m for m in await here.messages() if m.task_id}
    assert kept.keys() == {"One", "Two"}
    for name, message in kept.items():
        said = [
            line["content"]
            for line in of_tasks(lines)
            if line["agent_name"] == name and line["type"] == "assistant_text"
        ]
        assert message.text == "".join(said)
        assert (message.details or {})["unfinished"]
    assert text(await here.turn("and on")) == "and on"
