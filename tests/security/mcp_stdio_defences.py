"""The defences around servers that are started as a process, and around what the platform asks:
attacks, and what takes each defence away.

Imported, it adds its checks to those of defences.py.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import msgspec

from domain.caller import Caller
from domain.errors import Forbidden
from domain.platform.assembly import Platform, assemble
from domain.platform.mcp import Kept, PlatformMcp
from gateways import mcp_stdio
from gateways.a2a import A2aClient
from gateways.errors import A2aError, McpError
from gateways.mcp import McpClient
from gateways.mcp_stdio import Allowed, Command, Stdio
from gateways.outbound import Outbound
from storage.events import EventLog
from storage.wakeups import OneProcess
from tests.gateways.peer import Peer
from tests.security.defences import DEFENCES as DEFENCES
from tests.security.defences import without
from tests.security.place import Place, unique

CANARY = "canary-70e1a4d9"
_STARTED = mcp_stdio._started
_LIST = PlatformMcp.list


async def started(command: Command, *allowed: Allowed) -> None:
    """Have a server started, as far as that is allowed; none of these speaks MCP."""
    door = Outbound()
    with contextlib.suppress(McpError):
        await McpClient(door, stdio=Stdio(allowed), list_s=20).tools(command)
    await door.close()


@asynccontextmanager
async def marked() -> AsyncIterator[Path]:
    """Where a command leaves its mark."""
    with TemporaryDirectory() as directory:
        yield Path(directory) / "mark"


# --- 39: what is started, and with what ---------------------------------------------------------


@without(39, operators_list={"gateways.mcp_stdio:Stdio.check": lambda self, command: None})
async def a_command_that_nobody_listed_is_not_started(place: Place) -> None:
    async with marked() as mark:
        await started(Command(("/usr/bin/touch", str(mark))), Allowed(("/usr/bin/env",)))
        assert not mark.exists()


def _by_command(self: Allowed, command: Command) -> bool:
    return command.argv[:1] == self.argv[:1]


@without(39, arguments={"gateways.mcp_stdio:Allowed.allows": _by_command})
async def arguments_are_part_of_what_is_listed(place: Place) -> None:
    """An interpreter's arguments are a program (ox.security; Flowise CVE-2026-40933)."""
    listed = Allowed((sys.executable, "-m", "mcp_server"), more=True)
    async with marked() as mark:
        code = f"open({str(mark)!r}, 'w')"
        await started(Command((sys.executable, "-c", code)), listed)
        assert not mark.exists()


def _by_arguments(self: Allowed, command: Command) -> bool:
    return command.argv == self.argv


@without(39, variables={"gateways.mcp_stdio:Allowed.allows": _by_arguments})
async def a_variable_is_no_way_around(place: Place) -> None:
    listed = Allowed(("/bin/bash", "-c", "true"))
    async with marked() as mark:
        script = mark.with_name("script")
        script.write_text(f"touch {mark}\n")
        await started(Command(listed.argv, {"BASH_ENV": str(script)}), listed)
        assert not mark.exists()


async def _with_ours(command: Command, directory: str) -> Any:
    return await _STARTED(Command(command.argv, {**os.environ, **command.env}), directory)


@without(39, environment={"gateways.mcp_stdio:_started": _with_ours})
async def a_server_gets_nothing_of_our_environment(place: Place) -> None:
    async with marked() as mark:
        listed = Allowed(("/bin/sh", "-c", f"/usr/bin/env > {mark}"))
        with mock.patch.dict(os.environ, {"SECRETS_KEY": CANARY}):
            await started(Command(listed.argv), listed)
        assert "PATH=" in mark.read_text(), "it was started"
        assert CANARY not in mark.read_text()


@without(39, role={"domain.caller:Caller.is_admin": property(lambda self: True)})
async def stdio_is_saved_by_administrators_alone(place: Place) -> None:
    """Also where anybody may keep servers, which the lane's own rule says nothing of."""
    caller = Caller(place.owner.id, "operator")
    name = unique("stolen")
    config = {"transport": "stdio", "command": "/usr/bin/true", "enabled": False}
    try:
        await place.quartet.platform.mcp.merge(caller, {name: config})
    except Forbidden:
        kept = await place.quartet.platform.mcp.list()
        assert name not in [one.server.name for one in kept]
        return
    await place.quartet.platform.mcp.delete(caller, name)
    raise AssertionError("an account without the role saved a command line")


# --- 40: what asks nobody -----------------------------------------------------------------------


class Watched(NamedTuple):
    platform: Platform
    peer: Peer
    mark: Path
    caller: Caller
    servers: dict[str, dict[str, Any]]


@asynccontextmanager
async def watched(place: Place) -> AsyncIterator[Watched]:
    """A platform over the place's rows whose door and operator let everything through, and servers
    that tell when they are asked."""
    peer = await Peer().start()
    door = Outbound(["127.0.0.1/32"])
    log = EventLog(place.database, OneProcess())
    async with marked() as mark:
        touch = Allowed(("/usr/bin/touch", str(mark)))
        platform = assemble(
            place.database,
            log,
            box=place.quartet.providers._box,
            outbound=door,
            providers=place.quartet.providers,
            client=McpClient(door, stdio=Stdio([touch]), list_s=5),
            reserved=frozenset(),
            rounds_max=50,
        )
        servers: dict[str, dict[str, Any]] = {
            unique("http"): {"url": f"{peer.url}/mcp", "enabled": False},
            unique("stdio"): {
                "transport": "stdio",
                "command": touch.argv[0],
                "args": [*touch.argv[1:]],
                "enabled": False,
            },
        }
        caller = Caller(place.admin.id, "admin")
        try:
            yield Watched(platform, peer, mark, caller, servers)
        finally:
            for one in await _LIST(platform.mcp):
                if one.server.name in servers:
                    await platform.mcp.delete(caller, one.server.name)
            await door.close()
            await log.close()
            await peer.stop()


async def _asks_anyway(self: PlatformMcp, server_id: str) -> None:
    server = await self._store.get_platform(server_id)
    assert server is not None
    with contextlib.suppress(McpError):
        await self._client.tools(self._endpoint(server))


@without(40, enabled={"domain.platform.mcp:PlatformMcp.refresh": _asks_anyway})
async def keeping_servers_that_are_off_asks_nobody(place: Place) -> None:
    async with watched(place) as here:
        await here.platform.mcp.merge(here.caller, here.servers)
        assert here.peer.requests == []
        assert not here.mark.exists()


async def _probing(self: PlatformMcp) -> list[Kept]:
    kept = list(await _LIST(self))
    for one in kept:
        await _asks_anyway(self, one.server.id)
    return kept


@without(40, last_answer={"domain.platform.mcp:PlatformMcp.list": _probing})
async def lists_and_previews_ask_nobody(place: Place) -> None:
    async with watched(place) as here:
        await here.platform.mcp.merge(here.caller, here.servers)
        on = [
            msgspec.structs.replace(one.server, enabled=True)
            for one in await _LIST(here.platform.mcp)
            if one.server.name in here.servers
        ]
        store = here.platform.mcp._store
        for server in on:
            await place.database.write(lambda server=server: store.update_platform(server))
        await here.platform.mcp.list()
        await here.platform.tools.mcp(here.caller)
        await here.platform.tools.offered(here.caller.user_id)
        assert here.peer.requests == []
        assert not here.mark.exists()


# --- 27: what a card names ----------------------------------------------------------------------


def _no_refusal(self: Any, purpose: str, host: str, port: int, address: Any) -> None:
    """Every address is as good as another."""


@without(27, cards={"gateways.addresses:AllowList.refusal": _no_refusal})
async def an_agents_card_leads_nowhere_inside(place: Place) -> None:
    peer = await Peer().start()
    door = Outbound(["mcp=127.0.0.1/32"])
    interface = {"url": f"{peer.url}/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    try:
        with contextlib.suppress(A2aError):
            await A2aClient(door, call_s=10).ask({"supportedInterfaces": [interface]}, "hello")
    finally:
        await door.close()
        await peer.stop()
    assert peer.requests == []
