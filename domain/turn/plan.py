"""What a turn was asked to do, settled once: the agent's configuration under the request's fields.

A plan is kept with its run, so that a turn taken up after a restart, or in another process, goes
on as it began although the agent was edited meanwhile.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from domain.brought_mcp import Sealed
from domain.default_prompt import DEFAULT_PROMPT
from domain.errors import Unusable
from domain.model_choice import Choice
from domain.skills import Chosen
from storage.agents import Agent, AgentFields

MemoryType = Literal["session", "user", "none"]
Mode = Literal["default", "simple", "fibre", "team"]
MODES: Mapping[str, Mode] = {"simple": "simple", "fibre": "fibre", "team": "team"}
MEMORY_TYPES: Mapping[str, MemoryType] = {"session": "session", "user": "user", "none": "none"}


class InputMessage(msgspec.Struct, kw_only=True):
    """A message of a request. `content` is text, parts (`text`, `image_url`), or None."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    message_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class CustomSubAgent(msgspec.Struct, kw_only=True):
    """One of a request's `custom_sub_agents`: a sub-agent for this run alone."""

    name: str
    agent_id: str | None = None
    system_prompt: str | None = None
    description: str | None = None
    available_tools: list[str] | None = None
    available_skills: list[str] | None = None
    available_workflows: dict[str, list[str]] | None = None
    system_context: dict[str, Any] | None = None


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
    custom_sub_agents: list[CustomSubAgent] | None = None
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


class SessionTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a session adds to a turn: it begins with a plan, its tools work in the session's
    sandbox, and a question makes it wait for an answer.

    `attachments` are files as the session's events show them; `untitled` says that the turn may
    give the session its title; `offered` names tools of the platform's servers and agents; a plan
    that does not fit is asked for `max_retries` times in all.
    """

    attachments: list[dict[str, Any]] = []
    untitled: bool = False
    offered: list[str] = []
    max_retries: int = 3
    max_search_results: int = 10


HISTORY_RATIO = 0.2
ACTIVE_RATIO = 0.3
NEW_MESSAGE_RATIO = 0.5


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A turn as it is carried out. JSON throughout: it is kept in the run's row.

    `asked` are the ids of the request's messages. `model` is the choice of domain.model_choice.
    `tools` None means every built-in tool; `knowledge_bases` are ids that the turn may look
    through, `skills` those that it may take up; `mcp_tools` are names of tools with the account
    that lends each. `skipped` names what is wanted and nobody has, by kind.

    `agent_name` is shown with what the agent says, `own_name` is its own, "" without an agent;
    `images` says whether the agent lets images reach its model, if that takes any.

    `delegates` are the sub-agents that this agent may hand tasks to: the name that the model
    calls each by, and its key among the `sub_agents` of the run's own plan, which holds a plan
    for every one of them. `brought_mcp` are the servers that the request brought along, and
    `brought_tools` the names of their tools that this agent has, None for all. With a `session`
    the run's own agent plans its turn (domain.turn.planned).
    """

    asked: list[str]
    model: Choice
    agent_id: str = ""
    agent_name: str = ""
    own_name: str = ""
    description: str = ""
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
    images: bool = True
    budget: Budget = Budget()
    language: str = "zh"
    skipped: dict[str, list[str]] = {}
    delegates: dict[str, str] = {}
    sub_agents: dict[str, "Plan"] = {}
    brought_mcp: Sealed | None = None
    brought_tools: list[str] | None = None
    session: SessionTurn | None = None


class LoopLimits(msgspec.Struct, frozen=True):
    """How many rounds a turn goes when nobody says, and at most: calls of the model that may ask
    for tools, those of its thoughts, a summary and suggestions aside."""

    default: int = 10
    cap: int = 50

    def of(self, request: TurnRequest, config: Agent | AgentFields) -> int:
        """The request's, else the agent's. Raises Unusable("chat.loop_count")."""
        loops = request.max_loop_count or config.max_loop_count or self.default
        if loops < 1:
            raise Unusable("chat.loop_count")
        return min(loops, self.cap)


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent of a turn works with, looked up: with each kind, the names that are
    skipped."""

    model: Choice
    built_in: frozenset[str]
    knowledge: tuple[list[str], list[str]] = ([], [])
    skills: tuple[list[Chosen], list[str]] = ([], [])
    mcp_tools: Mapping[str, str] = {}


def settle(
    request: TurnRequest,
    agent: Agent | None,
    means: Means,
    *,
    limits: LoopLimits,
    asked: list[str],
    language: str,
    with_tools: bool = True,
) -> Plan:
    """The plan of a request to an agent, without sub-agents; of two values the request's counts.

    Raises Unusable: chat.memory_type, chat.context_budget, chat.loop_count.
    """
    config: Agent | AgentFields = agent or AgentFields(name="")
    memory = request.memory_type or config.memory_type or "session"
    if memory not in MEMORY_TYPES:
        raise Unusable("chat.memory_type", value=memory[:64])
    default = DEFAULT_PROMPT["en" if language == "en" else "zh"] if agent else ""
    wanted = request.available_tools or config.tools or None
    tools = [name for name in wanted if name in means.built_in] if wanted else None
    return Plan(
        asked=asked,
        agent_id=agent.id if agent else "",
        agent_name=request.agent_name or config.name,
        own_name=config.name,
        description=config.description or "",
        system_prefix=request.system_prefix or config.system_prefix or default,
        system_context={**(config.system_context or {}), **(request.system_context or {})},
        workflows=request.available_workflows or config.workflows or {},
        tools=tools if with_tools else [],
        knowledge_bases=means.knowledge[0] if with_tools else [],
        skills=means.skills[0] if with_tools else [],
        mcp_tools=dict(means.mcp_tools) if with_tools else {},
        memory_type=MEMORY_TYPES[memory],
        mode=MODES.get(request.agent_mode or config.mode or "", "default"),
        max_loop_count=limits.of(request, config),
        deep_thinking=either(request.deep_thinking, config.deep_thinking),
        force_summary=bool(request.force_summary),
        more_suggest=bool(request.more_suggest),
        images=agent is None or agent.multimodal,
        budget=_budget(request.context_budget_config),
        model=means.model,
        language=language,
        skipped=_skipped(
            wanted or [], means.built_in | set(means.mcp_tools), means.skills[1], means.knowledge[1]
        ),
    )


def without_secrets(request: dict[str, Any]) -> dict[str, Any]:
    """A plan as its run's row keeps it once the run has ended: without the keys and servers that
    came with the request, its sub-agents' too. For any version of a plan."""
    kept = {name: value for name, value in request.items() if name != "brought_mcp"}
    if model := kept.get("model"):
        kept["model"] = {name: value for name, value in model.items() if name != "api_key_sealed"}
    if below := kept.get("sub_agents"):
        kept["sub_agents"] = {key: without_secrets(plan) for key, plan in below.items()}
    return kept


def either(asked: bool | None, configured: bool) -> bool:
    """A flag of the request's, else the agent's."""
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
