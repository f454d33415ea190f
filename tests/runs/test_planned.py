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
        "```json\n" + drawn("one", "two", title="T", message="M", closing="C") + "\n```",
        'Not {this} nor {"that": 1} but: '
        + drawn("one", "two", title="T", message="M", closing="C"),
        '{"plan": ' + drawn("one", "two", title="T", message="M", closing="C") + "}",
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
        '{"a":' * 100_000,
        "```json\n" + drawn(" ") + "\n```",
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


PLAN = drawn("one", message="M")


@pytest.mark.parametrize(
    ("answer", "shown", "fits"),
    [
        (PLAN, "", True),
        (f"\n {PLAN}", "", True),
        (f"```json\n{PLAN}\n```", "", True),
        (f"```\n{PLAN}", "", True),
        (f"Sure, here it is:\n\n{PLAN}", "Sure, here it is:\n\n", True),
        (f"Sure:\n```json\n{PLAN}\n```", "Sure:\n", True),
        ('{"no": "plan"}', "", False),
        ("```json\n{not even JSON", "", False),
        ('Sure: {"steps": [', "Sure: ", False),
    ],
)
def test_nobody_is_shown_a_plan(answer: str, shown: str, fits: bool) -> None:
    """However the answer is cut into pieces, the words alone come through."""
    for size in (1, 2, 3, 7, len(answer)):
        screen = planned.Screen()
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        assert "".join(map(screen.take, pieces)) == shown
        assert screen.holds
    found = planned.attempt(answer)
    assert found is not None
    assert (found.words, found.drawn is not None) == (shown, fits)


@pytest.mark.parametrize(
    ("answer", "at_once"),
    [
        ("Just words.", "Just words."),
        ("Call `f(x)`, or `{x}` in braces {x}.", "Call `f(x)`, or `{x}` in braces {x}."),
        ("```python\nprint({1: 2})\n```", "```python\nprint({1: 2})\n"),
        ('Such as {"a": 1}, say.', "Such as "),
        ("  ", ""),
    ],
)
def test_words_come_through(answer: str, at_once: str) -> None:
    """At the latest at the end of the answer."""
    for size in (1, 2, 3, 7, len(answer)):
        screen = planned.Screen()
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        assert "".join(map(screen.take, pieces)) == at_once
        assert at_once + screen.rest() == answer
    assert planned.attempt(answer) is None
