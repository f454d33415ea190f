"""The outbound door as a transport of httpx, which the A2A SDK speaks with.

Apart from gateways.a2a, which is loaded by processes that talk to no agent.
"""

from collections.abc import AsyncIterator

import httpx
import httpx2

from gateways.outbound import CONNECT_S, USER_AGENT, Outbound
from gateways.outbound_transport import Transport


def http_client(
    outbound: Outbound, purpose: str, *, timeout: float, max_bytes: int
) -> httpx.AsyncClient:
    """A client for one conversation; whoever asks for it closes it. It follows no redirects, and
    its requests raise OutboundError beside httpx's own errors."""
    return httpx.AsyncClient(
        transport=_Through(Transport(outbound, purpose, max_bytes=max_bytes)),
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        timeout=httpx.Timeout(timeout, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=False,
    )


class _Through(httpx.AsyncBaseTransport):
    def __init__(self, door: Transport) -> None:
        self._door = door

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        passed = httpx2.Request(
            request.method,
            str(request.url),
            headers=request.headers.raw,
            content=await request.aread(),
            extensions=dict(request.extensions),
        )
        try:
            response = await self._door.handle_async_request(passed)
        except httpx2.HTTPError as error:
            raise _as_httpx(error, request) from error
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_Body(response, request),
        )

    async def aclose(self) -> None:
        await self._door.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpx2.Response, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        try:
            async for piece in stream:
                yield piece
        except httpx2.HTTPError as error:
            raise _as_httpx(error, self._request) from error

    async def aclose(self) -> None:
        await self._response.aclose()


def _as_httpx(error: httpx2.HTTPError, request: httpx.Request) -> httpx.RequestError:
    """httpx names its errors as httpx2 does."""
    kind = getattr(httpx, type(error).__name__, httpx.TransportError)
    made: httpx.RequestError = kind(str(error), request=request)
    return made
