"""The tools that an account may list and call itself: the built-in ones and those of its MCP
servers."""

from typing import Any, Literal

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import NotFound, Unusable
from domain.mcp import McpServers
from domain.tool_schema import Unfit, check_arguments
from domain.tools import Result, ToolFailed, Tools, shortened
from gateways.errors import GatewayError
from storage.database import Database, Unit
from storage.events import EventLog

SOURCE = "system"
"""Where built-in tools come from."""


class Listed(msgspec.Struct, frozen=True):
    """A tool in a list. `source` is "system" or the name of its MCP server; `user_id` is whose it
    is, None for a built-in one."""

    name: str
    description: str
    parameters: dict[str, Any]
    type: Literal["basic", "mcp"]
    source: str
    user_id: str | None


class Toolbox:
    """What accounts see of tools, and call outside of a run."""

    def __init__(self, database: Database, log: EventLog, tools: Tools, mcp: McpServers) -> None:
        self._database = database
        self._log = log
        self._tools = tools
        self._mcp = mcp
        self._built_in = [
            Listed(tool.name, tool.description, tool.parameters(), "basic", SOURCE, None)
            for name in tools.listed
            if (tool := tools.get(name)) is not None
        ]

    async def list(self, caller: Caller, kind: str = "") -> list[Listed]:
        """The built-in tools, then those of the caller's MCP servers (an administrator sees
        everybody's); only those of a type where one is given."""
        found = self._built_in if kind in ("", "basic") else []
        if kind not in ("", "mcp"):
            return found
        return found + [
            Listed(
                tool.name,
                tool.description,
                tool.parameters,
                "mcp",
                tool.server_name,
                tool.owner_id,
            )
            for tool in await self._mcp.tools(caller)
        ]

    async def execute(self, caller: Caller, name: str, arguments: dict[str, Any]) -> Any:
        """What a tool gives: text, or the structured content of an MCP tool that sends one.

        A call that may not be repeated is noted before it goes out, so that a request with an
        idempotency key makes it at most once. Raises NotFound("tool.not_found"), Unusable:
        tool.arguments, tool.failed.
        """
        tool = self._tools.get(name)
        try:
            if tool is not None:
                check_arguments(tool.parameters(), arguments)
                if not tool.repeatable:
                    await self._note(caller, name)
                given = await tool.call(msgspec.json.encode(arguments).decode())
                return given.text if isinstance(given, Result) else given
            offered = (await self._mcp.offered(caller.user_id, [name])).get(name)
            if offered is None:
                raise NotFound("tool.not_found", name=name)
            check_arguments(offered.parameters, arguments)
            await self._note(caller, name)
            result = await self._mcp.call(offered, arguments)
        except Unfit as error:
            raise Unusable("tool.arguments", name=name, reason=str(error)) from None
        except (ToolFailed, GatewayError) as error:
            raise Unusable("tool.failed", name=name, reason=str(error)) from None
        return shortened(result.text) if result.structured is None else result.structured

    async def _note(self, caller: Caller, name: str) -> None:
        def unit() -> Unit[None]:
            told = deed("tool.executed", caller, name=name)
            yield from self._log.append(f"user:{caller.user_id}", [told])

        await self._database.write(unit)
