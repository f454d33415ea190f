"""MCP servers over streamable HTTP and SSE, through the outbound door (purpose `mcp`), and over
stdio, as far as the operator lists their commands (gateways/mcp_stdio.py).

Every use opens a session and ends it: nothing stays connected between two of them. The SDK is
loaded on first use. It follows redirects within the endpoint's own origin alone, and every
connection goes to a checked address (gateways.outbound). Servers may say anything: what comes
back is bounded in bytes, number and time, and an error names its kind, never the bytes of an
answer that is none.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from gateways.errors import McpError, McpFailed, McpUnreachable, OutboundError
from gateways.mcp_stdio import Command, Stdio
from gateways.outbound import Outbound

if TYPE_CHECKING:
    import httpx2
    from mcp import Client
    from mcp_types import CallToolResult

PURPOSE = "mcp"
LIST_S = 20.0
"""How long connecting and listing the tools may take."""
CALL_S = 60.0
"""How long a call may take, connecting included."""
CLOSE_S = 2.0
"""How long ending a session may take once its result is there."""
MAX_BYTES = 4 * 1024 * 1024
"""The longest answer, in bytes."""
MAX_TOOLS = 200
MAX_PAGES = 20
MAX_MESSAGE = 500
PARSE_ERROR = -32700

CONNECTION_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
        *("content-type", "expect", "host", "keep-alive", "last-event-id", "mcp-protocol-version"),
        *("mcp-session-id", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers that belong to the connection or the protocol (RFC 9110 §7, §8; MCP, "Transports"):
nobody's to send besides."""

Protocol = Literal["streamable_http", "sse"]
T = TypeVar("T")


class Endpoint(msgspec.Struct, frozen=True):
    """Where a server is. `key` is sent as bearer; "" where it asks for none. `headers` are sent
    besides, names in lower case."""

    protocol: Protocol
    url: str
    key: str = ""
    headers: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"Endpoint({self.protocol!r})"


class Described(msgspec.Struct, frozen=True):
    """A tool as its server describes it. `parameters` is JSON Schema, not looked at yet."""

    name: str
    description: str
    parameters: dict[str, Any]


class Result(msgspec.Struct, frozen=True):
    """What a call gave: its text, and its structured content where the server sends one. With
    `failed`, the server says that the call did not work; the text says why."""

    text: str
    structured: dict[str, Any] | None = None
    failed: bool = False


class McpClient:
    """Talks to MCP servers. Without `stdio` none is started."""

    def __init__(
        self,
        outbound: Outbound,
        *,
        stdio: Stdio | None = None,
        list_s: float = LIST_S,
        call_s: float = CALL_S,
    ) -> None:
        self._outbound = outbound
        self._stdio = stdio or Stdio()
        self._list_s = list_s
        self._call_s = call_s
        self._loading = asyncio.Lock()
        self._loaded = False

    async def tools(self, endpoint: Endpoint | Command) -> list[Described]:
        """The tools of a server in its order, at most 200. Raises McpRefused, McpUnreachable."""

        async def ask(client: "Client") -> list[Described]:
            found: list[Described] = []
            cursor: str | None = None
            for _ in range(MAX_PAGES):
                page = await client.list_tools(cursor=cursor)
                found += [
                    Described(tool.name, tool.description or tool.title or "", tool.input_schema)
                    for tool in page.tools
                ]
                cursor = page.next_cursor
                if not cursor or len(found) >= MAX_TOOLS:
                    break
            return found[:MAX_TOOLS]

        return await self._use(endpoint, self._list_s, ask)

    async def call(
        self, endpoint: Endpoint | Command, name: str, arguments: Mapping[str, Any]
    ) -> Result:
        """Call a tool, once. Raises McpRefused, McpUnreachable, McpFailed."""

        async def ask(client: "Client") -> Result:
            # What a server sends is data: holding it against the server's own output schema would
            # run its patterns on the SDK's backtracking engine.
            client.session.validate_tool_result = _unchecked  # type: ignore[method-assign]
            return _result(await client.call_tool(name, dict(arguments)))

        return await self._use(endpoint, self._call_s, ask)

    async def _use(
        self,
        endpoint: Endpoint | Command,
        seconds: float,
        ask: Callable[["Client"], Awaitable[T]],
    ) -> T:
        """Open a session, ask, and end it. An answer that is there counts, however the session
        ends."""
        await self._load()
        answers: list[T] = []
        try:
            async with asyncio.timeout(seconds) as limit, self._session(endpoint) as client:
                answers.append(await ask(client))
                limit.reschedule(asyncio.get_running_loop().time() + CLOSE_S)
        except TimeoutError:
            if not answers:
                raise McpUnreachable(f"no answer within {seconds:g} s") from None
        except Exception as error:
            if not answers:
                raise _told(error) from None
        return answers[0]

    async def _load(self) -> None:
        """Import the SDK, in a thread: on the loop it would hold up every stream."""
        async with self._loading:
            if not self._loaded:
                await asyncio.to_thread(_import_sdk)
                self._loaded = True

    @asynccontextmanager
    async def _session(self, endpoint: Endpoint | Command) -> AsyncIterator["Client"]:
        from mcp import Client
        from mcp.client.sse import sse_client
        from mcp.client.streamable_http import streamable_http_client

        # It logs addresses, which may hold keys, and what servers send.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        logging.getLogger("client").setLevel(logging.CRITICAL)
        if isinstance(endpoint, Command):
            async with Client(self._stdio.session(endpoint)) as client:
                yield client
            return
        headers = dict(endpoint.headers)
        if endpoint.key:
            headers["authorization"] = f"Bearer {endpoint.key}"
        http = self._outbound.session(
            PURPOSE, headers=headers, timeout=self._call_s, max_bytes=MAX_BYTES
        )
        if endpoint.protocol == "sse":
            async with Client(
                sse_client(endpoint.url, httpx_client_factory=_given(http))
            ) as client:
                yield client
        else:
            async with (
                http,
                Client(streamable_http_client(endpoint.url, http_client=http)) as client,
            ):
                yield client


def _import_sdk() -> None:
    import mcp.client.sse
    import mcp.client.streamable_http  # noqa: F401


def _given(http: "httpx2.AsyncClient") -> Callable[..., "httpx2.AsyncClient"]:
    """The SSE transport makes its client itself, and closes it; here it is given ours."""
    return lambda **_: http


async def _unchecked(name: str, result: "CallToolResult") -> None:
    """Takes a result as it is."""


def _result(answer: "CallToolResult") -> Result:
    parts = []
    for block in answer.content:
        text = getattr(block, "text", None)
        if isinstance(text, str):
            parts.append(text)
        elif (resource := getattr(block, "resource", None)) is not None:
            parts.append(getattr(resource, "text", None) or f"[{resource.uri}]")
        else:
            kind = getattr(block, "mime_type", None) or getattr(block, "uri", "")
            parts.append(f"[{block.type}: {kind}]")
    structured = answer.structured_content
    if structured is not None and not isinstance(structured, dict):
        structured = {"result": structured}
    return Result("\n".join(parts), structured, bool(answer.is_error))


def _told(error: Exception) -> McpError:
    """The error behind what the SDK's task groups raise, in words that hold no answer's bytes."""
    from mcp import MCPError

    for each in _leaves(error):
        if isinstance(each, McpError):
            return each
        if isinstance(each, OutboundError):
            return McpUnreachable(str(each))
        if isinstance(each, MCPError):
            message = each.error.message[:MAX_MESSAGE]
            if each.error.code == PARSE_ERROR:
                message = "the server's answer is not the protocol's"
            return McpFailed(message)
    first = next(_leaves(error))
    return McpUnreachable(type(first).__name__)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
        if isinstance(error.__cause__, OutboundError):
            yield error.__cause__
