"""The platform's parts over a real database, and what they talk to beside them."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from domain.caller import Caller
from domain.model_choice import ModelChoices
from domain.platform.assembly import Platform, assemble
from domain.providers import Providers
from gateways.mcp import McpClient
from gateways.mcp_stdio import Stdio, read_commands
from gateways.models.script import ScriptModel
from gateways.outbound import Outbound
from gateways.secretbox import SecretBox
from storage.database import Database
from storage.events import EventLog
from storage.providers import ProviderStore
from storage.wakeups import OneProcess
from tests.storage.accounts import make_accounts
from tests.tools.servers import COMMAND

ANN = Caller(user_id="ann", role="operator")
BOB = Caller(user_id="bob", role="operator")
ROOT = Caller(user_id="root", role="admin")


class Here(msgspec.Struct):
    """What a test works with."""

    database: Database
    platform: Platform
    choices: ModelChoices
    box: SecretBox


@pytest.fixture
async def here(database: Database) -> AsyncIterator[Here]:
    """Accounts ann and bob, the administrator root, and a door to this machine. The operator lists
    the tests' own MCP server, and lets its configuration set TOKEN."""
    await make_accounts(database, "ann", "bob", "root")
    log = EventLog(database, OneProcess())
    box = SecretBox([bytes(range(32))])
    outbound = Outbound(["127.0.0.1/32"])
    store = ProviderStore(database)
    providers = Providers(database, store, log, box, outbound, default="embedded/script")
    script = ScriptModel()
    platform = assemble(
        database,
        log,
        box=box,
        outbound=outbound,
        providers=providers,
        client=McpClient(outbound, stdio=Stdio(read_commands(f"TOKEN= {COMMAND} *")), call_s=60),
        reserved=frozenset({"calculator"}),
        rounds_max=50,
    )
    choices = ModelChoices(providers, store, box, outbound, {"embedded/script": script})
    yield Here(database, platform, choices, box)
    await outbound.close()
    await log.close()
