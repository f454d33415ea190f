"""Agents in the words of sage (document, "AgentConfigDTO")."""

from typing import Any, cast

from msgspec import UNSET

from domain.caller import Caller
from domain.quartet import Quartet
from generated.sage.models import (
    Agent,
    AgentConfig,
    AgentGenerateRequest,
    AgentGrants,
    PromptOptimizeRequest,
)
from handlers.times import iso
from storage.agents import Agent as Row
from storage.agents import AgentFields


async def list_(quartet: Quartet, caller: Caller) -> list[Agent]:
    return [shown(agent) for agent in await quartet.agents.visible(caller)]


async def get_default_prompt(quartet: Quartet, language: str) -> dict[str, str]:
    return {"content": quartet.drafting.default_prompt(language)}


async def create(quartet: Quartet, caller: Caller, body: AgentConfig) -> dict[str, str]:
    return {"agent_id": await quartet.agents.create(caller, fields_of(body))}


async def get(quartet: Quartet, caller: Caller, agent_id: str) -> Agent:
    return shown(await quartet.agents.get(caller, agent_id))


async def replace(
    quartet: Quartet, caller: Caller, agent_id: str, body: AgentConfig
) -> dict[str, str]:
    stated = body.id or None
    await quartet.agents.replace(caller, agent_id, fields_of(body), stated_id=stated)
    return {"agent_id": agent_id}


async def delete(quartet: Quartet, caller: Caller, agent_id: str) -> dict[str, str]:
    await quartet.agents.delete(caller, agent_id)
    return {"agent_id": agent_id}


async def generate(quartet: Quartet, caller: Caller, body: AgentGenerateRequest) -> Any:
    tools = body.available_tools or None
    return await quartet.drafting.draft(caller, body.agent_description, tools)


async def optimize_prompt(
    quartet: Quartet, caller: Caller, body: PromptOptimizeRequest
) -> dict[str, str]:
    goal = body.optimization_goal or None
    written = await quartet.drafting.optimize(caller, body.original_prompt, goal)
    return {"optimized_prompt": written}


async def list_grants(quartet: Quartet, caller: Caller, agent_id: str) -> list[str]:
    return await quartet.agents.grants(caller, agent_id)


async def set_grants(
    quartet: Quartet, caller: Caller, agent_id: str, body: AgentGrants
) -> dict[str, str]:
    await quartet.agents.set_grants(caller, agent_id, body.user_ids)
    return {}


def fields_of(body: AgentConfig) -> AgentFields:
    """What the body decides; `id` and `user_id` are not among it."""

    def given(value: Any) -> Any:
        return None if value is UNSET else value

    return AgentFields(
        name=body.name,
        description=given(body.description),
        system_prefix=given(body.systemPrefix),
        system_context=given(body.systemContext),
        workflows=given(body.availableWorkflows),
        tools=given(body.availableTools),
        sub_agent_ids=given(body.availableSubAgentIds),
        skills=given(body.availableSkills),
        knowledge_bases=given(body.availableKnowledgeBases),
        memory_type=given(body.memoryType),
        max_loop_count=given(body.maxLoopCount),
        deep_thinking=bool(body.deepThinking),
        provider_id=given(body.llm_provider_id),
        multimodal=bool(body.enableMultimodal),
        multi_agent=bool(body.multiAgent),
        mode=given(body.agentMode),
    )


def shown(row: Row) -> Agent:
    """An agent with every key, null where nothing was given."""
    return Agent(
        id=row.id,
        user_id=row.owner_id,
        name=row.name,
        systemPrefix=row.system_prefix,
        systemContext=row.system_context,
        availableWorkflows=row.workflows,
        availableTools=row.tools,
        availableSubAgentIds=row.sub_agent_ids,
        availableSkills=row.skills,
        availableKnowledgeBases=row.knowledge_bases,
        memoryType=cast(Any, row.memory_type),
        maxLoopCount=row.max_loop_count,
        deepThinking=row.deep_thinking,
        llm_provider_id=row.provider_id,
        enableMultimodal=row.multimodal,
        multiAgent=row.multi_agent,
        agentMode=row.mode,
        description=row.description,
        created_at=iso(row.created_at),
        updated_at=iso(row.updated_at),
    )
