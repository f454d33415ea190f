"""What administrators set for everybody's sessions, put together."""

import time
from collections.abc import Set

import msgspec

from domain.platform.a2a import PlatformA2a
from domain.platform.config import PlatformConfig
from domain.platform.mcp import PlatformMcp
from domain.platform.tools import PlatformTools
from domain.providers import Providers
from gateways.a2a import A2aClient
from gateways.mcp import McpClient
from gateways.outbound import Outbound
from gateways.secretbox import SecretBox
from storage.a2a import A2aStore
from storage.database import Database
from storage.events import EventLog
from storage.mcp import McpStore
from storage.stored_settings import StoredSettings
from storage.tool_preferences import ToolPreferences


class Platform(msgspec.Struct, frozen=True):
    """What `assemble` makes. `launch()` begins to ask servers and agents now and then."""

    config: PlatformConfig
    mcp: PlatformMcp
    a2a: PlatformA2a
    tools: PlatformTools
    database: Database

    def launch(self) -> None:
        for refreshing in (self.mcp.refreshing, self.a2a.refreshing):
            self.database.in_background(refreshing.now_and_then)


def assemble(
    database: Database,
    log: EventLog,
    *,
    box: SecretBox,
    outbound: Outbound,
    providers: Providers,
    client: McpClient,
    reserved: Set[str],
    rounds_max: int,
) -> Platform:
    """The platform over one database. `reserved` are the names that no tool of a server gets,
    `rounds_max` is the operator's cap on what others than administrators may give to turns."""
    preferences = ToolPreferences(database)
    mcp = PlatformMcp(
        database,
        McpStore(database),
        preferences,
        log,
        box,
        outbound,
        client,
        reserved=reserved,
        clock=time.time,
    )
    a2a = PlatformA2a(
        database,
        A2aStore(database),
        preferences,
        log,
        outbound,
        A2aClient(outbound),
        clock=time.time,
    )
    return Platform(
        config=PlatformConfig(
            database,
            StoredSettings(database),
            log,
            box,
            providers,
            time.time,
            rounds_max=rounds_max,
        ),
        mcp=mcp,
        a2a=a2a,
        tools=PlatformTools(database, preferences, log, mcp, a2a),
        database=database,
    )
