"""Tools in the words of sage (document, "Tools, skills, MCP")."""

from typing import Any

from msgspec import UNSET, UnsetType

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage.models import Tool, ToolExecution


async def list_(
    quartet: Quartet, caller: Caller, type: str | UnsetType = UNSET
) -> dict[str, list[Tool]]:
    listed = await quartet.tools.list(caller, type or "")
    return {
        "tools": [
            Tool(
                name=tool.name,
                description=tool.description,
                parameters=tool.parameters,
                type=tool.type,
                source=tool.source,
                user_id=tool.user_id,
            )
            for tool in listed
        ]
    }


async def execute(quartet: Quartet, caller: Caller, body: ToolExecution) -> Any:
    return await quartet.tools.execute(caller, body.tool_name, body.tool_params or {})
