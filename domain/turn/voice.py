"""What an agent says, as messages to keep and as what is told of them."""

import time
from collections.abc import Sequence
from typing import Any

from domain.ids import uuid7
from domain.runs.ending import MESSAGE_TYPES, wholes
from domain.tools import Result
from domain.turn import planned
from domain.turn.listening import KINDS, Purpose, Said
from domain.turn.prompt import PLAN, STEP
from domain.turn.telling import (
    Called,
    Delegated,
    Returned,
    Suggested,
    Telling,
    Text,
    Whole,
)
from domain.turn.toolset import Toolset
from storage.conversations import NewMessage

SUGGESTIONS = 3


class Voice:
    """Makes the messages of one agent in a run; `by` is its task where it is a sub-agent."""

    def __init__(self, agent_name: str, run_id: str, by: Delegated | None, tools: Toolset) -> None:
        self._agent_name = agent_name
        self._run_id = run_id
        self._by = by
        self._tools = tools

    def kept(self, purpose: Purpose, said: Said, final: list[Telling]) -> list[NewMessage]:
        """The messages that a model call leaves, and in `final` what is told of them. A plan is
        read into `said`."""
        words: list[Telling] = []
        fresh = self._kept(purpose, said, words, final)
        final[:0] = [*words, *wholes(fresh)]
        return fresh

    def _kept(
        self, purpose: Purpose, said: Said, words: list[Telling], final: list[Telling]
    ) -> list[NewMessage]:
        fresh: list[NewMessage] = []
        if said.reasoning and purpose != "suggest":
            fresh.append(self.assistant(said.reasoning_id, "reasoning_content", said.reasoning))
        if purpose == "suggest":
            suggestions = suggested(said.text)
            final += [Suggested(uuid7(), question) for question in suggestions]
            fresh.append(self.assistant(said.text_id, "query_suggest", "\n".join(suggestions)))
            return fresh
        if purpose == "plan" and said.ask is None:
            attempt = planned.attempt(said.text)
            if attempt is not None:
                return [*fresh, *self._drawn(said, attempt, words)]
        if said.ask is not None:
            details = {"ask": said.ask.id, "question": said.ask.question}
            fresh.append(self.assistant(said.text_id, "assistant_text", said.text, details=details))
            return fresh
        if said.text or not said.calls:
            type_ = MESSAGE_TYPES[KINDS.get(purpose, "answer")]
            fresh.append(self.assistant(said.text_id, type_, said.text))
        if said.calls:
            fresh.append(self.asks([(c.id, c.name, c.arguments) for c in said.calls], final))
        return fresh

    def _drawn(
        self, said: Said, attempt: planned.Attempt, words: list[Telling]
    ) -> list[NewMessage]:
        """The messages that a plan leaves, or one that does not fit, and in `words` what is told of
        its own; those before it were told as they came."""
        said.calls = []
        drawn = said.drawn = attempt.drawn
        details = {"fits": drawn is not None, "closing": drawn.closing if drawn else ""}
        before = attempt.words if attempt.words.strip() else ""
        after = drawn.message.strip() if drawn else ""
        if before and after and not before[-1].isspace():
            after = f"\n\n{after}"
        if after:
            words.append(Text(said.text_id, "answer", after, time.time()))
        if drawn is None:
            if before:
                words.append(Whole(said.text_id, "answer", before))
            return [self.assistant(said.text_id, PLAN, said.text, details=details)]
        fresh = [self.assistant(uuid7(), PLAN, said.text, details=details)]
        if text := before + after:
            fresh.append(self.assistant(said.text_id, "assistant_text", text))
        return fresh

    def due(self, text: str) -> NewMessage:
        """The message that tells the model which step is due."""
        return self._message(uuid7(), "system", STEP, text, None)

    def asks(
        self,
        calls: Sequence[tuple[str, str, str]],
        final: list[Telling],
        details: dict[str, Any] | None = None,
    ) -> NewMessage:
        """The message that asks for tools: their ids, names and arguments."""
        tool_calls = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id_, name, arguments in calls
        ]
        message_id = uuid7()
        boxes = [self._tools.toolbox(name) for _, name, _ in calls]
        final.append(Called(message_id, tool_calls, boxes, self._by))
        return self.assistant(message_id, "tool_call", None, tool_calls=tool_calls, details=details)

    def unfinished(self, purpose: Purpose, said: Said) -> list[NewMessage]:
        """What was said before a model call failed."""
        fresh = []
        cut = {"unfinished": True}
        if said.reasoning:
            fresh.append(
                self.assistant(said.reasoning_id, "reasoning_content", said.reasoning, details=cut)
            )
        text = planned.spoken(said.text) if purpose == "plan" else said.text
        if text.strip():
            type_ = "thinking" if purpose == "think" else "assistant_text"
            fresh.append(self.assistant(said.text_id, type_, text, details=cut))
        return fresh

    def assistant(
        self,
        message_id: str,
        type_: str,
        text: str | None,
        *,
        tool_calls: list[dict[str, Any]] | None = None,
        details: dict[str, Any] | None = None,
    ) -> NewMessage:
        return self._message(message_id, "assistant", type_, text, details, tool_calls=tool_calls)

    def answered(
        self, asked: dict[str, Any], given: str | Result, fits: bool
    ) -> tuple[NewMessage, Returned]:
        """The message that holds a tool's result, and what is told of it."""
        result = given if isinstance(given, Result) else Result(given)
        text, name, message_id = result.text, asked["function"]["name"], uuid7()
        message = self._message(
            message_id, "tool", "tool_call_result", text, {"name": name}, tool_call_id=asked["id"]
        )
        told = Returned(
            message_id,
            asked["id"],
            name,
            text,
            not fits,
            toolbox=self._tools.toolbox(name),
            arguments=asked["function"]["arguments"],
            content=result.content,
            by=self._by,
        )
        return message, told

    def _message(
        self,
        message_id: str,
        role: str,
        type_: str,
        text: str | None,
        details: dict[str, Any] | None,
        **fields: Any,
    ) -> NewMessage:
        by = self._by
        if by is not None:
            details = {**(details or {}), "task": by.shown()}
        return NewMessage(
            id=uuid7(),
            message_id=message_id,
            role=role,
            type=type_,
            text=text,
            agent_name=self._agent_name or None,
            run_id=self._run_id,
            task_id=by.task_id if by else None,
            details=details,
            **fields,
        )


def suggested(text: str) -> list[str]:
    """The questions in a model's answer: its first lines, without bullets and numbers."""
    lines = (line.strip().lstrip("-*•0123456789.) ").strip() for line in text.splitlines())
    return [line[:200] for line in lines if line][:SUGGESTIONS]
