"""MCP servers that accounts add, and their tools.

A server is its owner's alone: its tools run with the key that the owner gave. It is asked for its
tools when it is added and refreshed; lists, and what a model is offered, answer from that. A
server that did not answer when it was last asked is disabled, and its tools are offered to nobody
until it does.

**Names.** A tool is called here by its server's name for it, made fit for models: characters
other than `A-Z a-z 0-9 _ -` become `_`, at most 64. A name that a built-in tool or another tool of
the owner has already becomes `<server>_<tool>`, then with a number behind it. A tool keeps its
name over refreshes.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeVar

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, Unauthenticated, Unusable
from domain.ids import uuid7
from domain.tool_schema import Unfit, check_arguments, check_schema
from domain.tools import ToolFailed
from gateways.errors import McpError, OutboundFailed, OutboundRefused
from gateways.mcp import Described, Endpoint, McpClient, Protocol, Result
from gateways.mcp_stdio import Command
from gateways.outbound import Outbound, parse
from gateways.secretbox import SecretBox, mask
from storage.database import Database, Duplicate, Orphan, Unit
from storage.events import EventLog
from storage.mcp import McpServer, McpStore, McpTool, OfferedTool

logger = logging.getLogger("quartet.mcp")

MASK = "****"
LOOKUP_S = 5.0
"""How long saving an address waits for its name to resolve."""
SERVERS_MAX = 100
"""Servers of one account."""
NAME_MAX = 64
DESCRIPTION_MAX = 4096
STRUCTURED_MAX = 1024 * 1024
"""Bytes of a result's structured content."""
LITERALS = frozenset({"add", "list", ".", ".."})
"""Names that stand for something else in the path of a server."""

T = TypeVar("T")
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")


class ServerFields(msgspec.Struct, frozen=True, kw_only=True):
    """A server as its owner describes it, with the address of its protocol alone."""

    name: str
    protocol: Protocol
    streamable_http_url: str = ""
    sse_url: str = ""
    api_key: str = ""

    def __repr__(self) -> str:
        return f"ServerFields({self.name!r})"


def masked(server: McpServer) -> str | None:
    """The key as it is shown: `****` and its last four characters; None where there is none."""
    return MASK + server.api_key_hint if server.api_key_sealed else None


class McpServers:
    """The servers of every account. `reserved` are the names that no tool of theirs gets.

    Where a server is not visible to the caller, methods raise Unusable("mcp.not_found"), as the
    contract has it.
    """

    def __init__(
        self,
        database: Database,
        store: McpStore,
        log: EventLog,
        box: SecretBox,
        outbound: Outbound,
        client: McpClient,
        *,
        reserved: Set[str],
    ) -> None:
        self._database = database
        self._store = store
        self._log = log
        self._box = box
        self._outbound = outbound
        self._client = client
        self._reserved = frozenset(reserved)

    # --- what an account keeps ------------------------------------------------------------

    async def visible(self, caller: Caller) -> Sequence[McpServer]:
        """The caller's own, oldest first; every account's for an administrator."""
        if caller.is_admin:
            return await self._store.list_all()
        return await self._store.list_own(caller.user_id)

    async def tools(self, caller: Caller) -> Sequence[OfferedTool]:
        """The tools of the caller's own servers that are not disabled. An administrator's are no
        others: nobody calls a tool with another account's key."""
        return await self._store.tools_own(caller.user_id)

    async def add(self, caller: Caller, fields: ServerFields) -> McpServer:
        """Ask a server for its tools, and keep both.

        Raises Unusable: mcp.exists, mcp.name_reserved, mcp.too_many, mcp.url_missing,
        mcp.url_of_other, mcp.address_invalid, mcp.address_refused, mcp.key_masked,
        mcp.unreachable;
        Conflict("mcp.busy") where names of tools kept being taken meanwhile.
        """
        name = fields.name.strip()
        if name in LITERALS or not name:
            raise Unusable("mcp.name_reserved", name=name)
        if fields.api_key.startswith(MASK):
            raise Unusable("mcp.key_masked")
        own, other = fields.streamable_http_url, fields.sse_url
        if fields.protocol == "sse":
            own, other = other, own
        if other.strip():
            raise Unusable("mcp.url_of_other", protocol=fields.protocol)
        url = await checked_address(self._outbound, own)
        if await self._store.find_own(caller.user_id, name) is not None:
            raise Unusable("mcp.exists", name=name)
        server_id, now = uuid7(), time.time()
        key = fields.api_key
        server = McpServer(
            id=server_id,
            owner_id=caller.user_id,
            name=name,
            protocol=fields.protocol,
            url=url,
            api_key_sealed=self._box.seal(key, _context(server_id)) if key else "",
            api_key_hint=mask(key).removeprefix(MASK) if key else "",
            disabled=False,
            created_at=now,
            refreshed_at=now,
        )
        try:
            found = await self._client.tools(self._endpoint(server))
        except McpError as error:
            raise Unusable("mcp.unreachable", reason=str(error)) from None

        def unit() -> Unit[None]:
            if (yield from self._store.count(caller.user_id)) >= SERVERS_MAX:
                raise Unusable("mcp.too_many", most=SERVERS_MAX)
            yield from self._store.insert(server)
            yield from self._put(server, found)
            told = deed("mcp.added", caller, server_id=server.id, name=name)
            yield from self._log.append(f"user:{caller.user_id}", [told])

        try:
            await self._retried(unit)
        except Duplicate:
            raise Unusable("mcp.exists", name=name) from None
        except Orphan:  # the caller's account
            raise Unauthenticated("auth.expired") from None
        return server

    async def refresh(self, caller: Caller, name: str) -> McpServer:
        """Ask a server for its tools anew. One that does not answer is disabled, and enabled
        again by the next refresh that it answers. Raises Unusable("mcp.not_found")."""
        server = await self._find(caller, name)
        try:
            await self._outbound.check("mcp", server.url)
            found: list[Described] | None = await self._client.tools(self._endpoint(server))
        except (McpError, OutboundRefused, OutboundFailed) as error:
            logger.info("MCP server %s does not answer: %s", server.id, error)
            found = None

        def unit() -> Unit[McpServer]:
            held = yield from self._store.lock(server.id)
            if held is None:
                raise Unusable("mcp.not_found")
            if found is not None:
                yield from self._put(held, found)
            changed = yield from self._store.refreshed(
                held.id, disabled=found is None, now=time.time()
            )
            told = deed("mcp.refreshed", caller, server_id=held.id, answered=found is not None)
            yield from self._log.append(f"user:{held.owner_id}", [told])
            return changed

        return await self._retried(unit)

    async def delete(self, caller: Caller, name: str) -> McpServer:
        """Erase a server, its key and its tools. Raises Unusable("mcp.not_found")."""
        server = await self._find(caller, name)

        def unit() -> Unit[None]:
            if (yield from self._store.lock(server.id)) is None:
                raise Unusable("mcp.not_found")
            yield from self._store.delete(server.owner_id, server.id)
            told = deed("mcp.deleted", caller, server_id=server.id, name=server.name)
            yield from self._log.append(f"user:{server.owner_id}", [told])

        await self._database.write(unit)
        return server

    # --- calling --------------------------------------------------------------------------

    async def offered(self, owner: str, names: Sequence[str]) -> Mapping[str, OfferedTool]:
        """Those of an account's tools that have one of these names."""
        if not names:
            return {}
        return {tool.name: tool for tool in await self._store.tools_named(owner, names)}

    async def call(self, tool: McpTool, arguments: dict[str, Any]) -> Result:
        """Call a tool once, with the key of its server. Raises ToolFailed: the arguments do not
        fit, the server does not answer, it says that the call failed, or it says too much."""
        server = await self._store.get(tool.server_id)
        if server is None or server.disabled:
            raise ToolFailed("its server is gone")
        return await call(
            self._client, self._endpoint(server), tool.remote_name, tool.parameters, arguments
        )

    # --- parts ----------------------------------------------------------------------------

    async def _find(self, caller: Caller, name: str) -> McpServer:
        """The caller's own server; for an administrator, else the one other account's of that
        name."""
        own = await self._store.find_own(caller.user_id, name)
        if own is not None:
            return own
        others = await self._store.find_named(name) if caller.is_admin else ()
        if len(others) > 1:
            raise Conflict("mcp.ambiguous", name=name)
        if not others:
            raise Unusable("mcp.not_found")
        return others[0]

    def _endpoint(self, server: McpServer) -> Endpoint:
        sealed = server.api_key_sealed
        key = self._box.open(sealed, _context(server.id)) if sealed else ""
        return Endpoint(server.protocol, server.url, key)

    async def _retried(self, unit: Callable[[], Unit[T]]) -> T:
        """Again where another server's tools took a name at the same time; whoever took it is
        done, so this ends."""
        for _ in range(SERVERS_MAX):
            try:
                return await self._database.write(unit)
            except Duplicate as error:
                if error.constraint != "uq_mcp_tools_owner_name":
                    raise
        raise Conflict("mcp.busy")

    def _put(self, server: McpServer, found: Sequence[Described]) -> Unit[None]:
        yield from put_tools(
            self._store,
            found,
            server_id=server.id,
            owner=server.owner_id,
            prefix=server.name,
            reserved=self._reserved,
        )


def put_tools(
    store: McpStore,
    found: Sequence[Described],
    *,
    server_id: str,
    owner: str | None,
    prefix: str,
    reserved: Set[str],
    barred: str = "",
) -> Unit[None]:
    """Keep those of a server's tools that can be used, each under its name. `owner` None is the
    platform; `barred` is how no name begins, "" for any."""
    names = yield from store.names(owner)
    mine = {remote: name for (of, remote), name in names.items() if of == server_id}
    taken = set(reserved) | {name for (of, _), name in names.items() if of != server_id}
    usable = usable_of(found)
    kept = {
        tool.name: mine[tool.name]
        for tool in usable
        if tool.name in mine and mine[tool.name] not in taken
        if not _is_barred(mine[tool.name], barred)
    }
    taken |= set(kept.values())
    rows = []
    for position, tool in enumerate(usable):
        name = kept.get(tool.name) or name_for(tool.name, prefix, taken, barred)
        taken.add(name)
        rows.append(
            McpTool(
                server_id=server_id,
                owner_id=owner,
                position=position,
                name=name,
                remote_name=tool.name,
                description=description_of(tool),
                parameters=tool.parameters,
            )
        )
    yield from store.put_tools(server_id, rows)


async def checked_address(outbound: Outbound, url: str) -> str:
    """An address that may be connected to; a name that does not resolve is left to the
    connection, which then fails. Raises Unusable: mcp.url_missing, mcp.address_invalid,
    mcp.address_refused."""
    url = url.strip()
    if not url:
        raise Unusable("mcp.url_missing")
    try:
        if parse(url).fragment:
            raise Unusable("mcp.address_invalid")
    except OutboundRefused:
        raise Unusable("mcp.address_invalid") from None
    try:
        async with asyncio.timeout(LOOKUP_S):
            await outbound.check("mcp", url)
    except OutboundRefused:
        raise Unusable("mcp.address_refused") from None
    except (OutboundFailed, TimeoutError):
        pass
    return url


async def call(
    client: McpClient,
    endpoint: Endpoint | Command,
    name: str,
    parameters: dict[str, Any],
    arguments: dict[str, Any],
) -> Result:
    """Call a tool once. Raises ToolFailed: the arguments do not fit, the server does not answer,
    it says that the call failed, or it says too much."""
    try:
        check_arguments(parameters, arguments)
        result = await client.call(endpoint, name, arguments)
    except Unfit as error:
        raise ToolFailed(f"the arguments do not fit: {error}") from None
    except McpError as error:
        raise ToolFailed(str(error)) from None
    if result.failed:
        raise ToolFailed(result.text[:DESCRIPTION_MAX] or "it does not say why")
    if result.structured is not None and (
        len(msgspec.json.encode(result.structured)) > STRUCTURED_MAX
    ):
        raise ToolFailed(f"its result is longer than {STRUCTURED_MAX} bytes")
    return result


def usable_of(found: Sequence[Described]) -> list[Described]:
    """Those of a server's tools that can be called from here, each name once."""
    return [tool for tool in {tool.name: tool for tool in found}.values() if _usable(tool)]


def description_of(tool: Described) -> str:
    return _text(tool.description)[:DESCRIPTION_MAX]


def _usable(tool: Described) -> bool:
    """Whether a tool can be called from here; one that cannot is left out."""
    if not tool.name or len(tool.name) > 1024 or tool.name != _text(tool.name):
        return False
    try:
        check_schema(tool.parameters)
        msgspec.json.encode(tool.parameters).decode()
    except (Unfit, ValueError, TypeError, RecursionError):
        return False
    return True


def name_for(remote: str, server: str, taken: Set[str], barred: str = "") -> str:
    """The name by which a model calls a server's tool: none of those taken, and none that begins
    with what is barred."""
    name = _fit(remote)
    if name not in taken and not _is_barred(name, barred):
        return name
    name = _fit(f"{server}_{remote}")
    if _is_barred(name, barred):
        name = _fit(f"mcp_{name}")
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name[: NAME_MAX - len(str(number)) - 1]}_{number}"
    return found


def _is_barred(name: str, barred: str) -> bool:
    return bool(barred) and name.startswith(barred)


def _fit(name: str) -> str:
    return _UNFIT.sub("_", name)[:NAME_MAX] or "tool"


def _text(text: str) -> str:
    """Text that can be stored and shown: no NUL, no lone surrogate."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _context(server_id: str) -> str:
    return f"mcp:{server_id}"
