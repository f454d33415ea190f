"""From a request to its plan: what every agent of the turn works with is looked up, once.

An agent lends what it names of its owner's, sub-agents among it, to whoever may use it; a request
may name some of that, and what is the caller's own. A sub-agent has the model that it binds, else
the run's, and its tools, skills and knowledge are those of its own configuration.
"""

from collections.abc import Container, Sequence
from itertools import count

import msgspec

from domain.agents import Agents
from domain.caller import Caller
from domain.errors import Forbidden, Unusable
from domain.model_choice import Choice, read_override
from domain.turn import file_tools, mcp_tools
from domain.turn.delegation import DEPTH_MAX, copied
from domain.turn.parts import Parts
from domain.turn.plan import (
    CustomSubAgent,
    InputMessage,
    LoopLimits,
    Means,
    Mode,
    Plan,
    TurnRequest,
    either,
    settle,
)
from gateways.models.model import image_urls
from storage.agents import Agent

SUB_AGENTS_MAX = 50
"""Sub-agents of a run, those of sub-agents included; further ones are skipped."""
WORKER = "worker"
"""The sub-agent of an agent that shall hand work out and names nobody: one of its own means."""
DELEGATING = ("fibre", "team")


class Planner:
    """Makes plans."""

    def __init__(self, parts: Parts, agents: Agents, limits: LoopLimits) -> None:
        self._parts = parts
        self._agents = agents
        self._limits = limits

    async def plan(
        self,
        caller: Caller,
        request: TurnRequest,
        language: str,
        messages: Sequence[InputMessage],
    ) -> Plan:
        """The plan of a turn.

        Raises NotFound("agent.not_found"); Forbidden("chat.login_needed"); Unusable:
        agent.sub_agent_unknown, chat.image_not_enabled, chat.image_refused, and what
        domain.turn.plan.settle, ModelChoices.choose and BroughtMcp.seal raise.
        """
        if caller.via == "none":
            _refuse_addresses(request, messages)
        agent = await self._agents.get(caller, request.agent_id) if request.agent_id else None
        choice = await self._parts.choices.choose(
            caller,
            bound_by=agent.owner_id if agent else "",
            bound=agent.provider_id if agent else None,
            config=request.llm_model_config,
        )
        with_tools = caller.via != "none"
        plan = settle(
            request,
            agent,
            await self._means(caller, request, agent, choice),
            limits=self._limits,
            asked=[message.message_id or "" for message in messages],
            language=language,
            with_tools=with_tools,
        )
        if any(image_urls(message.content) for message in messages):
            if not plan.images:
                raise Unusable("chat.image_not_enabled")
            resolved = await self._parts.choices.open(choice)
            if not resolved.supports_multimodal:
                raise Unusable("chat.image_refused")
        if not with_tools:
            return msgspec.structs.replace(plan, mode=_alone(plan))
        if request.extra_mcp_config and self._parts.brought_mcp is not None:
            sealed = await self._parts.brought_mcp.seal(caller, request.extra_mcp_config)
            plan = msgspec.structs.replace(plan, brought_mcp=sealed)
        return await _Cast(self, caller, request).of(plan, agent)

    async def stored(self, caller: Caller, run: TurnRequest, agent: Agent, above: Plan) -> Plan:
        """The plan of a stored agent that works for `above`, by its own configuration."""
        choice = above.model
        if agent.provider_id:
            choice = await self._parts.choices.choose(
                caller, bound_by=agent.owner_id, bound=agent.provider_id
            )
        request = TurnRequest(
            messages=[],
            system_context=run.system_context,
            memory_type="none",
            context_budget_config=run.context_budget_config,
        )
        plan = await self._settled(caller, request, agent, choice, above)
        return msgspec.structs.replace(
            plan,
            max_loop_count=min(plan.max_loop_count, run.max_loop_count or plan.max_loop_count),
            brought_tools=plan.skipped.get("tools", []),
        )

    async def custom(
        self,
        caller: Caller,
        run: TurnRequest,
        given: CustomSubAgent,
        agent: Agent | None,
        above: Plan,
    ) -> Plan:
        """The plan of a sub-agent that the request describes; what it leaves out is the run's."""
        request = msgspec.structs.replace(
            run,
            agent_name=given.agent_id or given.name,
            system_prefix=given.system_prompt or run.system_prefix,
            system_context={**(run.system_context or {}), **(given.system_context or {})},
            available_workflows=given.available_workflows,
            available_tools=given.available_tools or run.available_tools,
            available_skills=given.available_skills or run.available_skills,
            agent_mode="default",
            memory_type="none",
            deep_thinking=False,
            force_summary=False,
            more_suggest=False,
        )
        if agent is not None:
            agent = msgspec.structs.replace(agent, workflows=None)
        plan = await self._settled(caller, request, agent, above.model, above)
        return msgspec.structs.replace(
            plan,
            agent_id="",
            description=given.description or "",
            brought_tools=plan.skipped.get("tools", []) if given.available_tools else None,
        )

    async def _settled(
        self,
        caller: Caller,
        request: TurnRequest,
        agent: Agent | None,
        choice: Choice,
        above: Plan,
    ) -> Plan:
        return settle(
            request,
            agent,
            await self._means(caller, request, agent, choice),
            limits=self._limits,
            asked=[],
            language=above.language,
        )

    async def usable(
        self, caller: Caller, agent: Agent | None, asked: Sequence[str] | None
    ) -> tuple[list[Agent], list[str]]:
        """The sub-agents that an agent has in a run, and the ids that are skipped: those of its
        own that are gone, or not its owner's to use any more. Raises
        Unusable("agent.sub_agent_unknown") for one that a request names."""
        configured = list(agent.sub_agent_ids or ()) if agent is not None else []
        found, unknown = await self._agents.usable(
            caller, asked or configured, lent=configured, lender=agent.owner_id if agent else ""
        )
        if asked and unknown:
            raise Unusable("agent.sub_agent_unknown", agent_id=unknown[0][:128])
        return found, unknown

    async def _means(
        self, caller: Caller, request: TurnRequest, agent: Agent | None, choice: Choice
    ) -> Means:
        parts = self._parts
        wanted = request.available_knowledge_bases
        if parts.retrieval is not None:
            knowledge = await parts.retrieval.usable(caller, agent, wanted)
        else:
            knowledge = ([], list(wanted or (agent and agent.knowledge_bases) or ()))
        if parts.skills is not None:
            skills = await parts.skills.usable(caller, agent, request.available_skills)
        else:
            skills = ([], list(request.available_skills or (agent and agent.skills) or ()))
        built_in = parts.tools.names
        if parts.workspaces is not None and agent is not None:
            built_in |= file_tools.NAMES
        lent: dict[str, str] = {}
        if parts.mcp is not None:
            lent = await mcp_tools.lenders(
                parts.mcp,
                caller_id=caller.user_id,
                agent=agent,
                asked=request.available_tools,
                built_in=built_in,
            )
        return Means(
            model=choice,
            built_in=built_in,
            knowledge=knowledge,
            skills=skills,
            mcp_tools=lent,
        )


class _Cast:
    """The sub-agents of one run, and theirs."""

    def __init__(self, planner: Planner, caller: Caller, request: TurnRequest) -> None:
        self._planner = planner
        self._caller = caller
        self._request = request
        self._plans: dict[str, Plan] = {}
        self._fresh: list[Agent] = []

    async def of(self, plan: Plan, agent: Agent | None) -> Plan:
        """The run's plan with everybody who may work in it."""
        request = self._request
        found, unknown = await self._planner.usable(
            self._caller, agent, request.available_sub_agent_ids
        )
        if not _hands_out(request, agent, plan):
            return msgspec.structs.replace(plan, mode=_alone(plan))
        named: dict[str, str] = {}
        for number, given in enumerate(request.custom_sub_agents or ()):
            key = f"custom.{number}"
            made = await self._planner.custom(self._caller, request, given, agent, plan)
            self._plans[key] = made
            named[_unused(made.agent_name, named)] = key
        plan = await self._with(plan, found, unknown, named)
        for _ in range(DEPTH_MAX - 2):
            fresh, self._fresh = self._fresh, []
            for one in fresh:
                below = self._plans[one.id]
                if one.multi_agent or below.mode in DELEGATING:
                    found, unknown = await self._planner.usable(self._caller, one, None)
                    self._plans[one.id] = await self._with(below, found, unknown, {})
        return msgspec.structs.replace(plan, sub_agents=self._plans)

    async def _with(
        self, plan: Plan, found: Sequence[Agent], unknown: Sequence[str], named: dict[str, str]
    ) -> Plan:
        """A plan with the sub-agents that it may hand tasks to; those that are new to the run are
        planned."""
        delegates = dict(named)
        skipped = list(unknown)
        for agent in found:
            if agent.id not in self._plans:
                if len(self._plans) >= SUB_AGENTS_MAX:
                    skipped.append(agent.name)
                    continue
                self._plans[agent.id] = await self._planner.stored(
                    self._caller, self._request, agent, plan
                )
                self._fresh.append(agent)
            delegates[_unused(agent.name, delegates)] = agent.id
        if not delegates and plan.mode != "fibre":
            key = f"{WORKER}.{plan.agent_id}"
            self._plans[key] = copied(plan, WORKER)
            delegates[WORKER] = key
        if skipped:
            plan = msgspec.structs.replace(plan, skipped={**plan.skipped, "sub_agents": skipped})
        return msgspec.structs.replace(plan, delegates=delegates)


def _refuse_addresses(request: TurnRequest, messages: Sequence[InputMessage]) -> None:
    """A stranger has the server connect to nothing. Raises Forbidden("chat.login_needed")."""
    urls = [url for message in messages for url in image_urls(message.content)]
    if read_override(request.llm_model_config).base_url:
        raise Forbidden("chat.login_needed", what="llm_model_config.base_url")
    if request.extra_mcp_config:
        raise Forbidden("chat.login_needed", what="extra_mcp_config")
    if not all(url.startswith("data:") for url in urls):
        raise Forbidden("chat.login_needed", what="image_url")


def _hands_out(request: TurnRequest, agent: Agent | None, plan: Plan) -> bool:
    """Whether the run's agent has sub-agents at all: as the request says; else as the agent does,
    or where a mode or the request asks for them."""
    if plan.mode == "simple":
        return False
    named = bool(request.available_sub_agent_ids or request.custom_sub_agents)
    configured = agent is not None and agent.multi_agent
    return either(request.multi_agent, configured or named or plan.mode in DELEGATING)


def _alone(plan: Plan) -> Mode:
    """The mode of an agent that works without sub-agents."""
    return "simple" if plan.mode == "simple" else "default"


def _unused(name: str, taken: Container[str]) -> str:
    numbered = (f"{name} ({number})" for number in count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)
