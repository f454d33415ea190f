"""Tools of MCP servers in a turn.

Those that an agent names are its owner's, whoever talks to it: the owner lends them with the
agent. Those that only a request names are the caller's own. A built-in tool of the same name comes
first; two tools of one account never have the same name (domain.mcp). Those of servers that the
request brings along are the run's agent's all, and a sub-agent's as far as it names them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import msgspec

from domain.brought_mcp import BroughtMcp, BroughtTool, Sealed
from domain.mcp import McpServers
from domain.tools import ToolFailed, shortened
from gateways.mcp import Result
from storage.agents import Agent
from storage.mcp import OfferedTool


class RemoteTool:
    """A tool of an MCP server as a turn uses it. A call is never repeated: nobody here knows what
    it does."""

    repeatable = False
    toolbox = "mcp"

    def __init__(
        self,
        tool: OfferedTool | BroughtTool,
        ask: Callable[[dict[str, Any]], Awaitable[Result]],
    ) -> None:
        self._tool = tool
        self._ask = ask

    def function(self) -> dict[str, Any]:
        """As a model is told of it: OpenAI's chat completions, `tools[]`."""
        return {
            "type": "function",
            "function": {
                "name": self._tool.name,
                "description": self._tool.description,
                "parameters": self._tool.parameters,
            },
        }

    async def call(self, arguments: str) -> str:
        """The result of a call, `arguments` being JSON text. Raises ToolFailed."""
        try:
            wanted = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ToolFailed(f"the arguments do not fit: {error}") from None
        result = await self._ask(wanted)
        text = result.text
        if not text and result.structured is not None:
            text = msgspec.json.encode(result.structured).decode()
        return shortened(text)


async def lenders(
    servers: McpServers,
    *,
    caller_id: str,
    agent: Agent | None,
    asked: Sequence[str] | None,
    built_in: frozenset[str],
) -> dict[str, str]:
    """Of the tools that a request asks for, or its agent names: those of MCP servers, with the
    account that each belongs to."""
    configured = list(agent.tools or ()) if agent is not None else []
    wanted = [name for name in asked or configured if name not in built_in]
    found: dict[str, str] = {}
    if agent is not None:
        lent = [name for name in wanted if name in configured]
        found |= dict.fromkeys(await servers.offered(agent.owner_id, lent), agent.owner_id)
    if asked:
        own = [name for name in wanted if name not in found]
        found |= dict.fromkeys(await servers.offered(caller_id, own), caller_id)
    return found


async def opened(servers: McpServers, lent: Mapping[str, str]) -> dict[str, RemoteTool]:
    """The tools that `lenders` found, as far as they are still there."""
    tools: dict[str, RemoteTool] = {}
    for owner in dict.fromkeys(lent.values()):
        names = [name for name, of in lent.items() if of == owner]
        for name, tool in (await servers.offered(owner, names)).items():
            tools[name] = RemoteTool(tool, partial(servers.call, tool))
    return tools


async def brought(
    servers: BroughtMcp, sealed: Sealed, taken: Set[str]
) -> tuple[dict[str, RemoteTool], list[str]]:
    """The tools of the servers that the request brought along, and the servers that are silent."""
    tools, silent = await servers.open(sealed, taken)
    made = {name: RemoteTool(tool, partial(servers.call, tool)) for name, tool in tools.items()}
    return made, silent
