"""Rows of MCP servers and of the tools that each had when it was last asked.

A server is an account's (`owner_id`), or the platform's, where `owner_id` is null.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Select, and_, bindparam, delete, false, func, insert, select, true, update

from storage.database import Database, NoSuchRow, Statement, Unit
from storage.schema import mcp_servers, mcp_tools


class McpServer(msgspec.Struct, frozen=True):
    """An account's row of `mcp_servers`, in table order. Times are UTC seconds since the epoch.

    `api_key_sealed` and `api_key_hint` (the last four characters) are "" where there is no key.
    `disabled`: it did not answer when it was last asked, and its tools are not offered.
    """

    id: str
    owner_id: str
    name: str
    protocol: Literal["streamable_http", "sse"]
    url: str
    api_key_sealed: str
    api_key_hint: str
    disabled: bool
    created_at: float
    refreshed_at: float


class PlatformServer(msgspec.Struct, frozen=True):
    """A row of `mcp_servers` that is the platform's.

    `config_sealed` holds its whole configuration, its address among it. `enabled` is the
    administrators' word; `error` says why it could not be asked for its tools, "" where it could
    or was not asked yet, and `refreshed_at` is 0 until it was. A server with an error offers no
    tools.
    """

    id: str
    name: str
    protocol: Literal["stdio", "sse", "streamable_http"]
    created_at: float
    refreshed_at: float
    enabled: bool
    description: str
    config_sealed: str
    error: str


class McpTool(msgspec.Struct, frozen=True):
    """A tool of a server. `name` is what it is called here, unique for its owner and, of the
    platform's tools, among those (`owner_id` None); `remote_name` what its server calls it.
    `parameters` is JSON Schema."""

    server_id: str
    owner_id: str | None
    position: int
    name: str
    remote_name: str
    description: str
    parameters: dict[str, Any]


class OfferedTool(McpTool, frozen=True):
    """A tool with the name of its server."""

    server_name: str


_ACCOUNTS = tuple(mcp_servers.c[name] for name in McpServer.__struct_fields__)
_PLATFORMS = tuple(mcp_servers.c[name] for name in PlatformServer.__struct_fields__)
_OF_ACCOUNTS = mcp_servers.c.owner_id.is_not(None)
_OF_PLATFORM = mcp_servers.c.owner_id.is_(None)
_OWN = and_(
    mcp_servers.c.owner_id == bindparam("owner"), mcp_servers.c.name == bindparam("server_name")
)
_OLDEST_FIRST = (mcp_servers.c.created_at, mcp_servers.c.id)
_OFFERED: Select[Any] = (
    select(mcp_tools, mcp_servers.c.name)
    .join(mcp_servers, mcp_servers.c.id == mcp_tools.c.server_id)
    .where(mcp_servers.c.disabled.is_(False), mcp_servers.c.enabled)
)
_IN_ORDER = (*_OLDEST_FIRST, mcp_tools.c.position)

FIND = Statement(
    select(*_ACCOUNTS).where(_OF_ACCOUNTS, mcp_servers.c.id == bindparam("server_id")),
    into=McpServer,
)
LOCK = Statement(
    select(*_ACCOUNTS)
    .where(_OF_ACCOUNTS, mcp_servers.c.id == bindparam("server_id"))
    .with_for_update(),
    into=McpServer,
)
FIND_OWN = Statement(select(*_ACCOUNTS).where(_OWN), into=McpServer)
FIND_NAMED = Statement(
    select(*_ACCOUNTS)
    .where(_OF_ACCOUNTS, mcp_servers.c.name == bindparam("server_name"))
    .order_by(*_OLDEST_FIRST)
    .limit(2),
    into=McpServer,
)
LIST_OWN = Statement(
    select(*_ACCOUNTS).where(mcp_servers.c.owner_id == bindparam("owner")).order_by(*_OLDEST_FIRST),
    into=McpServer,
)
LIST_ALL = Statement(
    select(*_ACCOUNTS).where(_OF_ACCOUNTS).order_by(*_OLDEST_FIRST), into=McpServer
)
COUNT = Statement(
    select(func.count())
    .select_from(mcp_servers)
    .where(mcp_servers.c.owner_id == bindparam("owner"))
)
INSERT = Statement(
    insert(mcp_servers).values(
        {name: bindparam(name) for name in McpServer.__struct_fields__}
        | {"enabled": true(), "description": "", "config_sealed": "", "error": ""}
    )
)
REFRESHED = Statement(
    update(mcp_servers)
    .where(mcp_servers.c.id == bindparam("server_id"))
    .values(disabled=bindparam("is_disabled"), refreshed_at=bindparam("now"))
    .returning(*_ACCOUNTS),
    into=McpServer,
)
DELETE = Statement(
    delete(mcp_servers).where(
        mcp_servers.c.owner_id == bindparam("owner"), mcp_servers.c.id == bindparam("server_id")
    )
)
TOOLS_OWN = Statement(
    _OFFERED.where(mcp_tools.c.owner_id == bindparam("owner")).order_by(*_IN_ORDER),
    into=OfferedTool,
)
TOOLS_NAMED = Statement(
    _OFFERED.where(
        mcp_tools.c.owner_id == bindparam("owner"),
        mcp_tools.c.name.in_(bindparam("names", expanding=True)),
    ).order_by(*_IN_ORDER),
    into=OfferedTool,
)
NAMES = Statement(
    select(mcp_tools.c.server_id, mcp_tools.c.remote_name, mcp_tools.c.name).where(
        mcp_tools.c.owner_id == bindparam("owner")
    )
)

LIST_PLATFORM = Statement(
    select(*_PLATFORMS).where(_OF_PLATFORM).order_by(*_OLDEST_FIRST), into=PlatformServer
)
FIND_PLATFORM = Statement(
    select(*_PLATFORMS).where(_OF_PLATFORM, mcp_servers.c.id == bindparam("server_id")),
    into=PlatformServer,
)
LOCK_PLATFORM = Statement(
    select(*_PLATFORMS)
    .where(_OF_PLATFORM, mcp_servers.c.id == bindparam("server_id"))
    .with_for_update(),
    into=PlatformServer,
)
LOCK_PLATFORM_NAMED = Statement(
    select(*_PLATFORMS)
    .where(_OF_PLATFORM, mcp_servers.c.name == bindparam("server_name"))
    .with_for_update(),
    into=PlatformServer,
)
COUNT_PLATFORM = Statement(select(func.count()).select_from(mcp_servers).where(_OF_PLATFORM))
INSERT_PLATFORM = Statement(
    insert(mcp_servers).values(
        {name: bindparam(name) for name in PlatformServer.__struct_fields__}
        | {"owner_id": None, "url": "", "api_key_sealed": "", "api_key_hint": ""}
        | {"disabled": false()}
    )
)
UPDATE_PLATFORM = Statement(
    update(mcp_servers)
    .where(_OF_PLATFORM, mcp_servers.c.id == bindparam("server_id"))
    .values(
        {
            name: bindparam(name)
            for name in PlatformServer.__struct_fields__
            if name not in ("id", "name", "created_at")
        }
    )
)
DELETE_PLATFORM = Statement(
    delete(mcp_servers).where(_OF_PLATFORM, mcp_servers.c.id == bindparam("server_id"))
)
TOOLS_PLATFORM = Statement(
    select(mcp_tools, mcp_servers.c.name)
    .join(mcp_servers, mcp_servers.c.id == mcp_tools.c.server_id)
    .where(_OF_PLATFORM)
    .order_by(*_IN_ORDER),
    into=OfferedTool,
)
NAMES_PLATFORM = Statement(
    select(mcp_tools.c.server_id, mcp_tools.c.remote_name, mcp_tools.c.name).where(
        mcp_tools.c.owner_id.is_(None)
    )
)

CLEAR = Statement(delete(mcp_tools).where(mcp_tools.c.server_id == bindparam("of_server")))
INSERT_TOOL = Statement(insert(mcp_tools))


class McpStore:
    """MCP servers and their tools over a Database, the oldest server first, tools in their
    server's order. Tools of an account's disabled servers are not listed. What is not called the
    platform's is an account's.

    Units raise NoSuchRow("mcp_server") where the owner has no such server,
    Duplicate("uq_mcp_servers_owner_name") and Duplicate("uq_mcp_tools_owner_name"), for the
    platform's Duplicate("uq_mcp_servers_platform_name") and
    Duplicate("uq_mcp_tools_platform_name").
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, server_id: str) -> McpServer | None:
        """Any account's server."""
        return await self._database.read_one(FIND(server_id=server_id))

    async def find_own(self, owner: str, name: str) -> McpServer | None:
        return await self._database.read_one(FIND_OWN(owner=owner, server_name=name))

    async def find_named(self, name: str) -> Sequence[McpServer]:
        """Every account's servers of that name, at most two."""
        return await self._database.scan(FIND_NAMED(server_name=name))

    async def list_own(self, owner: str) -> Sequence[McpServer]:
        return await self._database.read(LIST_OWN(owner=owner))

    async def list_all(self) -> Sequence[McpServer]:
        return await self._database.scan(LIST_ALL())

    async def tools_own(self, owner: str) -> Sequence[OfferedTool]:
        return await self._database.read(TOOLS_OWN(owner=owner))

    async def tools_named(self, owner: str, names: Sequence[str]) -> Sequence[OfferedTool]:
        """Those of the owner's tools that have one of these names."""
        return await self._database.read(TOOLS_NAMED(owner=owner, names=list(names)))

    def count(self, owner: str) -> Unit[int]:
        rows = yield COUNT(owner=owner)
        count: int = rows[0][0]
        return count

    def insert(self, server: McpServer) -> Unit[None]:
        yield INSERT(**msgspec.structs.asdict(server))

    def lock(self, server_id: str) -> Unit[McpServer | None]:
        """Any account's server, locked until the unit ends."""
        rows = yield LOCK(server_id=server_id)
        return rows[0] if rows else None

    def names(self, owner: str | None) -> Unit[Mapping[tuple[str, str], str]]:
        """What the owner's tools (None: the platform's) are called, by server and the server's own
        name, those of disabled servers too."""
        rows = yield NAMES_PLATFORM() if owner is None else NAMES(owner=owner)
        return {(server_id, remote): name for server_id, remote, name in rows}

    def refreshed(self, server_id: str, *, disabled: bool, now: float) -> Unit[McpServer]:
        """Note that the server was asked, and whether it answered."""
        rows = yield REFRESHED(server_id=server_id, is_disabled=disabled, now=now)
        if not rows:
            raise NoSuchRow("mcp_server")
        server: McpServer = rows[0]
        return server

    def put_tools(self, server_id: str, tools: Sequence[McpTool]) -> Unit[None]:
        """These are the server's tools now, in place of those before."""
        yield CLEAR(of_server=server_id)
        if tools:
            yield INSERT_TOOL.many([msgspec.structs.asdict(tool) for tool in tools])

    def delete(self, owner: str, server_id: str) -> Unit[None]:
        """Its tools go with it."""
        if not (yield DELETE(owner=owner, server_id=server_id)):
            raise NoSuchRow("mcp_server")

    # --- the platform's -------------------------------------------------------------------

    async def list_platform(self) -> Sequence[PlatformServer]:
        return await self._database.read(LIST_PLATFORM())

    async def get_platform(self, server_id: str) -> PlatformServer | None:
        return await self._database.read_one(FIND_PLATFORM(server_id=server_id))

    async def tools_platform(self) -> Sequence[OfferedTool]:
        """The tools of all the platform's servers, those of switched-off ones too."""
        return await self._database.scan(TOOLS_PLATFORM())

    def count_platform(self) -> Unit[int]:
        rows = yield COUNT_PLATFORM()
        count: int = rows[0][0]
        return count

    def lock_platform(self, server_id: str) -> Unit[PlatformServer | None]:
        """A server of the platform, locked until the unit ends."""
        rows = yield LOCK_PLATFORM(server_id=server_id)
        return rows[0] if rows else None

    def lock_platform_named(self, name: str) -> Unit[PlatformServer | None]:
        """As `lock_platform`, by its name."""
        rows = yield LOCK_PLATFORM_NAMED(server_name=name)
        return rows[0] if rows else None

    def insert_platform(self, server: PlatformServer) -> Unit[None]:
        yield INSERT_PLATFORM(**msgspec.structs.asdict(server))

    def update_platform(self, server: PlatformServer) -> Unit[None]:
        """Everything but its name and when it was made."""
        fields = msgspec.structs.asdict(server)
        server_id = fields.pop("id")
        del fields["name"], fields["created_at"]
        if not (yield UPDATE_PLATFORM(server_id=server_id, **fields)):
            raise NoSuchRow("mcp_server")

    def delete_platform(self, server_id: str) -> Unit[None]:
        """Its tools go with it."""
        if not (yield DELETE_PLATFORM(server_id=server_id)):
            raise NoSuchRow("mcp_server")
