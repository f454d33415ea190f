"""embedded/script: a model that does what the message tells it, for client authors and CI.

It reads the last user message. `script:` followed by a JSON array runs the steps in order:

    {"say": "…"}                    the text, word by word
    {"tokens": n, "every_ms": m}    n tokens `t0 `, `t1 ` …, token i not before i × m ms (0)
    {"call": "tool", "args": {…}}   a tool call; the next step runs after its result
    {"ask": "…"}                    a question to the user; the next step runs after its answer
    {"json": {…}}                   the object as compact JSON text, in one piece
    {"stall_ms": n}                 silence for n ms
    {"fail": "message", "status": n}  ModelRefused with that status (500)
    {"drop": true}                  ModelDropped: the connection ends in the middle

Anything else is echoed word by word; that includes `script:` before something that is not a JSON
array. An array with a step outside the grammar is refused as a whole, before its first step
(ModelRefused, 400, naming the step): a typing error should not pass for an echo.

The model keeps nothing between calls. Where a script goes on after a `call` or an `ask` follows
from the messages alone: with k tool messages after the last user message it resumes behind the
k-th such step, and it ends its turn at the next one.

Token counts are exact: one per word (a run of characters without white space), counted in every
message's text for the input and step by step for the output; a tool call and a question count
nothing. `max_tokens` cuts the answer after that many words. Sampling settings, tools, images and
a JSON schema are taken and have no effect: the script alone decides. The stamp of a paced token is
the moment it was due, so that lateness of this process shows in what is measured from it.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import msgspec

from gateways.errors import ModelDropped, ModelRefused
from gateways.models.model import (
    Ask,
    Capabilities,
    Delta,
    Finish,
    FinishReason,
    ModelCall,
    Text,
    ToolCall,
    Usage,
    text_of,
)
from gateways.models.pause import Pauses

PREFIX = "script:"
BREATH = 64
"""Words after which the loop gets a turn: an echo of a long message blocks nobody."""

_WORD = re.compile(r"\S+\s*")

_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=3_600_000)]


class Say(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    say: str


class Tokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    every_ms: _Milliseconds = 0


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    call: Annotated[str, msgspec.Meta(min_length=1)]
    args: dict[str, Any] = {}


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ask: str


class Json(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    json: dict[str, Any]


class Stall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stall_ms: _Milliseconds


class Fail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fail: str
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 500


class Drop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    drop: bool


Step = Say | Tokens | Call | Question | Json | Stall | Fail | Drop
_STEPS: dict[str, type[Step]] = {
    "say": Say,
    "tokens": Tokens,
    "call": Call,
    "ask": Question,
    "json": Json,
    "stall_ms": Stall,
    "fail": Fail,
    "drop": Drop,
}


def parse(text: str) -> list[Step] | None:
    """The steps of a script, or None when the text is to be echoed.

    Raises ModelRefused(400) for an array with a step that the grammar does not know.
    """
    stripped = text.lstrip()
    if not stripped.startswith(PREFIX):
        return None
    try:
        raw = msgspec.json.decode(stripped[len(PREFIX) :])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return [_step(i, item) for i, item in enumerate(raw)] if isinstance(raw, list) else None


def _step(index: int, raw: Any) -> Step:
    kinds = [key for key in raw if key in _STEPS] if isinstance(raw, dict) else []
    if len(kinds) != 1:
        raise ModelRefused(400, f"step {index} of the script is none of: {', '.join(_STEPS)}")
    try:
        return msgspec.convert(raw, _STEPS[kinds[0]])
    except msgspec.ValidationError as error:
        raise ModelRefused(400, f"step {index} of the script: {error}") from None


class Turn(msgspec.Struct, frozen=True):
    """What the last user message asks for, and how far the turn is."""

    text: str
    content: Any
    number: int
    answered: int

    @classmethod
    def of(cls, messages: Sequence[Mapping[str, Any]]) -> "Turn":
        """`number` counts user messages, `answered` the tool messages after the last of them."""
        number = sum(message.get("role") == "user" for message in messages)
        answered = 0
        for message in reversed(messages):
            role = message.get("role")
            if role == "user":
                content = message.get("content")
                return cls(text_of(content), content, number, answered)
            answered += role == "tool"
        return cls("", None, 0, answered)


def remaining(steps: list[Step], answered: int) -> list[tuple[int, Step]]:
    """The steps of this turn with their places: behind the `answered`-th call or ask."""
    waits = [i for i, step in enumerate(steps) if isinstance(step, Call | Question)]
    start = 0 if not answered else waits[answered - 1] + 1 if answered <= len(waits) else len(steps)
    return list(enumerate(steps))[start:]


def count_words(messages: Sequence[Mapping[str, Any]]) -> int:
    """The input tokens of a call: one per word of every message's text."""
    return sum(len(text_of(message.get("content")).split()) for message in messages)


class ScriptModel:
    """embedded/script, in process."""

    capabilities = Capabilities(tools=True, images=True, json_schema=True)

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        """The script's deltas. Raises ModelRefused, ModelDropped, ModelCancelled."""
        turn = Turn.of(call.messages)
        steps = parse(turn.text)
        if steps is None:
            steps = [] if turn.answered else self.unscripted(call, turn)
        output = _Output(call)
        try:
            for place, step in remaining(steps, turn.answered):
                async with aclosing(output.run(step, f"call_{turn.number}_{place}")) as deltas:
                    async for delta in deltas:
                        yield delta
                if output.reason is not None:
                    break
            yield Usage(count_words(call.messages), output.words)
            yield Finish(output.reason or "stop")
        finally:
            output.pauses.close()

    def unscripted(self, call: ModelCall, turn: Turn) -> list[Step]:
        """What is done when the last user message is not a script."""
        return [Say(turn.text)]


class _Output:
    """Runs steps and counts their words. `reason` is set once the turn is over."""

    __slots__ = ("_left", "pauses", "reason", "words")

    def __init__(self, call: ModelCall) -> None:
        self.pauses = Pauses(call.cancel)
        self._left = call.max_tokens
        self.words = 0
        self.reason: FinishReason | None = None

    async def run(self, step: Step, call_id: str) -> AsyncGenerator[Delta, None]:
        self.pauses.check()
        match step:
            case Say(say=text):
                for word in _words(text):
                    if not await self._room():
                        return
                    yield Text(word, time.time())
            case Tokens(tokens=count, every_ms=every_ms):
                start, stamp = asyncio.get_running_loop().time(), time.time()
                for i in range(count):
                    if not await self._room():
                        return
                    due = i * every_ms / 1000
                    if due:
                        await self.pauses.until(start + due)
                    yield Text(f"t{i} ", stamp + due if every_ms else time.time())
            case Json(json=value):
                text = msgspec.json.encode(value).decode()
                for piece in [text] if self._left is None else _words(text):
                    if not await self._room(len(piece.split())):
                        return
                    yield Text(piece, time.time())
            case Call(call=name, args=args):
                self.reason = "tool_calls"
                yield ToolCall(call_id, name, msgspec.json.encode(args).decode())
            case Question(ask=question):
                self.reason = "ask"
                yield Ask(call_id, question)
            case Stall(stall_ms=milliseconds):
                await self.pauses.until(asyncio.get_running_loop().time() + milliseconds / 1000)
            case Fail(fail=message, status=status):
                raise ModelRefused(status, message)
            case Drop(drop=True):
                raise ModelDropped("the script dropped the connection")

    async def _room(self, words: int = 1) -> bool:
        """Whether the answer may grow by so many words; counts them, and lets the loop breathe."""
        if self._left is not None and self.words + words > self._left:
            self.reason = "length"
            return False
        self.words += words
        if self.words % BREATH == 0:
            await asyncio.sleep(0)
            self.pauses.check()
        return True


def _words(text: str) -> Iterator[str]:
    """The text in pieces of one word each, white space kept; white space alone is no word."""
    start = 0
    for match in _WORD.finditer(text):
        yield text[start : match.end()]
        start = match.end()
