"""The tools that one agent of a turn has: built-in, of MCP servers, and the turn's own."""

from collections.abc import Mapping
from typing import Any

from domain.tools import Asking, Consent, Result, Tool, ToolFailed, TurnTool
from domain.turn import (
    delegation,
    file_tools,
    knowledge_tool,
    mcp_tools,
    skill_tool,
    workflow_tools,
)
from domain.turn.consent import Answer
from domain.turn.parts import Parts
from domain.turn.plan import Plan
from domain.turn.prompt import ASK
from gateways.errors import GatewayError
from storage.workspace_files import Place

NAMES = workflow_tools.NAMES | {ASK, delegation.NAME, knowledge_tool.NAME, skill_tool.NAME}
"""Names of tools that turns have beside the built-in ones."""
_READ_ONLY = NAMES - {ASK}


def repeatable(parts: Parts, name: str, session: Mapping[str, TurnTool]) -> bool:
    """Whether a call that was cut off may be made again: it changes nothing outside, or, as a
    delegation, goes on from its own rows. `session` are the tools of the run's session."""
    tool = session.get(name) or parts.tools.get(name)
    return name in _READ_ONLY | file_tools.REPEATABLE or (tool is not None and tool.repeatable)


class Toolset:
    """What an agent may use, by the plan it works to; `remote` are its tools of MCP servers, and
    those of its session, which may have one in place of a built-in one; `place` is its workspace,
    where it has one."""

    def __init__(
        self, parts: Parts, plan: Plan, remote: Mapping[str, TurnTool], place: Place | None = None
    ) -> None:
        self._parts = parts
        self._plan = plan
        self._remote = remote
        self._own: dict[str, Tool] = {}
        self._files: dict[str, Tool] = {}
        if parts.workspaces is not None and place is not None:
            made_here = file_tools.file_tools(parts.workspaces, place)
            self._files = {tool.name: tool for tool in made_here if self._allows(tool.name)}
        if parts.retrieval is not None and plan.knowledge_bases:
            made = knowledge_tool.knowledge_tool(parts.retrieval, plan.knowledge_bases)
            self._own[made.name] = made
        if parts.skills is not None and plan.skills:
            made = skill_tool.skill_tool(parts.skills, plan.skills)
            self._own[made.name] = made

    @property
    def has_skills(self) -> bool:
        return skill_tool.NAME in self._own

    def functions(self) -> list[dict[str, Any]]:
        """As a model is told of them: OpenAI's chat completions, `tools[]`."""
        own = [tool.function() for tool in (*self._files.values(), *self._own.values())]
        remote = [tool.function() for tool in self._remote.values()]
        built_in = self._parts.tools.functions(self._plan.tools)
        kept = [each for each in built_in if each["function"]["name"] not in self._remote]
        return [*kept, *own, *remote]

    def toolbox(self, name: str) -> str:
        """What kind of tool it is for whoever watches; "" for the loop's own."""
        tool = self._get(name)
        return tool.toolbox if tool is not None else ""

    async def consent(self, name: str, arguments: str) -> Consent | None:
        """What a person has to agree to before a call; None where nothing."""
        tool = self._get(name)
        return await tool.consent(arguments) if isinstance(tool, Asking) else None

    async def use(
        self, name: str, arguments: str, answer: Answer | None = None
    ) -> tuple[str | Result, bool]:
        """A tool's result, or why there is none; whether it is one. `answer` is what the user said
        to the call."""
        tool = self._get(name)
        if tool is None:
            return f"There is no tool {name!r}.", False
        if answer is not None and not answer.agreed:
            return f"The user did not agree to this call, but said: {answer.words}", False
        try:
            if isinstance(tool, Asking):
                return await tool.call(arguments, answer.digest if answer else ""), True
            return await tool.call(arguments), True
        except (ToolFailed, GatewayError) as error:
            return f"{name} failed: {error}", False

    def _get(self, name: str) -> TurnTool | None:
        if name in NAMES:
            return self._own.get(name)
        built_in = self._parts.tools.get(name) if self._allows(name) else None
        return self._files.get(name) or self._remote.get(name) or built_in

    def _allows(self, name: str) -> bool:
        return self._plan.tools is None or name in self._plan.tools


async def opened(
    parts: Parts, plan: Plan, more: Mapping[str, TurnTool], place: Place | None = None
) -> Toolset:
    """The tools of a plan, as far as they are still there, and `more` that this agent has: of
    servers that came with the request, and of its session. `place` as in Toolset."""
    remote: dict[str, TurnTool] = {}
    if parts.mcp is not None and plan.mcp_tools:
        remote.update(await mcp_tools.opened(parts.mcp, plan.mcp_tools))
    return Toolset(parts, plan, {**remote, **more}, place)
