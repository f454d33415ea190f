"""Tools of MCP servers in a turn.

Those that an agent names are its owner's, whoever talks to it: the owner lends them with the
agent. Those that only a request names are the caller's own. A built-in tool of the same name comes
first; two tools of one account never have the same name (domain.mcp).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from domain.mcp import McpServers
from domain.tools import ToolFailed, shortened
from storage.agents import Agent
from storage.mcp import OfferedTool


class RemoteTool:
    """A tool of an MCP server as a turn uses it. A call is never repeated: nobody here knows what
    it does."""

    repeatable = False

    def __init__(self, servers: McpServers, tool: OfferedTool) -> None:
        self._servers = servers
        self._tool = tool

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
        result = await self._servers.call(self._tool, wanted)
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
            tools[name] = RemoteTool(servers, tool)
    return tools
