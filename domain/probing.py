"""What a model endpoint can do, found out by asking it. Every probe is one real call."""

import asyncio
import base64
import random
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from domain.caller import Caller
from domain.errors import Unusable
from domain.model_choice import ModelChoices
from domain.providers import MASK, ProviderFields, Providers
from gateways.errors import ModelError
from gateways.models.model import Capabilities, Model, ModelCall, Reasoning, Text, ToolCall
from gateways.models.openai_compatible import Endpoint

PROBE_S = 60.0
SILENCE_S = 30.0
REASON_MAX = 300
"""Seconds for a whole probe, seconds of silence, characters of a reason."""

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (230, 20, 20),
    "green": (20, 170, 40),
    "blue": (20, 40, 230),
    "yellow": (250, 220, 20),
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up_weather",
        "description": "Looks up the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"capital": {"type": "string"}},
    "required": ["capital"],
    "additionalProperties": False,
}


class Abilities(msgspec.Struct, frozen=True):
    """What an endpoint was seen to do; `errors` says why not, by the field's name."""

    supports_streaming: bool
    supports_tool_calls: bool
    supports_structured_output: bool
    supports_multimodal: bool
    errors: dict[str, str]


class Sight(msgspec.Struct, frozen=True):
    """What came of showing a picture: `recognized` whether its colour was named."""

    supports_multimodal: bool
    response: str = ""
    recognized: bool = False
    error: str = ""


class Capital(msgspec.Struct, forbid_unknown_fields=True):
    """An answer to SCHEMA."""

    capital: str


class Probing:
    """Probes of endpoints that an account may add. The mask of a key that the caller has stored
    for the same origin stands for that key."""

    def __init__(self, providers: Providers, choices: ModelChoices) -> None:
        self._providers = providers
        self._choices = choices

    async def verify(self, caller: Caller, fields: ProviderFields) -> None:
        """Have the endpoint say one token. Raises Unusable("provider.verify_failed")."""
        model = await self._model(caller, fields)
        try:
            await _said(model, "Say OK.", max_tokens=1)
        except (ModelError, TimeoutError) as error:
            raise _failed(error) from None

    async def abilities(self, caller: Caller, fields: ProviderFields) -> Abilities:
        """Try each ability by itself, once the endpoint answers at all. Raises
        Unusable("provider.verify_failed")."""
        model = await self._model(caller, fields)
        try:
            streamed = await _said(model, "Count from one to five in words.", max_tokens=64)
        except (ModelError, TimeoutError) as error:
            raise _failed(error) from None
        probes: dict[str, Callable[[Model], Awaitable[bool]]] = {
            "supports_tool_calls": _calls_a_tool,
            "supports_structured_output": _keeps_to_a_schema,
            "supports_multimodal": _names_a_colour,
        }
        outcomes = await asyncio.gather(*(_outcome(probe(model)) for probe in probes.values()))
        found = dict(zip(probes, outcomes, strict=True))
        return Abilities(
            supports_streaming=len(streamed) > 0,
            errors={name: reason for name, (_, reason) in found.items() if reason},
            **{name: seen for name, (seen, _) in found.items()},
        )

    async def sight(self, caller: Caller, fields: ProviderFields) -> Sight:
        """Show the endpoint a picture of one colour and ask which it is. Its failure is an
        answer, too."""
        try:
            model = await self._model(caller, fields)
            colour = random.choice(list(COLOURS))  # noqa: S311
            answer = "".join(await _said(model, _picture_of(colour), max_tokens=512)).strip()
        except Unusable as error:
            return Sight(False, error=str(error.details.get("reason", error.key)))
        except (ModelError, TimeoutError) as error:
            return Sight(False, error=reason_of(error))
        recognized = colour in answer.lower()
        return Sight(recognized, response=answer[:REASON_MAX], recognized=recognized)

    async def _model(self, caller: Caller, fields: ProviderFields) -> Model:
        key = (fields.api_key or "").strip()
        try:
            base_url = await self._providers.checked_address(fields.base_url or "")
        except Unusable:
            raise Unusable("provider.verify_failed", reason="base_url is not allowed") from None
        if key.startswith(MASK):
            stored = await self._providers.stored_key(caller, base_url, key)
            if stored is None:
                raise Unusable("provider.verify_failed", reason="the API key is masked")
            key = stored
        every = Capabilities(tools=True, images=True, json_schema=True)
        return self._choices.at(
            Endpoint(base_url=base_url, api_key=key, model=fields.model or "", capabilities=every)
        )


def reason_of(error: Exception) -> str:
    """Why a call failed, in a line that may be shown."""
    return str(error)[:REASON_MAX] or "no whole answer in time"


def _failed(error: Exception) -> Unusable:
    return Unusable("provider.verify_failed", reason=reason_of(error))


async def _outcome(probe: Awaitable[bool]) -> tuple[bool, str]:
    try:
        return await probe, ""
    except (ModelError, TimeoutError) as error:
        return False, reason_of(error)


async def _said(model: Model, content: Any, **settings: Any) -> list[str]:
    """The pieces of text that the model answered with."""
    pieces = await _deltas(model, content, **settings)
    return [piece.text for piece in pieces if isinstance(piece, Text | Reasoning)]


async def _deltas(model: Model, content: Any, **settings: Any) -> Sequence[Any]:
    call = ModelCall(
        messages=[{"role": "user", "content": content}], timeout_s=SILENCE_S, **settings
    )
    async with asyncio.timeout(PROBE_S), aclosing(model.stream(call)) as deltas:
        return [delta async for delta in deltas]


async def _calls_a_tool(model: Model) -> bool:
    deltas = await _deltas(
        model, "What is the weather in Paris? Use the tool.", tools=[TOOL], max_tokens=512
    )
    return any(isinstance(one, ToolCall) and one.name == "look_up_weather" for one in deltas)


async def _keeps_to_a_schema(model: Model) -> bool:
    question = "What is the capital of France? Answer as JSON."
    pieces = await _deltas(model, question, json_schema=SCHEMA, max_tokens=512)
    answer = "".join(piece.text for piece in pieces if isinstance(piece, Text))
    try:
        msgspec.json.decode(answer, type=Capital)
    except msgspec.DecodeError:
        return False
    return True


async def _names_a_colour(model: Model) -> bool:
    colour = random.choice(list(COLOURS))  # noqa: S311
    answer = "".join(await _said(model, _picture_of(colour), max_tokens=512))
    return colour in answer.lower()


def _picture_of(colour: str) -> list[dict[str, Any]]:
    image = base64.b64encode(png(COLOURS[colour], 64)).decode()
    return [
        {
            "type": "text",
            "text": "This picture has one colour: red, green, blue or yellow. Which? One word.",
        },
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]


def png(colour: tuple[int, int, int], side: int) -> bytes:
    """A square of one colour as PNG (W3C PNG, third edition, §5): `side` pixels, 8 bits RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * side) * side
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
