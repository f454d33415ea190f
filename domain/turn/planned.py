"""The plan of a session's turn: asked of the model first, then carried out step by step.

The first call of a turn asks for a plan as JSON, unless the model takes no tools: then it answers
as well as it can. The plan may stand in a fence, and behind a few words. A model that answers in
words alone has answered, and one that calls a tool goes on without a plan. With a plan each step is
put to the model as a message of its own, and is done when the model has answered it; the last
message closes the turn. What comes next is read off the rows, as for every turn.
"""

import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal

import msgspec

from domain.turn.plan import SessionTurn
from domain.turn.prompt import APART, PLAN, STEP
from domain.turn.telling import Planned, Stepped
from storage.conversations import Message

Stride = Literal["plan", "model", "wait", "end"]
Task = dict[str, Any]
"""A step of the plan as the run's row keeps it: `{id, description, status, workflow}`; status
pending, in_progress, completed, failed."""

STEPS_MAX = 30
CLOSE = "Every step is done. Tell the user what was done and what came of it, in a few sentences."

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "description": "What the task is, in a few words."},
        "message": {
            "type": "string",
            "description": "What you tell the user before you begin; the answer, if no step is"
            " needed.",
        },
        "steps": {
            "type": "array",
            "maxItems": STEPS_MAX,
            "items": {
                "type": "object",
                "properties": {"description": {"type": "string"}},
                "required": ["description"],
                "additionalProperties": False,
            },
        },
        "closing": {"type": "string", "description": "What the last message shall tell the user."},
    },
    "required": ["title", "message", "steps", "closing"],
    "additionalProperties": False,
}
ASKED = (
    "# Plan first\nDo not carry the task out yet. Answer with one JSON object: `title` (a few"
    " words), `message` (what you tell the user now), `steps` (a list of `{description}`, each an"
    " instruction that can be carried out by itself, in order; empty when `message` answers the"
    " user already) and `closing` (what the last message shall tell)."
)


OBJECTS_MAX = 20
"""Objects of an answer that are tried."""
_FENCE = r"```[A-Za-z]{0,20}\s{0,20}"
_OBJECT = re.compile(r"\{")
_FIRST = re.compile(rf"\s*(?:{_FENCE})?\{{")
_LATER = re.compile(rf'(?:{_FENCE})?\{{\s{{0,20}}"')
_PERHAPS = re.compile(rf"(?:`{{1,3}}|{_FENCE})?(?:\{{\s{{0,20}})?\Z")
_PERHAPS_FIRST = re.compile(rf"\A\s*(?:`{{1,3}}|{_FENCE})?\Z|{_PERHAPS.pattern}")
"""What may still become such a beginning, at the end of a text."""


class Step(msgspec.Struct, frozen=True):
    description: str


class Drawn(msgspec.Struct, frozen=True):
    """A plan as a model draws it up."""

    steps: list[Step]
    title: str = ""
    message: str = ""
    closing: str = ""


class Attempt(msgspec.Struct, frozen=True):
    """An answer that is a plan or tried to be one: the `words` before it, which are shown, and the
    plan, None where it does not fit."""

    words: str
    drawn: Drawn | None


class Screen:
    """Lets the words of an answer through as they come, and holds back what may be a plan: JSON,
    in a fence or not, which nobody is shown."""

    def __init__(self) -> None:
        self.held = ""
        self._through = False
        self._holds = False

    def take(self, text: str) -> str:
        """The words that can be shown by now, as far as they were not yet."""
        self.held += text
        if self._holds:
            return ""
        begin = _begin(self.held, first=not self._through)
        self._holds = begin is not None
        if begin is None:
            perhaps = _PERHAPS if self._through else _PERHAPS_FIRST
            found = perhaps.search(self.held)
            begin = found.start() if found else len(self.held)
        words, self.held = self.held[:begin], self.held[begin:]
        self._through = self._through or bool(words)
        return words

    @property
    def holds(self) -> bool:
        """Whether what is held back begins as a plan does."""
        return self._holds

    def rest(self) -> str:
        """What was held back, once it is known to be words."""
        rest, self.held = self.held, ""
        return rest


def attempt(text: str) -> Attempt | None:
    """What a whole answer makes of a plan; None where it is an answer in words. One that begins
    with an object, or writes of steps in one, was meant to be a plan."""
    words = spoken(text)
    drawn = read(text)
    if drawn is None and (words == text or (words.strip() and '"steps"' not in text)):
        return None
    return Attempt(words, drawn)


def spoken(text: str) -> str:
    """What `Screen` lets through of an answer as long as it is not known to be words."""
    return text[: _begin(text, first=True)]


def read(text: str) -> Drawn | None:
    """The first plan in an answer; None where there is none."""
    for found in islice(_OBJECT.finditer(text), OBJECTS_MAX):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, found.start())
            drawn = msgspec.convert(value, Drawn)
        except (ValueError, RecursionError):
            continue
        steps = [step for step in drawn.steps if step.description.strip()]
        if len(steps) <= STEPS_MAX and (steps or drawn.message.strip()):
            return msgspec.structs.replace(drawn, steps=steps)
    return None


def _begin(text: str, *, first: bool) -> int | None:
    """Where something begins that may be a plan. With `first` the text is an answer's beginning,
    and any object is; later it has to look like one of JSON."""
    if first and _FIRST.match(text):
        return 0
    found = _LATER.search(text)
    return found.start() if found else None


def begun(drawn: Drawn) -> list[Task]:
    """The tasks of a plan, the first of them under way."""
    return [
        {
            "id": str(number),
            "description": step.description,
            "status": "pending" if number > 1 else "in_progress",
            "workflow": "",
        }
        for number, step in enumerate(drawn.steps, 1)
    ]


def steps(tasks: Sequence[Task]) -> list[Task]:
    """Of a run's tasks the steps of its plan; others are a workflow's, or were handed out."""
    return [task for task in tasks if not task["workflow"] and "agent_name" not in task]


def present(tasks: Sequence[Task]) -> Task | None:
    """The step that is under way."""
    return next((task for task in steps(tasks) if task["status"] == "in_progress"), None)


def moved(tasks: Sequence[Task]) -> tuple[list[Task], list[Stepped]]:
    """The tasks once the present step is done, and what is told of it."""
    after = [dict(task) for task in tasks]
    told = []
    done = present(after)
    if done is not None:
        done["status"] = "completed"
        told.append(stepped(done))
        due = next((task for task in steps(after) if task["status"] == "pending"), None)
        if due is not None:
            due["status"] = "in_progress"
            told.append(stepped(due))
    return after, told


def broken(tasks: Sequence[Task]) -> tuple[list[Task], list[Stepped]]:
    """The tasks of a run that ends while a step is under way, and what is told of it."""
    after = [dict(task) for task in tasks]
    cut = present(after)
    if cut is None:
        return after, []
    cut["status"] = "failed"
    return after, [stepped(cut)]


def drawn_up(tasks: Sequence[Task]) -> list[Planned | Stepped]:
    """What is told of a new plan."""
    pending = [{**task, "status": "pending"} for task in tasks]
    first = present(tasks)
    return [Planned(pending), *([stepped(first)] if first else [])]


def stepped(task: Task) -> Stepped:
    return Stepped(task["id"], task["description"], task["status"])


def next_stride(course: Sequence[Message], session: SessionTurn) -> Stride:
    """What a session's turn does next, once every tool that was asked for has given its result.
    `course` are the run's messages in order, those of its user among them."""
    plans = [message for message in course if message.type == PLAN]
    said = [message for message in course if message.type not in APART]
    last = said[-1] if said else None
    if last is None or last.role == "user":
        spoken = any(message.role == "assistant" for message in said)
        fits = any((plan.details or {}).get("fits") for plan in plans)
        if spoken or fits or len(plans) >= session.max_retries:
            return "model"
        return "plan"
    if last.role == "tool" or last.type == STEP:
        return "model"
    return "wait" if (last.details or {}).get("ask") else "end"


def attached(messages: Sequence[Message]) -> str:
    """What the system message says of the files that the user has attached."""
    paths = [
        file["filepath"]
        for message in messages
        for file in (message.details or {}).get("attachments") or ()
        if file["filepath"]
    ]
    return "\n\n# Files of the user\n" + "\n".join(paths) if paths else ""


def section(tasks: Sequence[Task]) -> str:
    """What the system message says of the plan."""
    own = steps(tasks)
    if not own:
        return ""
    marks = {"completed": "x", "in_progress": ">", "failed": "!"}
    lines = [
        f"[{marks.get(task['status'], ' ')}] {task['id']}. {task['description']}" for task in own
    ]
    due = present(own)
    if due is None:
        return "\n\n# Plan\n" + "\n".join(lines)
    return (
        "\n\n# Plan\n"
        + "\n".join(lines)
        + f"\nCarry out step {due['id']} now, and only that; then say what came of it."
    )
