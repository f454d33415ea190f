"""Planned turns with sub-agents: the steps of a plan, and the tasks that were handed out."""

from typing import Any

from domain.turn.plan import SessionTurn
from domain.turn.telling import DECODERS, Stepped, stream_of
from storage.runs import Run
from tests.runs.conftest import Here
from tests.runs.test_sub_agents import hand, prompts
from tests.runs.test_turns import Recorder, script
from tests.runs.world import ADA, World, types
from tests.sessions.talking import plan

COUNTED = script({"call": "calculator", "args": {"expression": "6*7"}}, {"say": "It is 42."})


async def begun(here: World, said: str, **fields: Any) -> Run:
    """A planned run, in a session that is there already."""
    await here.turn("hi")
    found = await here.runs.find(ADA, "s")
    assert found is not None
    return await here.start(said, found.conversation.id, session=SessionTurn(), **fields)


async def told(here: World, run: Run, type_: str) -> list[Any]:
    """What the run's events of a type say."""
    records = await here.log.read(stream_of(run.id), 0, 1000)
    return [DECODERS[type_].decode(one.payload) for one in records if one.type == type_]


def marks(tasks: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(task.get("agent_name", task["description"]), task["status"]) for task in tasks]


async def test_a_step_hands_a_task_out(make: Here) -> None:
    model = Recorder()
    async with make(script=model) as here:
        step = script(hand(("Clerk", COUNTED)), {"say": "The clerk says 42."})
        said = script(plan(step, "Write it down"))
        run = await begun(here, said, agent_mode="fibre")
        lines = await here.lines(run)
        assert types(lines)[-1] == "stream_end"
        assert (await here.run(run.id)).state == "completed"
        tasks = await here.runs.tasks(ADA, run.conversation_id)
        assert marks(tasks) == [
            (step, "completed"),
            ("Write it down", "completed"),
            ("Clerk", "completed"),
        ]
        steps: list[Stepped] = await told(here, run, "step")
        assert [(one.id, one.status) for one in steps] == [
            *(("1", "in_progress"), ("1", "completed")),
            *(("2", "in_progress"), ("2", "completed")),
        ]
        wholes = [one.text for one in await told(here, run, "text.whole")]
        assert wholes == ["The clerk says 42.", "Write it down", "All is done."]
        below = [call for call in model.calls if call.messages[1]["content"] == COUNTED]
        assert len(below) == 2
        assert not any("# Plan" in call.messages[0]["content"] for call in below)
        assert sum("# Plan first" in prompt for prompt in prompts(model)) == 1
        schemas = [call.json_schema is not None for call in model.calls]
        assert schemas == ["# Plan first" in prompt for prompt in prompts(model)]
        found = await here.runs.find(ADA, run.conversation_id)
        assert found is not None
        assert found.conversation.latest_message == "All is done."


async def test_what_a_stop_leaves_of_a_step_and_its_task(make: Here) -> None:
    async with make() as here:
        slow = script({"tokens": 2000, "every_ms": 5})
        run = await begun(here, script(plan(script(hand(("worker", slow))))), multi_agent=True)
        await here.shown(run, 5)
        [cut] = {one.message_id for one in await told(here, run, "text") if one.by is not None}
        await here.runs.interrupt(ADA, run.conversation_id)
        steps: list[Stepped] = await told(here, run, "step")
        assert [one.status for one in steps] == ["in_progress", "failed"]
        tasks = await here.runs.tasks(ADA, run.conversation_id)
        assert [task["status"] for task in tasks if "agent_name" not in task] == ["failed"]
        assert await told(here, run, "text.whole") == []
        [kept] = [m for m in await here.messages(run.conversation_id) if m.message_id == cut]
        assert (kept.details or {})["unfinished"]
        assert kept.task_id == next(task["id"] for task in tasks if "agent_name" in task)
        await here.idle()


async def test_a_plans_steps_are_no_tasks_of_sub_agents(make: Here) -> None:
    """Tasks may be handed out beside a long plan."""
    async with make() as here:
        steps = [script(hand(("worker", "one"), ("worker", "two"), ("worker", "three")))]
        run = await begun(
            here, script(plan(*steps, *["Wait"] * 29)), multi_agent=True, max_loop_count=50
        )
        await here.lines(run)
        tasks = await here.runs.tasks(ADA, run.conversation_id)
        assert marks(tasks).count(("worker", "completed")) == 3
        assert [status for _, status in marks(tasks)] == ["completed"] * 33
