"""What a turn was asked to do, settled once: the agent's configuration under the request's fields.

A plan is kept with its run, so that a turn taken up after a restart, or in another process, goes
on as it began although the agent was edited meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from domain.errors import Unusable
from domain.model_choice import Choice
from domain.skills import Chosen
from storage.agents import Agent, AgentFields

MemoryType = Literal["session", "user", "none"]
Mode = Literal["default", "simple"]
MEMORY_TYPES: Mapping[str, MemoryType] = {"session": "session", "user": "user", "none": "none"}


class InputMessage(msgspec.Struct, kw_only=True):
    """A message of a request. `content` is text, parts (`text`, `image_url`), or None."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    message_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class TurnRequest(msgspec.Struct, kw_only=True):
    """A chat request in the words of the sage document (StreamRequest); None is not given."""

    messages: list[InputMessage]
    session_id: str | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    system_context: dict[str, Any] | None = None
    system_prefix: str | None = None
    deep_thinking: bool | None = None
    max_loop_count: int | None = None
    multi_agent: bool | None = None
    agent_mode: str | None = None
    more_suggest: bool | None = None
    available_workflows: dict[str, list[str]] | None = None
    llm_model_config: dict[str, Any] | None = None
    available_tools: list[str] | None = None
    available_skills: list[str] | None = None
    available_knowledge_bases: list[str] | None = None
    available_sub_agent_ids: list[str] | None = None
    force_summary: bool | None = None
    memory_type: str | None = None
    custom_sub_agents: list[dict[str, Any]] | None = None
    context_budget_config: dict[str, Any] | None = None
    extra_mcp_config: dict[str, Any] | None = None


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`context_budget_config`: how the model's window is shared out.

    Tokens are estimated at three bytes of UTF-8 each. `max_model_len` is the window (default: the
    provider's; where nobody says there is no limit). Earlier turns get `history_ratio` of it, and
    at most the latest `recent_turns` are shown (0: as many as fit): whole turns go, oldest first.
    The present turn gets `active_ratio`: beyond it the texts of its oldest tool results are cut.
    One tool result gets `max_new_message_ratio`. What the user says now is never cut.
    """

    max_model_len: int | None = None
    history_ratio: float | None = None
    active_ratio: float | None = None
    max_new_message_ratio: float | None = None
    recent_turns: int | None = None

    def __post_init__(self) -> None:
        ratios = (self.history_ratio, self.active_ratio, self.max_new_message_ratio)
        if not all(ratio is None or 0 <= ratio <= 1 for ratio in ratios):
            raise ValueError("a ratio lies between 0 and 1")
        if (self.recent_turns or 0) < 0 or (self.max_model_len or 1) < 1:
            raise ValueError("max_model_len is at least 1 and recent_turns at least 0")


HISTORY_RATIO = 0.2
ACTIVE_RATIO = 0.3
NEW_MESSAGE_RATIO = 0.5


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A turn as it is carried out. JSON throughout: it is kept in the run's row.

    `asked` are the ids of the request's messages. `model` is the choice of domain.model_choice.
    `tools` None means every built-in tool; `knowledge_bases` are ids that the turn may look
    through, `skills` those that it may take up; `mcp_tools` are names of tools with the account
    that lends each. `skipped` names what is wanted and nobody has, by kind.
    """

    asked: list[str]
    model: Choice
    agent_name: str = ""
    system_prefix: str = ""
    system_context: dict[str, Any] = {}
    workflows: dict[str, list[str]] = {}
    tools: list[str] | None = None
    knowledge_bases: list[str] = []
    skills: list[Chosen] = []
    mcp_tools: dict[str, str] = {}
    memory_type: MemoryType = "session"
    mode: Mode = "default"
    max_loop_count: int = 10
    deep_thinking: bool = False
    force_summary: bool = False
    more_suggest: bool = False
    budget: Budget = Budget()
    language: str = "zh"
    skipped: dict[str, list[str]] = {}


class _Bound(msgspec.Struct):
    """What the request and the agent together ask for."""

    agent_mode: str | None
    multi_agent: bool | None
    custom_sub_agents: Sequence[Any] | None
    available_sub_agent_ids: Sequence[str] | None
    extra_mcp_config: Mapping[str, Any] | None


NOT_BUILT: Mapping[str, Callable[[_Bound], object]] = {
    "agent_mode": lambda asked: asked.agent_mode in ("fibre", "team"),
    "multi_agent": lambda asked: asked.multi_agent,
    "custom_sub_agents": lambda asked: asked.custom_sub_agents,
    "available_sub_agent_ids": lambda asked: asked.available_sub_agent_ids,
    "extra_mcp_config": lambda asked: asked.extra_mcp_config,
}
"""Fields whose capability is not built yet, whether the request or the agent uses them."""


class LoopLimits(msgspec.Struct, frozen=True):
    """How many model calls a turn makes when nobody says, and at most."""

    default: int = 10
    cap: int = 50


def settle(
    request: TurnRequest,
    agent: Agent | None,
    *,
    limits: LoopLimits,
    built_in: frozenset[str],
    asked: list[str],
    model: Choice,
    language: str,
    with_tools: bool = True,
    knowledge: tuple[list[str], list[str]] = ([], []),
    skills: tuple[list[Chosen], list[str]] = ([], []),
    mcp_tools: Mapping[str, str] = {},
) -> Plan:
    """The plan of a request to an agent; of two values the request's counts. `knowledge`
    are the ids of bases that the turn may use, and those that it skips; `skills` alike.

    Raises Unusable: chat.not_built (field), chat.memory_type, chat.context_budget, chat.loop_count.
    """
    config: Agent | AgentFields = agent or AgentFields(name="")
    _refuse_unbuilt(request, config)
    memory = request.memory_type or config.memory_type or "session"
    if memory not in MEMORY_TYPES:
        raise Unusable("chat.memory_type", value=memory[:64])
    loops = request.max_loop_count or config.max_loop_count or limits.default
    if loops < 1:
        raise Unusable("chat.loop_count")
    wanted = request.available_tools or config.tools or None
    tools = [name for name in wanted if name in built_in] if wanted else None
    return Plan(
        asked=asked,
        agent_name=request.agent_name or config.name,
        system_prefix=request.system_prefix or config.system_prefix or "",
        system_context={**(config.system_context or {}), **(request.system_context or {})},
        workflows=request.available_workflows or config.workflows or {},
        tools=tools if with_tools else [],
        knowledge_bases=knowledge[0] if with_tools else [],
        skills=skills[0] if with_tools else [],
        mcp_tools=dict(mcp_tools) if with_tools else {},
        memory_type=MEMORY_TYPES[memory],
        mode="simple" if (request.agent_mode or config.mode) == "simple" else "default",
        max_loop_count=min(loops, limits.cap),
        deep_thinking=_either(request.deep_thinking, config.deep_thinking),
        force_summary=bool(request.force_summary),
        more_suggest=bool(request.more_suggest),
        budget=_budget(request.context_budget_config),
        model=model,
        language=language,
        skipped=_skipped(wanted or [], built_in | set(mcp_tools), skills[1], knowledge[1]),
    )


def _refuse_unbuilt(request: TurnRequest, config: Agent | AgentFields) -> None:
    bound = _Bound(
        agent_mode=request.agent_mode or config.mode,
        multi_agent=_either(request.multi_agent, config.multi_agent),
        custom_sub_agents=request.custom_sub_agents,
        available_sub_agent_ids=request.available_sub_agent_ids or config.sub_agent_ids,
        extra_mcp_config=request.extra_mcp_config,
    )
    for field, used in NOT_BUILT.items():
        if used(bound):
            raise Unusable("chat.not_built", field=field)


def _either(asked: bool | None, configured: bool) -> bool:
    return configured if asked is None else asked


def _budget(config: dict[str, Any] | None) -> Budget:
    if not config:
        return Budget()
    try:
        return msgspec.convert(config, Budget)
    except msgspec.ValidationError as error:
        raise Unusable("chat.context_budget", reason=str(error)) from None


def _skipped(
    wanted: Sequence[str],
    built_in: frozenset[str],
    skills: list[str],
    knowledge_bases: list[str],
) -> dict[str, list[str]]:
    skipped = {
        "tools": [name for name in wanted if name not in built_in],
        "skills": skills,
        "knowledge_bases": knowledge_bases,
    }
    return {kind: names for kind, names in skipped.items() if names}
