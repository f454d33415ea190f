"""The tools of the platform's MCP servers and A2A agents, as accounts see them and turns use them.

A turn is offered what administrators have enabled and its account has not switched off.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import NotFound
from domain.platform.a2a import PlatformA2a, is_at
from domain.platform.mcp import PlatformMcp
from domain.tools import Result, ToolFailed, shortened
from gateways.mcp import Result as McpResult
from storage.a2a import A2aServer
from storage.database import Database, Orphan, Unit
from storage.events import EventLog
from storage.mcp import OfferedTool
from storage.tool_preferences import ToolPreferences

MESSAGE_MAX = 32_000
SHOWN_MAX = 2000
"""Characters of a message to an agent, and of what a model is told of one."""

Kind = Literal["mcp", "a2a"]


class Preferred(msgspec.Struct, frozen=True):
    """A server or an agent as an account sees it. `tool_id` names it in paths."""

    tool_id: str
    tool_name: str
    description: str | None
    enabled_global: bool
    enabled_user: bool


class McpPlatformTool:
    """A tool of an MCP server. A call is never repeated: nobody here knows what it does."""

    repeatable = False
    toolbox: Kind = "mcp"

    def __init__(self, servers: PlatformMcp, tool: OfferedTool) -> None:
        self._servers = servers
        self._tool = tool
        self.name = tool.name

    def function(self) -> dict[str, Any]:
        """As a model is told of it: OpenAI's chat completions, `tools[]`."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self._tool.description,
                "parameters": self._tool.parameters,
            },
        }

    async def call(self, arguments: str) -> Result:
        """The result of a call, `arguments` being JSON text. Raises ToolFailed."""
        result = await self._servers.call(self._tool, _read(arguments, dict[str, Any]))
        text = result.text
        if not text and result.structured is not None:
            text = msgspec.json.encode(result.structured).decode()
        text = shortened(text)
        shown = text if result.structured is None else result.structured
        return Result(text, {"result": shown})


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    message: str


class A2aPlatformTool:
    """An agent, to be sent a message. A call is never repeated."""

    repeatable = False
    toolbox: Kind = "a2a"

    def __init__(self, agents: PlatformA2a, agent: A2aServer) -> None:
        self._agents = agents
        self._agent = agent
        self.name = agent.tool_name

    def function(self) -> dict[str, Any]:
        """As a model is told of it: OpenAI's chat completions, `tools[]`."""
        skills = [
            f"- {skill.get('name', '')}: {skill.get('description', '')}"
            for skill in (self._agent.card or {}).get("skills", ())
        ]
        told = "\n".join(
            [f"Sends a message to the agent {self._agent.name}. {self._agent.description}", *skills]
        )
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": told[:SHOWN_MAX],
                "parameters": {
                    "type": "object",
                    "properties": {
                        "message": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": MESSAGE_MAX,
                            "description": "The task, with all that the agent has to know.",
                        }
                    },
                    "required": ["message"],
                    "additionalProperties": False,
                },
            },
        }

    async def call(self, arguments: str) -> Result:
        """What the agent says, `arguments` being JSON text. Raises ToolFailed."""
        message = _read(arguments, _Message).message
        if not 0 < len(message) <= MESSAGE_MAX:
            raise ToolFailed(f"the message has 1 to {MESSAGE_MAX} characters")
        text = shortened(await self._agents.ask(self._agent.id, message))
        return Result(text, {"a2a_result": text})


PlatformTool = McpPlatformTool | A2aPlatformTool


class PlatformTools:
    """What accounts want of the platform's tools, and what turns get of them."""

    def __init__(
        self,
        database: Database,
        preferences: ToolPreferences,
        log: EventLog,
        mcp: PlatformMcp,
        a2a: PlatformA2a,
    ) -> None:
        self._database = database
        self._preferences = preferences
        self._log = log
        self._mcp = mcp
        self._a2a = a2a

    # --- what an account wants ------------------------------------------------------------

    async def mcp(self, caller: Caller) -> Sequence[Preferred]:
        """The MCP servers, whose ids are their names."""
        wanted = await self._preferences.of(caller.user_id, "mcp")
        return [
            Preferred(
                server.name,
                server.name,
                server.description or None,
                server.enabled,
                wanted.get(server.id, True),
            )
            for server in (kept.server for kept in await self._mcp.list())
        ]

    async def a2a(self, caller: Caller) -> Sequence[Preferred]:
        """The A2A agents."""
        wanted = await self._preferences.of(caller.user_id, "a2a")
        return [
            Preferred(
                agent.id,
                agent.name,
                agent.description or None,
                agent.enabled,
                wanted.get(agent.id, True),
            )
            for agent in await self._a2a.list()
        ]

    async def prefer(self, caller: Caller, kind: Kind, tool_id: str, *, enabled: bool) -> None:
        """Switch a server or an agent on or off for the caller alone. Raises NotFound:
        mcp.not_found, a2a.not_found."""

        def unit() -> Unit[None]:
            # Locked, so that what is deleted meanwhile leaves no preference behind.
            if kind == "mcp":
                found = (yield from self._mcp.lock(tool_id)).id
            else:
                found = (yield from self._a2a.lock(tool_id)).id
            yield from self._preferences.put(caller.user_id, kind, found, enabled=enabled)
            told = deed("tool.preferred", caller, toolbox=kind, tool_id=found, enabled=enabled)
            yield from self._log.append(f"user:{caller.user_id}", [told])

        try:
            await self._database.write(unit)
        except Orphan:
            raise NotFound("user.not_found") from None

    # --- what a turn gets -----------------------------------------------------------------

    async def offered(self, user_id: str) -> Mapping[str, PlatformTool]:
        """The tools that an account's turns may use, by the name that models call them by. Reads
        rows; nothing is started and nothing connected to."""
        tools: list[PlatformTool] = [
            *(McpPlatformTool(self._mcp, tool) for tool in await self._tools(user_id)),
            *(A2aPlatformTool(self._a2a, agent) for agent in await self._agents(user_id)),
        ]
        return {tool.name: tool for tool in tools}

    async def named(self, user_id: str, names: Sequence[str]) -> Mapping[str, PlatformTool]:
        """Those of an account's tools that have these names still: for a turn that was offered
        them before."""
        if not names:
            return {}
        offered = await self.offered(user_id)
        return {name: tool for name, tool in offered.items() if name in names}

    async def call_mcp(
        self, user_id: str, server: str, tool: str, arguments: dict[str, Any]
    ) -> McpResult:
        """Call a tool by its server's names, once, for an account. Raises ToolFailed."""
        for each in await self._tools(user_id):
            if (each.server_name, each.remote_name) == (server, tool):
                return await self._mcp.call(each, arguments)
        raise ToolFailed(f"the account has no tool {tool} of a server {server} now")

    async def ask_a2a(self, user_id: str, agent: str, message: str) -> str:
        """What an agent, given by its id, name or address, says to a message of an account, sent
        once. Raises ToolFailed."""
        for each in await self._agents(user_id):
            if agent in (each.id, each.name) or is_at(each, agent):
                return await self._a2a.ask(each.id, message)
        raise ToolFailed(f"the account has no agent {agent} now")

    async def _tools(self, user_id: str) -> list[OfferedTool]:
        wanted = await self._preferences.of(user_id, "mcp")
        return [tool for tool in await self._mcp.tools() if wanted.get(tool.server_id, True)]

    async def _agents(self, user_id: str) -> list[A2aServer]:
        wanted = await self._preferences.of(user_id, "a2a")
        return [
            agent
            for agent in await self._a2a.list()
            if agent.enabled and agent.card is not None and wanted.get(agent.id, True)
        ]


def _read(arguments: str, shape: Any) -> Any:
    try:
        return msgspec.json.decode(arguments or "{}", type=shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ToolFailed(f"the arguments do not fit: {error}") from None
