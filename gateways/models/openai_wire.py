"""Reading the stream of an OpenAI-compatible chat completion.

The wire: server-sent events whose data is a chat.completion.chunk, then `data: [DONE]`
(platform.openai.com, API reference, "Chat Completions: Streaming"). Chunks are decoded by msgspec
into the few fields that matter; the openai client's own models cost 90 µs each, these 5.
"""

import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from secrets import token_hex
from typing import Any

import msgspec

from gateways.errors import ModelDropped, ModelMalformed, ModelRefused
from gateways.models.model import (
    Delta,
    Finish,
    FinishReason,
    ModelCall,
    Reasoning,
    Text,
    ToolCall,
    Usage,
    text_of,
)

MAX_LINE = 16 * 1024 * 1024
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Failure(msgspec.Struct):
    message: str = ""
    code: int | str | None = None


class Chunk(msgspec.Struct):
    """A chat.completion.chunk, a chat.completion, or an error in the middle of a stream."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Failure | str | None = None


_decoder = msgspec.json.Decoder(Chunk)


def decode(data: bytes) -> Chunk:
    """Raises ModelMalformed."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ModelMalformed(f"the model's server sent an unreadable chunk: {error}") from None


async def events(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event (WHATWG HTML, 9.2.6), split at line feeds only: JSON may
    hold U+2028 and the like unescaped. Raises ModelMalformed for a line beyond 16 MiB."""
    rest, data = b"", []
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE:
            raise ModelMalformed("the model's server sent a line without an end")
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].lstrip(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data.clear()
    if data:
        yield b"\n".join(data)


class Assembly:
    """Turns chunks into deltas: text and reasoning as they come, tool calls once whole."""

    def __init__(self, call: ModelCall) -> None:
        self._call = call
        self._calls: dict[int, list[str]] = {}
        self._usage: _Usage | None = None
        self._reason: str | None = None
        self._length = 0

    def add(self, chunk: Chunk) -> Iterator[Delta]:
        """Raises ModelRefused for an error that the server reports inside the stream."""
        if chunk.error is not None:
            failure = chunk.error if isinstance(chunk.error, _Failure) else _Failure(chunk.error)
            status = failure.code if isinstance(failure.code, int) else 500
            raise ModelRefused(status if 400 <= status <= 599 else 500, failure.message[:500])
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices[:1]:
            self._reason = choice.finish_reason or self._reason
            if (message := choice.delta or choice.message) is None:
                continue
            if thought := message.reasoning_content or message.reasoning:
                self._length += len(thought)
                yield Reasoning(thought, time.time())
            if message.content:
                self._length += len(message.content)
                yield Text(message.content, time.time())
            for part in message.tool_calls or ():
                self._add_call(part)

    def end(self) -> Iterator[Delta]:
        """What is left to say once the stream is over. Raises ModelDropped when it broke off."""
        if self._reason is None:
            raise ModelDropped("the model's server ended the stream before the answer")
        for _, (call_id, name, arguments) in sorted(self._calls.items()):
            yield ToolCall(call_id or f"call_{token_hex(8)}", name, arguments or "{}")
        if self._usage is not None:
            yield Usage(self._usage.prompt_tokens, self._usage.completion_tokens)
        else:
            sent = sum(len(text_of(message.get("content"))) for message in self._call.messages)
            yield Usage(_estimate(sent), _estimate(self._length), estimated=True)
        yield Finish("tool_calls" if self._calls else _REASONS.get(self._reason, "stop"))

    def _add_call(self, part: _Call) -> None:
        """Parts of one call share an index; a server that sends none begins a call with its id."""
        place = part.index
        if place is None:
            place = len(self._calls) - (0 if part.id or not self._calls else 1)
        call = self._calls.setdefault(place, ["", "", ""])
        call[0] = part.id or call[0]
        call[1] = part.function.name or call[1]
        arguments = part.function.arguments
        if isinstance(arguments, dict):
            call[2] = msgspec.json.encode(arguments).decode()
        else:
            call[2] += arguments or ""
            self._length += len(arguments or "")


def _estimate(characters: int) -> int:
    return -(-characters // 4)
