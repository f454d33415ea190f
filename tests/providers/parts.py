"""The domain's parts over a real database, with a real model endpoint beside them."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import uvicorn

from domain.agents import Agents
from domain.caller import Caller
from domain.conversations import Conversations, Progress
from domain.drafting import Drafting
from domain.model_choice import ModelChoices
from domain.probing import Probing
from domain.providers import Providers
from gateways.models.script import ScriptModel
from gateways.models.script_server import ScriptServer
from gateways.models.smollm2 import SmolLM2
from gateways.outbound import Outbound
from gateways.secretbox import SecretBox
from storage.agents import AgentStore
from storage.conversations import ConversationStore
from storage.database import Database
from storage.events import EventLog
from storage.providers import ProviderStore
from storage.wakeups import OneProcess
from tests.storage.accounts import make_accounts

ANN = Caller(user_id="ann", role="operator")
BOB = Caller(user_id="bob", role="operator")
CAS = Caller(user_id="cas", role="operator")
ROOT = Caller(user_id="root", role="admin")


class Parts(msgspec.Struct):
    """What a test works with. `stopped` are the conversations whose runs were to be ended."""

    database: Database
    log: EventLog
    providers: Providers
    choices: ModelChoices
    probing: Probing
    agents: Agents
    drafting: Drafting
    conversations: Conversations
    store: ConversationStore
    stopped: list[str]
    progress: dict[str, Progress]


@asynccontextmanager
async def parts(
    database: Database, *, default: str = "embedded/script", allow: tuple[str, ...] = ()
) -> AsyncIterator[Parts]:
    """Accounts ann, bob and cas, the administrator root, and everything over them."""
    await make_accounts(database, "ann", "bob", "cas", "root")
    log = EventLog(database, OneProcess())
    outbound, box = Outbound(allow), SecretBox([os.urandom(32)])
    provider_store, smollm2 = ProviderStore(database), SmolLM2()
    providers = Providers(database, provider_store, log, box, outbound, default=default)
    embedded = {"embedded/script": ScriptModel(), "embedded/smollm2": smollm2}
    choices = ModelChoices(providers, provider_store, box, outbound, embedded)
    store = ConversationStore(database)
    stopped: list[str] = []
    progress: dict[str, Progress] = {}

    async def progress_of(run_id: str) -> Progress:
        return progress.get(run_id, Progress())

    async def stop_runs(conversation_id: str) -> None:
        stopped.append(conversation_id)

    yield Parts(
        database=database,
        log=log,
        providers=providers,
        choices=choices,
        probing=Probing(providers, choices),
        agents=Agents(
            database, AgentStore(database), provider_store, log, embedded=frozenset(embedded)
        ),
        drafting=Drafting(choices, built_in=("web_search", "calculator")),
        conversations=Conversations(
            database, store, log, progress_of=progress_of, stop_runs=stop_runs
        ),
        store=store,
        stopped=stopped,
        progress=progress,
    )
    await smollm2.close()
    await outbound.close()
    await log.close()


@asynccontextmanager
async def endpoint(key: str) -> AsyncIterator[tuple[str, ScriptServer]]:
    """A real OpenAI-compatible HTTP server that asks for `key`, and its base URL."""
    script = ScriptServer(key)
    config = uvicorn.Config(script.app, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    port = listening.getsockname()[1]
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    yield f"http://127.0.0.1:{port}/v1", script
    server.should_exit = True
    await serving


async def told(log: EventLog, stream: str) -> list[str]:
    """The types of a stream's events."""
    return [record.type for record in await log.read(stream)]
