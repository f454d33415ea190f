"""sandbox: what administrators set for everybody's sessions (document 002, "App Config Module")."""

from typing import Any

import msgspec
from msgspec import UNSET

from domain.caller import Caller
from domain.platform.config import AgentSettings, LlmSettings
from domain.platform.mcp import Kept
from domain.quartet import Quartet
from generated.sandbox import models
from handlers.wire import Answer
from storage.a2a import A2aServer


async def get_llm(quartet: Quartet) -> Answer:
    return llm_shown(await quartet.platform.config.llm())


async def update_llm(
    quartet: Quartet, caller: Caller, body: models.LLMConfigUpdate, if_match: int | None
) -> Answer:
    wanted = msgspec.convert(body, LlmSettings, from_attributes=True)
    key = body.api_key or ""
    return llm_shown(await quartet.platform.config.set_llm(caller, wanted, key, if_match))


async def get_agent(quartet: Quartet) -> Answer:
    return agent_shown(await quartet.platform.config.agent())


async def update_agent(
    quartet: Quartet, caller: Caller, body: models.AgentConfigUpdate, if_match: int | None
) -> Answer:
    wanted = msgspec.convert(body, AgentSettings, from_attributes=True)
    return agent_shown(await quartet.platform.config.set_agent(caller, wanted, if_match))


async def list_mcp_servers(quartet: Quartet) -> dict[str, list[models.MCPServerItem]]:
    return {"mcp_servers": [server_shown(kept) for kept in await quartet.platform.mcp.list()]}


async def create_mcp_servers(quartet: Quartet, caller: Caller, body: models.MCPConfig) -> None:
    await quartet.platform.mcp.merge(caller, body.mcpServers)


async def delete_mcp_server(quartet: Quartet, caller: Caller, server_name: str) -> None:
    await quartet.platform.mcp.delete(caller, server_name)


async def update_mcp_server_enabled(
    quartet: Quartet, caller: Caller, server_name: str, body: models.ToolPreferenceRequest
) -> None:
    await quartet.platform.mcp.set_enabled(caller, server_name, enabled=body.enabled)


async def list_a2a_servers(quartet: Quartet) -> dict[str, list[models.A2AServerItem]]:
    return {"a2a_servers": [agent_item(agent) for agent in await quartet.platform.a2a.list()]}


async def create_a2a_server(quartet: Quartet, caller: Caller, body: models.A2AServerCreate) -> None:
    await quartet.platform.a2a.add(caller, body.base_url)


async def delete_a2a_server(quartet: Quartet, caller: Caller, a2a_id: str) -> None:
    await quartet.platform.a2a.delete(caller, a2a_id)


async def update_a2a_server_enabled(
    quartet: Quartet, caller: Caller, a2a_id: str, body: models.ToolPreferenceRequest
) -> None:
    await quartet.platform.a2a.set_enabled(caller, a2a_id, enabled=body.enabled)


def llm_shown(llm: LlmSettings) -> Answer:
    shown = models.LLMConfig(
        base_url=llm.base_url,
        model_name=llm.model_name,
        temperature=llm.temperature,
        max_tokens=llm.max_tokens,
    )
    return Answer(shown, version=llm.version)


def agent_shown(agent: AgentSettings) -> Answer:
    shown = models.AgentConfig(
        max_iterations=agent.max_iterations,
        max_retries=agent.max_retries,
        max_search_results=agent.max_search_results,
    )
    return Answer(shown, version=agent.version)


def server_shown(kept: Kept) -> models.MCPServerItem:
    """A server without anything of its configuration that may be secret."""
    error: Any = kept.server.error or UNSET
    return models.MCPServerItem(
        server_name=kept.server.name,
        enabled=kept.server.enabled,
        transport=kept.server.protocol,
        tools=kept.tools,
        error=error,
    )


def agent_item(agent: A2aServer) -> models.A2AServerItem:
    return models.A2AServerItem(
        id=agent.id,
        name=agent.name,
        description=agent.description,
        input_modes=agent.input_modes,
        output_modes=agent.output_modes,
        streaming=agent.streaming,
        push_notifications=agent.push_notifications,
        enabled=agent.enabled,
    )
