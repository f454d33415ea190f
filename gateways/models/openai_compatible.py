"""Any OpenAI-compatible endpoint, through the openai client.

The client brings URLs, authentication and error bodies; the connection is the outbound door's, or
a socket of our own for the embedded model. Nothing is retried: a model call is made at most once.
"""

import asyncio
import importlib
import sys
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import msgspec

from gateways.errors import (
    ModelDropped,
    ModelError,
    ModelMalformed,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
    OutboundError,
    OutboundRefused,
)
from gateways.models.cancelling import until_cancelled
from gateways.models.model import Capabilities, Delta, ModelCall
from gateways.models.openai_wire import Assembly, decode, events

if TYPE_CHECKING:
    import httpx2
    import openai


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model is served and how it is called. Limits stand in for those a call leaves out.

    `base_url` ends where `/chat/completions` begins (usually in `/v1`).
    """

    base_url: str
    api_key: str
    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    capabilities: Capabilities = Capabilities(tools=True, images=True, json_schema=True)
    extra: tuple[tuple[str, float], ...] = ()
    """Sampling fields beyond OpenAI's that this server knows."""

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"


class OpenAIModel:
    """A model behind an OpenAI-compatible endpoint. `client` is kept open."""

    def __init__(self, endpoint: Endpoint, client: "httpx2.AsyncClient") -> None:
        self._endpoint = endpoint
        self._http = client
        self._openai: openai.AsyncOpenAI | None = None

    @property
    def capabilities(self) -> Capabilities:
        return self._endpoint.capabilities

    async def stream(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        """The answer as the endpoint streams it; an endpoint that answers whole is read whole.

        Raises every ModelError.
        """
        self.capabilities.require(call)
        deltas = until_cancelled(self._deltas(call), call.cancel)
        try:
            async for delta in deltas:
                yield delta
        finally:
            await deltas.aclose()

    async def _deltas(self, call: ModelCall) -> AsyncGenerator[Delta, None]:
        if "openai" not in sys.modules:
            # Half a second of imports on the loop would hold up every other stream.
            await asyncio.to_thread(importlib.import_module, "openai.resources.chat.completions")
        import httpx2
        import openai

        if not (self._endpoint.api_key.isascii() and self._endpoint.api_key.isprintable()):
            raise ModelRefused(401, "the API key holds characters that no HTTP header carries")
        timeout = httpx2.Timeout(call.timeout_s, connect=min(10.0, call.timeout_s))
        assembly = Assembly(call)
        try:
            async with self._client().chat.completions.with_streaming_response.create(
                **self._request(call), timeout=timeout
            ) as response:
                if "json" in response.headers.get("content-type", ""):
                    for delta in assembly.add(decode(await response.read())):
                        yield delta
                else:
                    async for data in events(response.iter_bytes()):
                        if data == b"[DONE]":
                            break
                        for delta in assembly.add(decode(data)):
                            yield delta
            for delta in assembly.end():
                yield delta
        except ModelRefused as error:
            raise ModelRefused(error.status, self._redact(error.message)) from None
        except openai.APIStatusError as error:
            raise ModelRefused(error.status_code, self._redact(_text(error))) from None
        except openai.APIConnectionError as error:
            raise _broken(error.__cause__ or error) from None
        except (httpx2.HTTPError, OutboundError) as error:
            raise _broken(error) from None

    def _client(self) -> "openai.AsyncOpenAI":
        if self._openai is None:
            import openai

            self._openai = openai.AsyncOpenAI(
                base_url=self._endpoint.base_url,
                api_key=self._endpoint.api_key or "none",
                http_client=self._http,
                max_retries=0,
            )
        return self._openai

    def _request(self, call: ModelCall) -> dict[str, Any]:
        endpoint = self._endpoint
        request: dict[str, Any] = {
            "model": endpoint.model,
            "messages": list(call.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name in ("max_tokens", "temperature", "top_p", "presence_penalty"):
            value = getattr(call, name)
            value = getattr(endpoint, name) if value is None else value
            if value is not None:
                request[name] = value
        if call.tools:
            request["tools"] = list(call.tools)
        if call.json_schema is not None:
            request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(call.json_schema)},
            }
        if endpoint.extra:
            request["extra_body"] = dict(endpoint.extra)
        return request

    def _redact(self, text: str) -> str:
        """Servers like to quote the key they refuse."""
        key = self._endpoint.api_key
        return (text.replace(key, "****") if key else text)[:500]


def _text(error: "openai.APIStatusError") -> str:
    """The server's own words where they stand as OpenAI's do. Any other body stays unsaid: the
    address may be one that was never meant to be read (security 26)."""
    body: Any = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(message, str):
            return message
    return "the endpoint gave no reason"


def _broken(error: BaseException) -> ModelError:
    """What an error of the connection means for the call."""
    import httpx2

    match error:
        case OutboundRefused(reason=reason):
            return ModelUnreachable(f"the model's address is not allowed: {reason}")
        case OutboundError():
            return ModelMalformed(f"the model's answer cannot be read: {error}")
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout():
            return ModelUnreachable("the model's server cannot be reached")
        case httpx2.TimeoutException():
            return ModelTimeout("the model's server did not answer in time")
        case _:
            return ModelDropped("the connection to the model's server broke")
