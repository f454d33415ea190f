"""The connections behind the outbound door: httpx2 over sockets to checked addresses only.

Apart from gateways.outbound so that a process which sends nothing loads no HTTP client.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore2
import httpx2

from gateways.errors import OutboundFailed, OutboundTooLarge
from gateways.outbound import MAX_BYTES, UNPACKED_BY_CALLER, Outbound, parse


class Transport(httpx2.AsyncBaseTransport):
    """httpx2's transport over a connection pool whose connections go through the door."""

    def __init__(self, outbound: Outbound, purpose: str, *, max_bytes: int = MAX_BYTES) -> None:
        self._outbound = outbound
        self._purpose = purpose
        self._max_bytes = max_bytes
        self._pool: httpcore2.AsyncConnectionPool | None = None

    def _connections(self) -> httpcore2.AsyncConnectionPool:
        if self._pool is None:
            self._pool = httpcore2.AsyncConnectionPool(
                ssl_context=self._outbound.tls(),
                max_connections=1000,
                max_keepalive_connections=50,
                keepalive_expiry=30.0,
                network_backend=_Connector(self._outbound, self._purpose),
            )
        return self._pool

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        parse(str(request.url))
        try:
            response = await self._connections().handle_async_request(
                httpcore2.Request(
                    method=request.method,
                    url=httpcore2.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except _CORE_ERRORS as error:
            raise _as_httpx2(error) from error
        stream = _Capped(response, self._max_bytes)
        answer = httpx2.Response(
            response.status,
            headers=response.headers,
            stream=stream,
            extensions=response.extensions,
        )
        encoding = answer.headers.get("content-encoding", "identity").lower()
        unpacked = {"", "identity", *request.extensions.get(UNPACKED_BY_CALLER, ())}
        if encoding not in unpacked:
            await stream.aclose()
            raise OutboundFailed("the answer is compressed in a way nobody asked for")
        return answer

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()


_CORE_ERRORS = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)


def _as_httpx2(error: Exception) -> httpx2.HTTPError:
    """httpx2 names its errors as httpcore2 does."""
    kind: type[httpx2.HTTPError] = getattr(httpx2, type(error).__name__, httpx2.TransportError)
    return kind(str(error))


class _Capped(httpx2.AsyncByteStream):
    """A body that ends in OutboundTooLarge beyond `max_bytes`."""

    def __init__(self, response: httpcore2.Response, max_bytes: int) -> None:
        self._response = response
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._max_bytes
        try:
            async for piece in self._response.aiter_stream():
                left -= len(piece)
                if left < 0:
                    raise OutboundTooLarge(f"the answer is larger than {self._max_bytes} bytes")
                yield piece
        except _CORE_ERRORS as error:
            raise _as_httpx2(error) from error

    async def aclose(self) -> None:
        await self._response.aclose()


class _Connector(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses only, one after the other."""

    def __init__(self, outbound: Outbound, purpose: str) -> None:
        self._outbound = outbound
        self._purpose = purpose
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._outbound.addresses(self._purpose, host, port)
        except TimeoutError:
            raise httpcore2.ConnectTimeout("the name was not resolved in time") from None
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} has no address") from error
        failure: Exception = httpcore2.ConnectError("")
        for address in addresses:
            try:
                return await self._backend.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError("unix sockets are not outside")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
