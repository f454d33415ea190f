"""Plans of sessions: what is one, and how its steps move. Whole turns: tests/sessions."""

import json

import pytest

from domain.turn import planned
from domain.turn.planned import STEPS_MAX


def drawn(*steps: str, **fields: str) -> str:
    return json.dumps({"steps": [{"description": step} for step in steps], **fields})


@pytest.mark.parametrize(
    "text",
    [
        drawn("one", "two", title="T", message="M", closing="C"),
        "  " + drawn("one", " ", "two", title="T", message="M", closing="C") + " and then words",
    ],
)
def test_a_plan(text: str) -> None:
    plan = planned.read(text)
    assert plan is not None
    assert [step.description for step in plan.steps] == ["one", "two"]
    assert (plan.title, plan.message, plan.closing) == ("T", "M", "C")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "words",
        "{",
        "[]",
        "{}",
        drawn(),
        drawn(" "),
        '{"steps": ["one"]}',
        '{"steps": [{"description": 1}]}',
        drawn(*["x"] * (STEPS_MAX + 1)),
        "[" * 100_000,
    ],
)
def test_no_plan(text: str) -> None:
    assert planned.read(text) is None


def test_an_answer_needs_no_steps() -> None:
    plan = planned.read(drawn(message="The answer."))
    assert plan is not None
    assert planned.begun(plan) == []


def test_the_steps_move_one_by_one() -> None:
    plan = planned.read(drawn("one", "two"))
    assert plan is not None
    tasks = planned.begun(plan)
    assert [task["status"] for task in tasks] == ["in_progress", "pending"]
    tasks, told = planned.moved(tasks)
    assert [task["status"] for task in tasks] == ["completed", "in_progress"]
    assert [(one.id, one.status) for one in told] == [("1", "completed"), ("2", "in_progress")]
    cut, told = planned.broken(tasks)
    assert [task["status"] for task in cut] == ["completed", "failed"]
    assert [(one.id, one.status) for one in told] == [("2", "failed")]
    tasks, told = planned.moved(tasks)
    assert [task["status"] for task in tasks] == ["completed", "completed"]
    assert planned.present(tasks) is None
    assert planned.moved(tasks)[1] == planned.broken(tasks)[1] == []
