"""embedded/script as an OpenAI-compatible HTTP server, for client authors and tests.

    POST /v1/chat/completions   streaming or whole, the grammar of gateways.models.script
    GET  /v1/models             one model, "script"; any name is served
    GET  /calls                 {"calls": n, "last": body}: how often a completion was asked for

Where the message is no script, more than the embedded model is done, so that capability checks
have something to find: image parts are described ("image 2x1 red"), a forced tool is called and a
`json_schema` answered, both with the plainest value of the schema. On this wire a script's `ask`
is a call of the tool `ask` with `{"question"}`; `fail` is the HTTP status if nothing was said
before, else an error event; `drop` cuts the connection. Each chunk carries `stamp`, the moment the
model produced it.
"""

import base64
import binascii
import hmac
import itertools
import struct
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateways.errors import ModelDropped, ModelRefused
from gateways.models.model import Ask, Delta, Finish, ModelCall, Text, ToolCall, Usage, image_urls
from gateways.models.script import Call, Json, Say, ScriptModel, Step, Turn


class _Schema(msgspec.Struct):
    schema: dict[str, Any] = {}


class _Format(msgspec.Struct):
    type: str = "text"
    json_schema: _Schema | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Completion(msgspec.Struct):
    """The body of POST /v1/chat/completions, as far as it matters here."""

    messages: list[dict[str, Any]]
    model: str = "script"
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    response_format: _Format | None = None

    def call(self) -> ModelCall:
        schema = self.response_format.json_schema if self.response_format else None
        return ModelCall(
            messages=self.messages,
            tools=self.tools or (),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            json_schema=schema.schema if schema else None,
        )


class SeeingScript(ScriptModel):
    """The script model with eyes, tools and schemas. `tool_choice` as on the wire."""

    def __init__(self, tool_choice: str | Mapping[str, Any] | None) -> None:
        self._tool_choice = tool_choice

    def unscripted(self, call: ModelCall, turn: Turn) -> list[Step]:
        if (function := self._forced(call.tools)) is not None:
            arguments = plainest(function.get("parameters") or {"type": "object"})
            return [Call(function["name"], arguments)]
        if call.json_schema is not None:
            return [Json(plainest(call.json_schema))]
        seen = [describe(url) for url in image_urls(turn.content)]
        return [Say(" ".join([*seen, turn.text]))]

    def _forced(self, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        functions = [tool["function"] for tool in tools if tool.get("type") == "function"]
        if isinstance(self._tool_choice, Mapping):
            name = self._tool_choice.get("function", {}).get("name")
            return next((function for function in functions if function["name"] == name), None)
        return functions[0] if functions and self._tool_choice == "required" else None


def plainest(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """The plainest value that a JSON Schema allows, as far as `type`, `enum`, `const`,
    `properties`, `items`, `anyOf`, `oneOf` and local `$ref`s say."""
    root = schema if root is None else root
    if (reference := schema.get("$ref")) is not None:
        target: Any = root
        for part in reference.removeprefix("#/").split("/"):
            target = target.get(part, {})
        return plainest(target, root)
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return plainest(schema[key][0], root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties = schema.get("properties", {})
            return {
                name: plainest(properties.get(name, {}), root)
                for name in schema.get("required", properties)
            }
        case "array":
            return [plainest(schema.get("items", {}), root)] * schema.get("minItems", 0)
        case "string":
            return "x" * max(1, schema.get("minLength", 1))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return None


_COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "green": (0, 160, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "orange": (255, 160, 0),
    "grey": (128, 128, 128),
}


def describe(url: str) -> str:
    """`image <width>x<height> <colour of the first pixel>` of a PNG in a data: URL, else
    `image unreadable`."""
    try:
        data = base64.b64decode(url.split(",", 1)[1], validate=True)
        width, height, depth, colour_type = struct.unpack_from(">IIBB", data, 16)
        if data[:8] != b"\x89PNG\r\n\x1a\n" or depth != 8 or colour_type not in (0, 2, 3, 4, 6):
            return "image unreadable"
        chunks = dict[bytes, bytes]()
        at = 8
        while at + 12 <= len(data):
            (length,) = struct.unpack_from(">I", data, at)
            kind = data[at + 4 : at + 8]
            chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + length]
            at += 12 + length
        row = zlib.decompressobj().decompress(chunks[b"IDAT"], 8)
        pixel = row[1:4] if colour_type in (2, 6) else row[1:2] * 3
        if colour_type == 3:
            pixel = chunks[b"PLTE"][row[1] * 3 : row[1] * 3 + 3]
        red, green, blue = pixel
    except (IndexError, KeyError, ValueError, struct.error, zlib.error, binascii.Error):
        return "image unreadable"
    nearest = min(
        _COLOURS,
        key=lambda name: sum(
            (a - b) ** 2 for a, b in zip(_COLOURS[name], (red, green, blue), strict=True)
        ),
    )
    return f"image {width}x{height} {nearest}"


class ScriptServer:
    """The ASGI application. `key` is the bearer key to ask for, "" for none."""

    def __init__(self, key: str = "") -> None:
        self._key = key
        self._numbers = itertools.count(1)
        self.calls = 0
        self.last: Any = None
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/calls", self.count),
            ]
        )

    async def models(self, request: Request) -> Response:
        if not self._may(request):
            return _error(401, "Incorrect API key provided")
        model = {"id": "script", "object": "model", "created": 0, "owned_by": "quartet"}
        return JSONResponse({"object": "list", "data": [model]})

    async def count(self, request: Request) -> Response:
        return JSONResponse({"calls": self.calls, "last": self.last})

    async def complete(self, request: Request) -> Response:
        if not self._may(request):
            return _error(401, "Incorrect API key provided")
        body = await request.body()
        try:
            asked = msgspec.json.decode(body, type=Completion)
        except (msgspec.DecodeError, UnicodeError) as error:
            return _error(400, str(error))
        self.calls += 1
        self.last = msgspec.json.decode(body)
        answer = _Answer(asked, f"chatcmpl-{next(self._numbers)}")
        try:
            await answer.begin()
        except ModelRefused as error:
            return _error(error.status, error.message)
        if asked.stream:
            return StreamingResponse(answer.events(), media_type="text/event-stream")
        return await answer.whole()

    def _may(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").encode()
        return not self._key or hmac.compare_digest(given, f"Bearer {self._key}".encode())


def _error(status: int, message: str) -> Response:
    kind = "authentication_error" if status == 401 else "invalid_request_error"
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": None, "code": status}}, status
    )


class _Answer:
    """One completion, on the wire."""

    def __init__(self, asked: Completion, answer_id: str) -> None:
        self._asked = asked
        self._id = answer_id
        self._deltas: AsyncGenerator[Delta, None] = SeeingScript(asked.tool_choice).stream(
            asked.call()
        )
        self._first: Delta | ModelDropped | None = None

    async def begin(self) -> None:
        """Wait for the first delta, which decides the HTTP status. Raises ModelRefused."""
        try:
            self._first = await anext(self._deltas)
        except ModelDropped as dropped:
            self._first = dropped

    async def events(self) -> AsyncIterator[bytes]:
        """The chunks; an exception makes the server cut the connection."""
        index, usage = 0, {}
        async with aclosing(self._all()) as deltas:
            yield self._chunk({"role": "assistant", "content": ""})
            try:
                async for delta in deltas:
                    match delta:
                        case Text(text=text, stamp=stamp):
                            yield self._chunk({"content": text}, stamp=stamp)
                        case ToolCall() | Ask():
                            yield self._chunk({"tool_calls": [{"index": index, **_call(delta)}]})
                            index += 1
                        case Usage():
                            usage = _usage(delta)
                        case Finish(reason=reason):
                            yield self._chunk({}, _reason(reason))
            except ModelRefused as error:
                failure = {"message": error.message, "type": "server_error", "code": error.status}
                yield _event({"error": failure})
                return
        if self._asked.stream_options and self._asked.stream_options.include_usage:
            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    async def whole(self) -> Response:
        """The completion as one JSON object, or an answer that breaks off for a drop."""
        message: dict[str, Any] = {"role": "assistant", "content": None}
        finish, usage = "stop", {}
        try:
            async for delta in self._all():
                match delta:
                    case Text(text=text):
                        message["content"] = (message["content"] or "") + text
                    case ToolCall() | Ask():
                        message.setdefault("tool_calls", []).append(_call(delta))
                    case Usage():
                        usage = _usage(delta)
                    case Finish(reason=reason):
                        finish = _reason(reason)
        except ModelRefused as error:
            return _error(error.status, error.message)
        except ModelDropped:
            return StreamingResponse(_cut(), media_type="application/json")
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return JSONResponse({**self._head("chat.completion"), "choices": [choice], "usage": usage})

    async def _all(self) -> AsyncGenerator[Delta, None]:
        async with aclosing(self._deltas) as deltas:
            if isinstance(self._first, ModelDropped):
                raise self._first
            if self._first is not None:
                yield self._first
            async for delta in deltas:
                yield delta

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": 0, "model": self._asked.model}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None, **more: float) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice], **more})


async def _cut() -> AsyncIterator[bytes]:
    yield b'{"id":'
    raise ModelDropped("the script dropped the connection")


def _event(data: Any) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _call(delta: ToolCall | Ask) -> dict[str, Any]:
    if isinstance(delta, Ask):
        arguments = msgspec.json.encode({"question": delta.question}).decode()
        function = {"name": "ask", "arguments": arguments}
    else:
        function = {"name": delta.name, "arguments": delta.arguments}
    return {"id": delta.id, "type": "function", "function": function}


def _usage(delta: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": delta.input_tokens,
        "completion_tokens": delta.output_tokens,
        "total_tokens": delta.input_tokens + delta.output_tokens,
    }


def _reason(reason: str) -> str:
    return "tool_calls" if reason == "ask" else reason
