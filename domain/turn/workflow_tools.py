"""The two tools by which a model follows one of the turn's workflows; its steps become the run's
tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

CHOOSE = "choose_workflow"
FINISH = "finish_step"
NAMES = frozenset({CHOOSE, FINISH})

Task = dict[str, Any]
"""`{id, description, status, workflow}`; status pending, in_progress, completed."""


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    name: str


def functions(workflows: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """As a model is told of them."""
    if not workflows:
        return []
    choose = {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": sorted(workflows)}},
        "required": ["name"],
        "additionalProperties": False,
    }
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    return [
        _function(CHOOSE, "Chooses the workflow to follow and shows its steps.", choose),
        _function(FINISH, "Says that the present step of the workflow is done.", nothing),
    ]


def follow(
    name: str,
    arguments: str,
    workflows: Mapping[str, Sequence[str]],
    tasks: Sequence[Task],
) -> tuple[str, list[Task], bool]:
    """What a call of one of the tools gives: its text, the tasks after it, and whether it fits."""
    if name == FINISH:
        return _finish(tasks)
    try:
        chosen = msgspec.json.decode(arguments, type=_Choice).name
        steps = workflows[chosen]
    except (msgspec.DecodeError, KeyError):
        return f"There is no such workflow; there are: {', '.join(sorted(workflows))}.", [], False
    made = [
        {
            "id": str(number),
            "description": step,
            "status": "pending" if number > 1 else "in_progress",
            "workflow": chosen,
        }
        for number, step in enumerate(steps, 1)
    ]
    return _present(made), made, True


def _finish(tasks: Sequence[Task]) -> tuple[str, list[Task], bool]:
    after = [dict(task) for task in tasks]
    present = next((task for task in after if task["status"] == "in_progress"), None)
    if present is None:
        return "No step is under way.", after, False
    present["status"] = "completed"
    following = next((task for task in after if task["status"] == "pending"), None)
    if following is not None:
        following["status"] = "in_progress"
    return _present(after), after, True


def _present(tasks: Sequence[Task]) -> str:
    for task in tasks:
        if task["status"] == "in_progress":
            return f"Step {task['id']} of {len(tasks)}: {task['description']}"
    return "Every step is done. Answer the user."


def _function(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
