"""MCP servers that a request brings along (`extra_mcp_config`), for its run alone.

Nothing of them is stored but the configuration, sealed as a whole in the run's row until the run
has ended: addresses may hold keys as well as headers do. Whoever carries the run out, perhaps after
a restart, opens it and asks the servers for their tools. A server that is a command is never one.
"""

import asyncio
import re
from collections.abc import Mapping, Set
from functools import partial
from typing import Any, Literal

import msgspec

from domain.caller import Caller
from domain.errors import Unusable
from domain.mcp import MASK, call, checked_address, description_of, name_for, usable_of
from gateways.errors import McpError, OutboundFailed, OutboundRefused
from gateways.mcp import CONNECTION_HEADERS, Described, Endpoint, McpClient, Protocol, Result
from gateways.outbound import Outbound
from gateways.secretbox import SecretBox

SERVERS_MAX = 10
HEADERS_MAX = 20
CONFIG_MAX = 64 * 1024
"""Bytes of a whole configuration as JSON."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_VALUE = re.compile(r"[\t -~]{0,8192}")


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A server as a request describes it. Without a `protocol` the address that is given says
    it; `url` is the protocol's, streamable HTTP unless another is named."""

    protocol: Protocol | Literal[""] | None = None
    url: str | None = None
    streamable_http_url: str | None = None
    sse_url: str | None = None
    api_key: str | None = None
    headers: dict[str, str] | None = None
    disabled: bool | None = None

    def __repr__(self) -> str:
        return "Given()"


class Sealed(msgspec.Struct, frozen=True):
    """The servers of a run as they are kept with it. `owner_id` is the account that brought
    them."""

    owner_id: str
    servers_sealed: str


class BroughtTool(msgspec.Struct, frozen=True):
    """A tool of such a server; `name` is what a model calls it by."""

    name: str
    description: str
    parameters: dict[str, Any]
    remote_name: str
    endpoint: Endpoint


class BroughtMcp:
    """Checks, seals, opens and calls. `reserved` are the names that no tool of theirs gets."""

    def __init__(
        self, box: SecretBox, outbound: Outbound, client: McpClient, *, reserved: Set[str]
    ) -> None:
        self._box = box
        self._outbound = outbound
        self._client = client
        self._reserved = frozenset(reserved)

    async def seal(self, caller: Caller, config: Mapping[str, Any]) -> Sealed | None:
        """The servers that a request brings along, checked; None where all are disabled.

        Raises Unusable: chat.mcp_config, mcp.key_masked, mcp.url_missing, mcp.address_invalid,
        mcp.address_refused.
        """
        endpoints = {
            name: await self._endpoint(name, given) for name, given in _read(config).items()
        }
        if not endpoints:
            return None
        text = msgspec.json.encode(endpoints).decode()
        return Sealed(caller.user_id, self._box.seal(text, _context(caller.user_id)))

    async def open(
        self, sealed: Sealed, taken: Set[str]
    ) -> tuple[dict[str, BroughtTool], list[str]]:
        """The servers' tools by name, and the names of servers that do not answer. `taken` are
        names that other tools of the run have. Raises WrongKey, SealBroken."""
        text = self._box.open(sealed.servers_sealed, _context(sealed.owner_id))
        endpoints = msgspec.json.decode(text, type=dict[str, Endpoint])
        found = await asyncio.gather(*map(self._listed, endpoints.values()))
        tools: dict[str, BroughtTool] = {}
        names = set(self._reserved) | taken
        for (server, endpoint), listed in zip(endpoints.items(), found, strict=True):
            for tool in usable_of(listed or ()):
                name = name_for(tool.name, server, names)
                names.add(name)
                tools[name] = BroughtTool(
                    name, description_of(tool), tool.parameters, tool.name, endpoint
                )
        silent = [name for name, listed in zip(endpoints, found, strict=True) if listed is None]
        return tools, silent

    async def call(self, tool: BroughtTool, arguments: dict[str, Any]) -> Result:
        """Call a tool once. Raises ToolFailed."""
        return await call(self._client, tool.endpoint, tool.remote_name, tool.parameters, arguments)

    async def _listed(self, endpoint: Endpoint) -> list[Described] | None:
        try:
            await self._outbound.check("mcp", endpoint.url)
            return await self._client.tools(endpoint)
        except (McpError, OutboundRefused, OutboundFailed):
            return None

    async def _endpoint(self, name: str, given: Given) -> Endpoint:
        protocol: Protocol = given.protocol or (
            "sse" if given.sse_url and not given.streamable_http_url else "streamable_http"
        )
        own = given.sse_url if protocol == "sse" else given.streamable_http_url
        key = given.api_key or ""
        if key.startswith(MASK):
            raise Unusable("mcp.key_masked")
        headers = {header.lower(): value for header, value in (given.headers or {}).items()}
        bad = partial(_unusable, name)
        if len(headers) > HEADERS_MAX:
            raise bad(f"over {HEADERS_MAX} headers")
        if not all(map(_HEADER.fullmatch, headers)) or headers.keys() & CONNECTION_HEADERS:
            raise bad("a header that cannot be sent")
        if not all(map(_VALUE.fullmatch, [*headers.values(), key])):
            raise bad("a value that no header can hold")
        url = await checked_address(self._outbound, own or given.url or "")
        return Endpoint(protocol, url, key, headers)


def _read(config: Mapping[str, Any]) -> dict[str, Given]:
    if len(config) > SERVERS_MAX or len(msgspec.json.encode(config)) > CONFIG_MAX:
        raise Unusable(
            "chat.mcp_config", reason=f"over {SERVERS_MAX} servers or {CONFIG_MAX} bytes"
        )
    try:
        servers = msgspec.convert(dict(config), dict[str, Given])
    except msgspec.ValidationError as error:
        raise Unusable("chat.mcp_config", reason=str(error)) from None
    return {name: given for name, given in servers.items() if not given.disabled}


def _unusable(server: str, reason: str) -> Unusable:
    return Unusable("chat.mcp_config", reason=f"{server[:64]}: {reason}")


def _context(owner_id: str) -> str:
    return f"request:{owner_id}"
