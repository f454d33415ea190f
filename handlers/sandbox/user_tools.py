"""sandbox: what an account wants of the platform's tools (document 002, "User Tools Module")."""

from domain.caller import Caller
from domain.platform.tools import Preferred
from domain.quartet import Quartet
from generated.sandbox import models


async def list_mcp(quartet: Quartet, caller: Caller) -> models.ToolListResponse:
    return models.ToolListResponse(
        tools=[shown(tool) for tool in await quartet.platform.tools.mcp(caller)]
    )


async def update_mcp_enabled(
    quartet: Quartet, caller: Caller, server_name: str, body: models.ToolPreferenceRequest
) -> None:
    await quartet.platform.tools.prefer(caller, "mcp", server_name, enabled=body.enabled)


async def list_a2a(quartet: Quartet, caller: Caller) -> models.ToolListResponse:
    return models.ToolListResponse(
        tools=[shown(tool) for tool in await quartet.platform.tools.a2a(caller)]
    )


async def update_a2a_enabled(
    quartet: Quartet, caller: Caller, a2a_id: str, body: models.ToolPreferenceRequest
) -> None:
    await quartet.platform.tools.prefer(caller, "a2a", a2a_id, enabled=body.enabled)


async def list_skills(quartet: Quartet, caller: Caller) -> models.ToolListResponse:
    return models.ToolListResponse(
        tools=[shown(tool) for tool in await quartet.installed.preferred(caller)]
    )


async def update_skill_enabled(
    quartet: Quartet, caller: Caller, skill_key: str, body: models.ToolPreferenceRequest
) -> None:
    await quartet.installed.prefer(caller, skill_key, enabled=body.enabled)


def shown(tool: Preferred) -> models.ToolWithPreference:
    return models.ToolWithPreference(
        tool_id=tool.tool_id,
        tool_name=tool.tool_name,
        description=tool.description,
        enabled_global=tool.enabled_global,
        enabled_user=tool.enabled_user,
    )
