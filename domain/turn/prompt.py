"""The prompt of a model call: what the agent is, what it knows, and what was said so far.

The system message has its sections in a fixed order: the agent's prompt, its context, its
workflows, its skills, its sub-agents, what the user said in other sessions, and the plan of this
turn. Behind it stand earlier turns and then the present one, within the budget
(domain.turn.plan.Budget).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from domain.turn import consent
from domain.turn.plan import (
    ACTIVE_RATIO,
    HISTORY_RATIO,
    NEW_MESSAGE_RATIO,
    Budget,
    Plan,
)
from storage.conversations import Message

ASK = "ask_user"
"""The name under which a model is shown a question that it asked; the user's next message is its
result."""
PLAN = "plan"
"""The type of the message that holds a turn's plan."""
STEP = "plan_step"
"""The type of the message by which a turn tells the model which step of the plan is due."""
APART = frozenset({"thinking", "reasoning_content", "query_suggest", "error", PLAN})
"""Types of messages that are no part of what was said."""
CUT = "\n[cut to fit the context window]"

PromptMessage = dict[str, Any]


def estimate(message: Mapping[str, Any]) -> int:
    """Tokens of a message, at three bytes of UTF-8 each, and four for its frame."""
    content = message.get("content")
    size = len(content.encode()) if isinstance(content, str) else 0
    if isinstance(content, list):
        size = sum(len((part.get("text") or "").encode()) or 1024 for part in content)
    if calls := message.get("tool_calls"):
        size += len(msgspec.json.encode(calls))
    return (size + 2) // 3 + 4


def system_message(
    plan: Plan,
    *,
    workflows: bool,
    skills: bool = False,
    sub_agents: str = "",
    recollections: Sequence[str] = (),
    thinking: str = "",
) -> PromptMessage:
    """The first message of every call of a turn."""
    name = plan.agent_name
    sections = [
        plan.system_prefix
        or (f"You are {name}, a helpful assistant." if name else "You are a helpful assistant.")
    ]
    if plan.system_context:
        lines = [f"- {key}: {_shown(value)}" for key, value in sorted(plan.system_context.items())]
        sections.append("# Context\n" + "\n".join(lines))
    if workflows and plan.workflows:
        lines = [f"- {key}: {'; '.join(steps)}" for key, steps in sorted(plan.workflows.items())]
        sections.append(
            "# Workflows\nIf one of these fits the task, choose it with choose_workflow, and call"
            " finish_step after each of its steps.\n" + "\n".join(lines)
        )
    if skills and plan.skills:
        lines = [f"- {skill.name}: {skill.description}" for skill in plan.skills]
        sections.append(
            "# Skills\nIf one of these fits the task, read its instructions with load_skill before"
            " you begin, and follow them.\n" + "\n".join(lines)
        )
    if sub_agents:
        sections.append(sub_agents)
    if recollections:
        lines = [f"- {' '.join(said[:400].split())}" for said in recollections]
        sections.append("# What the user said in other sessions, latest first\n" + "\n".join(lines))
    if thinking:
        sections.append(f"# Your thoughts on the task\n{thinking}")
    return {"role": "system", "content": "\n\n".join(sections)}


def conversation_messages(
    messages: Sequence[Message], *, images: bool
) -> list[tuple[Message, PromptMessage]]:
    """Kept messages as a model is shown them. Where a model asked something, the user's next
    message is the answer to it; where a call waits for consent, neither is shown."""
    shown: list[tuple[Message, PromptMessage]] = []
    asked = ""
    consenting = False
    for message in messages:
        if message.type in APART:
            continue
        if consent.asked(message):
            consenting = True
            continue
        if consenting and message.role == "user":
            consenting = False
            continue
        if message.type == STEP:
            shown.append((message, {"role": "user", "content": message.text or ""}))
        elif message.role == "tool":
            shown.append(
                (
                    message,
                    {
                        "role": "tool",
                        "tool_call_id": message.tool_call_id or "",
                        "content": message.text or "",
                    },
                )
            )
        elif message.role == "assistant":
            asked = _add_assistant(shown, message)
        elif message.role == "user" and asked:
            shown.append(
                (message, {"role": "tool", "tool_call_id": asked, "content": _words(message)})
            )
            asked = ""
        else:
            shown.append((message, {"role": message.role, "content": _content(message, images)}))
    return shown


def within(
    budget: Budget, window: int | None, earlier: list[PromptMessage], present: list[PromptMessage]
) -> list[PromptMessage]:
    """Earlier turns and the present one, cut to the budget."""
    window = budget.max_model_len or window
    turns = _turns(earlier)
    if budget.recent_turns:
        turns = turns[-budget.recent_turns :]
    if window is None:
        return [message for turn in turns for message in turn] + present
    room = int(window * _or(budget.history_ratio, HISTORY_RATIO))
    kept: list[list[PromptMessage]] = []
    for turn in reversed(turns):
        room -= sum(map(estimate, turn))
        if room < 0:
            break
        kept.insert(0, turn)
    one = int(window * _or(budget.max_new_message_ratio, NEW_MESSAGE_RATIO))
    present = [_cut(message, one) if message["role"] == "tool" else message for message in present]
    room = int(window * _or(budget.active_ratio, ACTIVE_RATIO)) - sum(map(estimate, present))
    for index, message in enumerate(present):
        if room >= 0:
            break
        if message["role"] == "tool":
            size = estimate(message)
            present[index] = _cut(message, max(32, size + room))
            room += size - estimate(present[index])
    return [message for turn in kept for message in turn] + present


def _add_assistant(shown: list[tuple[Message, PromptMessage]], message: Message) -> str:
    """Show what an assistant said; returns the id of the question it asked, or "". Tool calls
    join the text before them: for the model they are one message."""
    ask = (message.details or {}).get("ask") or ""
    calls = message.tool_calls
    if ask:
        calls = [_question(ask, (message.details or {}).get("question") or "")]
    last = shown[-1] if shown else None
    if (
        calls
        and not ask
        and last is not None
        and last[0].role == "assistant"
        and last[0].run_id == message.run_id
        and "tool_calls" not in last[1]
    ):
        last[1]["tool_calls"] = calls
        return ""
    made: PromptMessage = {"role": "assistant", "content": message.text or ""}
    if calls:
        made["tool_calls"] = calls
    shown.append((message, made))
    return ask


def _question(ask: str, question: str) -> dict[str, Any]:
    arguments = msgspec.json.encode({"question": question}).decode()
    return {"id": ask, "type": "function", "function": {"name": ASK, "arguments": arguments}}


def _content(message: Message, images: bool) -> Any:
    if message.content is None:
        return _words(message)
    if images:
        return message.content
    texts = [
        part.get("text") or "" if part.get("type") == "text" else "[image]"
        for part in message.content
    ]
    return "\n".join(texts)


def _words(message: Message) -> str:
    """What a message says; one that only brings files along names them."""
    text, files = message.text or "", (message.details or {}).get("attachments")
    if text.strip() or not files:
        return text
    return f"[attached: {', '.join(file['filename'] for file in files)}]"


def _turns(messages: Sequence[PromptMessage]) -> list[list[PromptMessage]]:
    """Cut before every user message, so that a tool's result never loses its call."""
    turns: list[list[PromptMessage]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _cut(message: PromptMessage, tokens: int) -> PromptMessage:
    if estimate(message) <= tokens:
        return message
    room = max(0, (tokens - 4) * 3 - len(CUT))
    text = message["content"].encode()[:room].decode(errors="ignore")
    return {**message, "content": text + CUT}


def _or(ratio: float | None, default: float) -> float:
    return default if ratio is None else ratio


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
