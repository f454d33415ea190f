"""Hearing a model out: what it says is told as it comes, and gathered."""

import asyncio
import time
from contextlib import aclosing
from typing import Literal

import msgspec

from domain.ids import uuid7
from domain.turn import planned
from domain.turn.journal import Journal
from domain.turn.telling import Delegated, Text, TextKind, event
from gateways.errors import (
    ModelDropped,
    ModelError,
    ModelMalformed,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
)
from gateways.models import model as models
from storage.conversations import keepable

Purpose = Literal["think", "plan", "model", "summary", "suggest"]
"""What a model is called for: its thoughts, a plan, the next step, a summary, suggestions."""

SPEAKING: frozenset[Purpose] = frozenset({"plan", "model"})
"""Purposes for which it may also ask for tools, or ask the user."""

CALLS_MAX = 16
"""Tool calls of one answer that are made; a model asks for any number, and they go side by side."""
ANSWER_MAX = 2 * 1024 * 1024
"""Characters of one answer with its reasoning: every one of them is logged."""
ANSWER_S = 1800.0
"""Seconds that one answer may take. A model's own timeout bounds its silence alone, and one that
says a word a minute would hold a run for ever."""
ID_MAX, NAME_MAX = 128, 256
"""Characters of a tool call's id and of its tool's name."""

KINDS: dict[Purpose, TextKind] = {"think": "thinking", "summary": "summary"}
REASONS: dict[type[ModelError], str] = {
    ModelRefused: "model_refused",
    ModelUnreachable: "model_unreachable",
    ModelTimeout: "model_timeout",
    ModelDropped: "model_dropped",
    ModelMalformed: "model_malformed",
}


class Said(msgspec.Struct):
    """What came of one model call; `drawn` is the plan that it was called for."""

    text: str = ""
    text_id: str = ""
    reasoning: str = ""
    reasoning_id: str = ""
    calls: list[models.ToolCall] = []
    ask: models.Ask | None = None
    usage: models.Usage | None = None
    drawn: planned.Drawn | None = None


async def listen(
    journal: Journal,
    model: models.Model,
    call: models.ModelCall,
    purpose: Purpose,
    said: Said,
    by: Delegated | None,
) -> None:
    """Hear the model out into `said`. Suggestions are gathered and not told. Raises ModelError."""
    kind = KINDS.get(purpose, "answer")
    quiet = purpose == "suggest"
    pieces: list[str] = []
    reasons: list[str] = []
    said.text_id, said.reasoning_id = uuid7(), uuid7()
    push, drain = journal.push, journal.drain
    room = ANSWER_MAX
    screen = planned.Screen() if purpose == "plan" else None

    async def tell(text: str, stamp: float) -> None:
        if text and not quiet:
            push(event(Text(said.text_id, kind, text, stamp, by)))
            await drain()

    try:
        async with (
            journal.places,
            asyncio.timeout(ANSWER_S),
            aclosing(model.stream(call)) as deltas,
        ):
            async for delta in deltas:
                if isinstance(delta, models.Text | models.Reasoning):
                    room -= len(delta.text)
                    if room < 0:
                        raise ModelMalformed(f"an answer of over {ANSWER_MAX} characters")
                match delta:
                    case models.Text(text=text, stamp=stamp):
                        pieces.append(text)
                        await tell(screen.take(text) if screen else text, stamp)
                    case models.Reasoning(text=text, stamp=stamp):
                        reasons.append(text)
                        if not quiet:
                            push(event(Text(said.reasoning_id, "reasoning", text, stamp, by)))
                            await drain()
                    case models.ToolCall():
                        if purpose in SPEAKING and len(said.calls) < CALLS_MAX:
                            said.calls = [*said.calls, _named(delta)]
                    case models.Ask(question=question):
                        if purpose in SPEAKING and not (screen and screen.holds):
                            said.ask = delta
                            pieces.append(question)
                            held, screen = screen.rest() if screen else "", None
                            await tell(held + question, time.time())
                    case models.Usage():
                        said.usage = delta
                    case models.Finish():
                        pass
            if screen and planned.attempt("".join(pieces)) is None:
                await tell(screen.rest(), time.time())
    except TimeoutError:
        raise ModelTimeout(f"an answer that took over {ANSWER_S:g} s") from None
    finally:
        said.text = "".join(pieces)
        said.reasoning = "".join(reasons)


def _named(call: models.ToolCall) -> models.ToolCall:
    """A call whose id and name can be kept, whatever a model makes up."""
    id_, name = keepable(call.id), keepable(call.name)[:NAME_MAX]
    return models.ToolCall(id_ if len(id_) <= ID_MAX else uuid7(), name, call.arguments)
