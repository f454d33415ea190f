"""MCP servers of the platform: their tools are offered to everybody's sessions.

Administrators keep them, by name. A server over stdio is started only if the operator lists its
command (gateways.mcp_stdio); until then it says so and offers nothing. Its whole configuration is
sealed, for any of it may hold a secret; nothing shows it again.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Literal

import msgspec

from domain.caller import Caller
from domain.deeds import deed
from domain.errors import Conflict, Forbidden, Invalid, NotFound, Unusable
from domain.ids import uuid7
from domain.mcp import call, put_tools
from domain.platform.a2a import PREFIX as AGENTS
from domain.platform.addresses import checked
from domain.platform.refreshing import Refreshing, is_due
from domain.tools import ToolFailed
from gateways.errors import McpError, McpFailed, McpRefused
from gateways.mcp import CONNECTION_HEADERS, Described, Endpoint, McpClient, Result
from gateways.mcp_stdio import Command
from gateways.outbound import Outbound
from gateways.secretbox import SecretBox
from storage.database import Database, Duplicate, Unit
from storage.events import EventLog
from storage.mcp import McpStore, OfferedTool, PlatformServer
from storage.tool_preferences import ToolPreferences

logger = logging.getLogger("quartet.mcp")

SERVERS_MAX = 500
TEXT_MAX = 8192
MANY = 100
"""Arguments, variables or headers of one server."""
_NAME = re.compile(r"[^\x00-\x20/\\\x7f]([^\x00-\x1f/\\\x7f]*[^\x00-\x20/\\\x7f])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")

Reason = Literal["not allowed by the operator", "its answer is an error", "no answer"]


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A server as administrators write it (document 002, "MCPConfig"); null is "not given"."""

    transport: Literal["stdio", "sse", "streamable_http"] | None = None
    enabled: bool | None = None
    description: str | None = None
    env: dict[str, str] | None = None
    command: str | None = None
    args: list[str] | None = None
    url: str | None = None
    headers: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"ServerConfig({self.transport!r})"


class Kept(msgspec.Struct, frozen=True):
    """A server, and the names that it has for its tools."""

    server: PlatformServer
    tools: list[str]


class PlatformMcp:
    """The platform's servers. Methods that name one raise NotFound("mcp.not_found"). Those that
    change one over stdio, or make it one, raise Forbidden("mcp.stdio_forbidden") unless the caller
    is an administrator."""

    def __init__(
        self,
        database: Database,
        store: McpStore,
        preferences: ToolPreferences,
        log: EventLog,
        box: SecretBox,
        outbound: Outbound,
        client: McpClient,
        *,
        reserved: Set[str],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._store = store
        self._preferences = preferences
        self._log = log
        self._box = box
        self._outbound = outbound
        self._client = client
        self._reserved = frozenset(reserved)
        self._clock = clock
        self.refreshing = Refreshing(database, self.refresh, self._due)

    async def list(self) -> Sequence[Kept]:
        """Every server with what it had when it was last asked, the oldest first."""
        servers = await self._store.list_platform()
        tools: dict[str, list[str]] = {}
        for tool in await self._store.tools_platform():
            tools.setdefault(tool.server_id, []).append(tool.remote_name)
        return [
            Kept(server, [] if server.error else tools.get(server.id, [])) for server in servers
        ]

    async def tools(self) -> Sequence[OfferedTool]:
        """The tools of those servers that are enabled and answered when they were last asked."""
        servers = {one.id: one for one in await self._store.list_platform()}
        return [
            tool
            for tool in await self._store.tools_platform()
            if (server := servers.get(tool.server_id)) is not None
            if server.enabled and not server.error
        ]

    def lock(self, name: str) -> Unit[PlatformServer]:
        """A server, locked until the unit ends."""
        held = yield from self._store.lock_platform_named(name)
        if held is None:
            raise NotFound("mcp.not_found")
        return held

    # --- what administrators keep ---------------------------------------------------------

    async def merge(self, caller: Caller, servers: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep these, in place of those of the same names; others stay. All or none.

        Saving starts no process and connects to nothing; those that are enabled are asked
        afterwards. Raises Invalid, Unusable: mcp.too_many, platform.address_invalid,
        platform.address_refused; Conflict("mcp.busy").
        """
        read = {name: _read(name, config) for name, config in servers.items()}
        for name, config in read.items():
            _check_stdio(caller, name, config.transport)
        urls = [one.url or "" for one in read.values() if one.transport != "stdio"]
        await asyncio.gather(*(checked(self._outbound, "mcp", url) for url in urls))

        def unit() -> Unit[list[str]]:
            ids = []
            for name in sorted(read):
                held = yield from self._store.lock_platform_named(name)
                if held is not None:
                    _check_stdio(caller, name, held.protocol)
                ids.append((yield from self._keep(name, held, read[name], servers[name])))
            if (yield from self._store.count_platform()) > SERVERS_MAX:
                raise Unusable("mcp.too_many", most=SERVERS_MAX)
            told = deed("mcp.platform_saved", caller, names=sorted(read))
            yield from self._log.append(f"user:{caller.user_id}", [told])
            return ids

        try:
            ids = await self._database.write(unit)
        except Duplicate:
            raise Conflict("mcp.busy") from None
        await self.refreshing.now(ids)

    async def set_enabled(self, caller: Caller, name: str, *, enabled: bool) -> None:
        def unit() -> Unit[str]:
            held = yield from self._held(caller, name)
            yield from self._store.update_platform(msgspec.structs.replace(held, enabled=enabled))
            told = deed("mcp.platform_enabled", caller, name=name, enabled=enabled)
            yield from self._log.append(f"user:{caller.user_id}", [told])
            return held.id

        server_id = await self._database.write(unit)
        if enabled:
            await self.refreshing.now([server_id])

    async def delete(self, caller: Caller, name: str) -> None:
        """Erase a server, its secrets, its tools and what accounts wanted of it."""

        def unit() -> Unit[None]:
            held = yield from self._held(caller, name)
            yield from self._store.delete_platform(held.id)
            yield from self._preferences.forget("mcp", held.id)
            told = deed("mcp.platform_deleted", caller, name=name)
            yield from self._log.append(f"user:{caller.user_id}", [told])

        await self._database.write(unit)

    # --- what servers say -----------------------------------------------------------------

    async def refresh(self, server_id: str) -> None:
        """Ask a server for its tools, if it is enabled, and keep them, or why there are none."""
        server = await self._store.get_platform(server_id)
        if server is None or not server.enabled:
            return
        found: list[Described] = []
        error = ""
        try:
            found = await self._client.tools(self._endpoint(server))
        except McpError as failed:
            error = _reason(failed)
            said = error if isinstance(failed, McpFailed) else failed
            logger.info("MCP server %s does not answer: %s", server.id, said)

        def unit() -> Unit[None]:
            held = yield from self._store.lock_platform(server_id)
            if held is None or held.config_sealed != server.config_sealed:
                return
            if not error:
                yield from put_tools(
                    self._store,
                    found,
                    server_id=server_id,
                    owner=None,
                    prefix=held.name,
                    reserved=self._reserved,
                    barred=AGENTS,
                )
            yield from self._store.update_platform(
                msgspec.structs.replace(held, error=error, refreshed_at=self._clock())
            )

        for _ in range(SERVERS_MAX):
            try:
                await self._database.write(unit)
                break
            except Duplicate as taken:  # another server's tool has taken a name meanwhile
                if taken.constraint != "uq_mcp_tools_platform_name":
                    raise

    async def call(self, tool: OfferedTool, arguments: dict[str, Any]) -> Result:
        """Call a tool once. Raises ToolFailed: the arguments do not fit, the server does not
        answer, it says that the call failed, or it says too much."""
        server = await self._store.get_platform(tool.server_id)
        if server is None or not server.enabled:
            raise ToolFailed("its server is gone")
        return await call(
            self._client, self._endpoint(server), tool.remote_name, tool.parameters, arguments
        )

    # --- parts ----------------------------------------------------------------------------

    def _held(self, caller: Caller, name: str) -> Unit[PlatformServer]:
        """A server that the caller may change, locked."""
        held = yield from self.lock(name)
        _check_stdio(caller, name, held.protocol)
        return held

    def _keep(
        self,
        name: str,
        held: PlatformServer | None,
        config: ServerConfig,
        whole: Mapping[str, Any],
    ) -> Unit[str]:
        server_id = held.id if held else uuid7()
        made = PlatformServer(
            id=server_id,
            name=name,
            protocol=config.transport or "streamable_http",
            created_at=held.created_at if held else self._clock(),
            refreshed_at=0.0,
            enabled=config.enabled is not False,
            description=config.description or "",
            config_sealed=self._box.seal(msgspec.json.encode(whole).decode(), _context(server_id)),
            error="",
        )
        if held is None:
            yield from self._store.insert_platform(made)
        else:
            yield from self._store.update_platform(made)
            yield from self._store.put_tools(server_id, [])
        return server_id

    def _endpoint(self, server: PlatformServer) -> Endpoint | Command:
        text = self._box.open(server.config_sealed, _context(server.id))
        config = msgspec.json.decode(text, type=ServerConfig)
        if server.protocol == "stdio":
            return Command((config.command or "", *(config.args or ())), config.env or {})
        url = (config.url or "").strip()
        return Endpoint(server.protocol, url, headers=config.headers or {})

    async def _due(self) -> Sequence[str]:
        now = self._clock()
        return [
            server.id
            for server in await self._store.list_platform()
            if server.enabled and is_due(server.refreshed_at, server.error, now)
        ]


def _reason(failed: McpError) -> Reason:
    """Why a server has no tools, for everybody who may list servers: neither in its own words nor
    with a word of where it is."""
    if isinstance(failed, McpRefused):
        return "not allowed by the operator"
    if isinstance(failed, McpFailed):
        return "its answer is an error"
    return "no answer"


def _check_stdio(caller: Caller, name: str, transport: str | None) -> None:
    """Whoever says which commands run, and when, is an administrator, also where anybody may keep
    servers. Raises Forbidden."""
    if transport == "stdio" and not caller.is_admin:
        raise Forbidden("mcp.stdio_forbidden", name=name)


def _read(name: str, config: Mapping[str, Any]) -> ServerConfig:
    """A server's configuration, judged. Raises Invalid."""

    def invalid(*loc: str, rule: str, said: str) -> Invalid:
        return Invalid(["mcpServers", name, *loc], rule=rule, said=said)

    if not _NAME.fullmatch(name) or len(name) > 128 or name in (".", ".."):
        raise invalid(rule="pattern", said="the name cannot stand in a path")
    try:
        read = msgspec.convert(config, ServerConfig)
    except msgspec.ValidationError as error:
        raise invalid(rule="type", said=str(error)) from None
    if read.transport == "stdio":
        if not (read.command or "").strip():
            raise invalid("command", rule="required", said="stdio needs a command")
    elif not (read.url or "").strip():
        raise invalid("url", rule="required", said="sse and streamable_http need a url")
    for field in ("args", "env", "headers"):
        if len(getattr(read, field) or ()) > MANY:
            raise invalid(field, rule="maxItems", said=f"there are more than {MANY}")
    words = [read.command or "", read.url or "", read.description or "", *(read.args or ())]
    words += [*(read.env or {}).values(), *(read.headers or {}).values()]
    if any(len(word) > TEXT_MAX for word in words):
        raise invalid(rule="maxLength", said=f"a text is longer than {TEXT_MAX} characters")
    for variable in read.env or ():
        if not _VARIABLE.fullmatch(variable):
            raise invalid("env", rule="pattern", said="a variable's name cannot be used")
    for header, value in (read.headers or {}).items():
        if not _HEADER.fullmatch(header) or header.lower() in CONNECTION_HEADERS:
            raise invalid("headers", rule="pattern", said="a header's name cannot be used")
        if not _HEADER_VALUE.fullmatch(value):
            raise invalid("headers", rule="pattern", said="a header's value cannot be used")
    return read


def _context(server_id: str) -> str:
    return f"mcp:{server_id}"
