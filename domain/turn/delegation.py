"""Handing tasks to sub-agents: the tool by which a model does it, and who works on what.

A call of the tool names one task or several, and they are worked on side by side; so are several
calls of one answer. Each sub-agent knows its task and nothing else of the conversation; what it
says last is its result. Where a task goes on after a restart follows from its own rows.

    default   the agent hands tasks to the sub-agents that are named
    fibre     it divides the work up, and may also make up a sub-agent for a task
    team      every sub-agent first works on what the user said; then the agent goes on from there,
              also where its model takes no tools and can hand out nothing itself
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from domain.tools import ToolFailed, shortened
from domain.turn.plan import Plan

NAME = "delegate"
DEPTH_MAX = 3
"""How deep tasks are handed on: the run's agent, a sub-agent, and one of its own."""
TASKS_OF_CALL = 8
TASKS_OF_RUN = 32
"""Tasks that one call hands out, and all agents of a run together."""
DESCRIBED = 500
"""Characters of a task that the list of tasks shows."""
DESCRIPTION_MAX = 2000
"""Characters of a sub-agent's description that a prompt shows."""

FIBRE = (
    "Divide the work into parts that do not wait for each other and hand them out with delegate,"
    " all that can be done at once in one call. Where none of the sub-agents fits, name a new one"
    " and write its instructions. Check what comes back, and answer from it."
)
TEAM = "Each of them has worked on the task before you. Weigh what they say, and answer from it."
DEFAULT = "Hand one of them a task with delegate where it fits what it is for."

Task = dict[str, Any]
"""As tasks_status shows it: `{id, description, status, workflow, agent_name}`."""


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    agent: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    task: Annotated[str, msgspec.Meta(min_length=1)]
    instructions: str = ""


class _Arguments(msgspec.Struct, forbid_unknown_fields=True):
    tasks: Annotated[list[_Part], msgspec.Meta(min_length=1, max_length=TASKS_OF_CALL)]


class Handed(msgspec.Struct, frozen=True):
    """A task, and the plan of who works on it; `key` tells sub-agents apart."""

    id: str
    text: str
    key: str
    plan: Plan

    def shown(self, status: str) -> Task:
        return {
            "id": self.id,
            "description": self.text[:DESCRIBED],
            "status": status,
            "workflow": "",
            "agent_name": self.plan.agent_name,
        }


class Delegation:
    """What one agent may hand out. `path` are the keys of the agents that it works for, its own
    last: nobody is handed a task that comes from itself, so agents that name each other end."""

    def __init__(self, plan: Plan, agents: Mapping[str, Plan], path: Sequence[str]) -> None:
        self._plan = plan
        self._agents = agents
        able = len(path) < DEPTH_MAX
        self._keys = {name: key for name, key in plan.delegates.items() if able and key not in path}
        self._makes = able and plan.mode == "fibre"

    def __bool__(self) -> bool:
        return bool(self._keys) or self._makes

    @property
    def names(self) -> list[str]:
        return list(self._keys)

    @property
    def convenes(self) -> bool:
        """Whether everybody first works on what the user said, which takes no tool."""
        return self._plan.mode == "team" and bool(self._keys)

    def function(self) -> dict[str, Any]:
        """The tool as a model is told of it."""
        agent: dict[str, Any] = {"type": "string", "description": "A sub-agent's name."}
        part = {"agent": agent, "task": {"type": "string", "description": _TASK}}
        if self._makes:
            part["instructions"] = {"type": "string", "description": _INSTRUCTIONS}
        else:
            agent["enum"] = self.names
        item = {
            "type": "object",
            "properties": part,
            "required": ["agent", "task"],
            "additionalProperties": False,
        }
        tasks = {"type": "array", "items": item, "minItems": 1, "maxItems": TASKS_OF_CALL}
        return {
            "type": "function",
            "function": {
                "name": NAME,
                "description": "Hands tasks to sub-agents, which work on them side by side.",
                "parameters": {
                    "type": "object",
                    "properties": {"tasks": tasks},
                    "required": ["tasks"],
                    "additionalProperties": False,
                },
            },
        }

    def section(self) -> str:
        """What the agent's prompt says of its sub-agents."""
        lines = [
            f"- {name}: {self._agents[key].description[:DESCRIPTION_MAX]}".rstrip(": ")
            for name, key in self._keys.items()
        ]
        how = {"fibre": FIBRE, "team": TEAM}.get(self._plan.mode, DEFAULT)
        return "\n".join(["# Sub-agents", how, *lines])

    def everybody(self, text: str) -> list[str]:
        """Arguments of the calls that hand a task to all: how a team begins."""
        parts = [_Part(name, text) for name in self.names]
        calls = [parts[at : at + TASKS_OF_CALL] for at in range(0, len(parts), TASKS_OF_CALL)]
        return [msgspec.json.encode(_Arguments(call)).decode() for call in calls]

    def handed(self, arguments: str, ids: str) -> list[Handed]:
        """The tasks of a call, their ids beginning with `ids`. Raises ToolFailed."""
        try:
            parts = msgspec.json.decode(arguments or "{}", type=_Arguments).tasks
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ToolFailed(f"the arguments do not fit: {error}") from None
        return [self._handed(part, f"{ids}.{number}") for number, part in enumerate(parts)]

    def _handed(self, part: _Part, task_id: str) -> Handed:
        key = self._keys.get(part.agent)
        if key is not None:
            return Handed(task_id, part.task, key, self._agents[key])
        if not self._makes:
            names = ", ".join(self.names)
            raise ToolFailed(f"there is no sub-agent {part.agent[:64]!r}; there are: {names}")
        made = copied(self._plan, part.agent, system_prefix=part.instructions)
        return Handed(task_id, part.task, task_id, made)


def copied(plan: Plan, name: str, **changes: Any) -> Plan:
    """A sub-agent with an agent's own means, for tasks alone: it hands nothing on."""
    return msgspec.structs.replace(
        plan,
        asked=[],
        agent_id="",
        agent_name=name,
        description="",
        workflows={},
        memory_type="none",
        mode="default",
        deep_thinking=False,
        force_summary=False,
        more_suggest=False,
        skipped={},
        delegates={},
        sub_agents={},
        brought_mcp=None,
        session=None,
        **changes,
    )


def together(results: Sequence[tuple[Handed, str, bool]]) -> tuple[str, bool]:
    """The result of a call from those of its tasks, and whether any of them came to one."""
    if len(results) == 1:
        [(_, text, fits)] = results
        return shortened(text), fits
    share = [f"## {handed.plan.agent_name}\n{text}" for handed, text, _ in results]
    return shortened("\n\n".join(share)), any(fits for *_, fits in results)


_TASK = "All that the sub-agent needs to know: it sees nothing of this conversation."
_INSTRUCTIONS = "For a sub-agent that is not listed: who it is and how it works."
