"""The one interface through which every agent turn reaches a model.

    async with aclosing(model.stream(call)) as deltas:
        async for delta in deltas:
            match delta:
                case Text(text=text, stamp=stamp): …
                case ToolCall(id=id, name=name, arguments=arguments): …

A stream ends with exactly one `Usage` and then one `Finish`, or with a ModelError. Closing the
iterator, cancelling the task that reads it and setting `call.cancel` all end the call at once; the
last raises ModelCancelled. A call is made at most once: nothing here retries.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from gateways.errors import ModelRefused

FinishReason = Literal["stop", "length", "tool_calls", "ask", "content_filter"]


class ModelCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a model.

    `messages` and `tools` have the shape of OpenAI's chat completions (content as text or as
    parts, `image_url` parts, `tool_calls`, `role: tool` results; tools as
    `{"type": "function", "function": {name, description, parameters}}`). `json_schema` asks for an
    answer that is one JSON value of that schema. `timeout_s` bounds the silence between two
    deltas, not the whole answer. A setting that is None is left to the model.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    json_schema: Mapping[str, Any] | None = None
    timeout_s: float = 120.0
    cancel: asyncio.Event | None = None


class Text(msgspec.Struct, frozen=True, gc=False):
    """More of the answer. `stamp` is when the model produced it, in seconds since the epoch."""

    text: str
    stamp: float


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    """More of what the model thinks before it answers."""

    text: str
    stamp: float


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A whole tool call; `arguments` is JSON text as the model wrote it, perhaps not valid."""

    id: str
    name: str
    arguments: str


class Ask(msgspec.Struct, frozen=True, gc=False):
    """The model asks the user and waits. A `role: tool` message with this id carries the answer."""

    id: str
    question: str


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What the call cost, in tokens. `estimated` when the model's server did not say."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The answer is complete; always last."""

    reason: FinishReason


Delta = Text | Reasoning | ToolCall | Ask | Usage | Finish


class Capabilities(msgspec.Struct, frozen=True):
    """What a model can take part in. A call that needs more is refused (ModelRefused, 400)."""

    tools: bool
    images: bool
    json_schema: bool

    def require(self, call: ModelCall) -> None:
        """Refuse a call that the model cannot serve, rather than leave a part of it out."""
        if call.tools and not self.tools:
            raise ModelRefused(400, "this model calls no tools")
        if call.json_schema is not None and not self.json_schema:
            raise ModelRefused(400, "this model follows no JSON schema")
        if not self.images and any(image_urls(message.get("content")) for message in call.messages):
            raise ModelRefused(400, "this model sees no images")


class Model(Protocol):
    """Something that answers a conversation."""

    @property
    def capabilities(self) -> Capabilities: ...

    def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        """The answer, as it is produced. Raises the ModelErrors of gateways.errors."""


def image_urls(content: Any) -> list[str]:
    """The URLs of the image parts of a message's `content`."""
    if not isinstance(content, list | tuple):
        return []
    return [part["image_url"]["url"] for part in content if part.get("type") == "image_url"]


def text_of(content: Any) -> str:
    """The text of a message's `content`: a string, a list of parts, or None."""
    if isinstance(content, str):
        return content
    if isinstance(content, list | tuple):
        return "".join(part.get("text") or "" for part in content if part.get("type") == "text")
    return ""
