"""Runs without HTTP: the parts of one process over a real database, and clients of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from domain.agents import Agents
from domain.brought_mcp import BroughtMcp
from domain.caller import Caller
from domain.mcp import McpServers
from domain.model_choice import ModelChoices
from domain.providers import EMBEDDED as MODELS
from domain.providers import Providers
from domain.runs.assembly import Assembled, assemble
from domain.runs.life import RunPolicy
from domain.runs.liveness import EMBEDDED, Pace
from domain.tools import built_in
from domain.turn.file_tools import NAMES as FILE_TOOLS
from domain.turn.images import loader
from domain.turn.plan import TurnRequest
from domain.turn.toolset import NAMES as TURN_TOOLS
from gateways.mcp import McpClient
from gateways.models.model import Capabilities
from gateways.models.script import ScriptModel
from gateways.outbound import Outbound
from gateways.search import WebSearch
from gateways.secretbox import SecretBox
from gateways.webpage import WebPages
from gateways.workflows import JobsPlace, Workflows
from handlers.sage.lines import View, rendered
from storage.agents import AgentFields, AgentStore
from storage.conversations import ConversationStore, Message
from storage.database import Database
from storage.events import EventLog
from storage.mcp import McpStore
from storage.providers import ProviderStore
from storage.runs import Run, RunStore
from storage.wakeups import OneProcess, Polling
from storage.workspace_files import WorkspaceFiles

ADA = Caller(user_id="ada", role="operator", via="bearer")
BOB = Caller(user_id="bob", role="operator", via="bearer")
SCRIPT = {"llm_provider_id": "embedded/script"}


class Plain(ScriptModel):
    """The scripted model as if it took neither tools nor images, as embedded/smollm2 does."""

    capabilities = Capabilities(tools=False, images=False, json_schema=True)


class World:
    """One process's parts, and what tests ask of them."""

    def __init__(
        self,
        database: Database,
        parts: Assembled,
        log: EventLog,
        agents: Agents,
        mcp: McpServers,
    ) -> None:
        self.database = database
        self.mcp = mcp
        self.runs = parts.runs
        self.conversations = parts.conversations
        self.usage = parts.usage
        self.liveness = parts.liveness
        self.log = log
        self.agents = agents
        self.store = RunStore(database)

    async def start(
        self, said: str, session_id: str = "s", caller: Caller = ADA, **fields: Any
    ) -> Run:
        """Begin a run on the scripted model."""
        options = {
            name: fields.pop(name)
            for name in ("interrupts", "stops_with_client", "user_id", "session")
            if name in fields
        }
        request = {
            "messages": [{"role": "user", "content": said}],
            "session_id": session_id,
            "llm_model_config": SCRIPT,
            **fields,
        }
        started = await self.runs.start(
            caller, msgspec.convert(request, TurnRequest), language="en", **options
        )
        return started.run

    async def lines(self, run: Run, from_line: int = 0) -> list[dict[str, Any]]:
        """The sage lines of a run until it ends."""
        lines: list[dict[str, Any]] = []
        async with self.runs.follow(run.id, from_line, idle_s=10) as follower:
            async for records in follower:
                assert records, f"nothing came for 10 s after {lines[-3:]}"
                data = rendered(records, View("s", "", "en"))
                lines += [msgspec.json.decode(line) for line in data.splitlines()]
                if records[-1].type == "run.ended":
                    return lines
        raise AssertionError("the stream ended before the run")

    async def turn(self, said: str, **fields: Any) -> list[dict[str, Any]]:
        """A whole turn's lines."""
        return await self.lines(await self.start(said, **fields))

    async def run(self, run_id: str) -> Run:
        found = await self.store.get(run_id)
        assert found is not None
        return found

    async def idle(self) -> None:
        """Wait until this process carries out no run."""
        for _ in range(500):
            if not self.runs.carried_out:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"still carried out: {self.runs.carried_out}")

    async def shown(self, run: Run, lines: int) -> None:
        """Wait until so many lines of a run are logged."""
        async with self.runs.follow(run.id, idle_s=10) as follower:
            async for records in follower:
                assert records, "nothing came for 10 s"
                if (records[-1].line or 0) >= lines:
                    return

    async def messages(self, session_id: str = "s", caller: Caller = ADA) -> list[Message]:
        return (await self.conversations.transcript(caller, session_id)).messages

    async def agent(self, caller: Caller = ADA, **fields: Any) -> str:
        name = fields.pop("name", f"agent {time.time_ns()}")
        return await self.agents.create(caller, AgentFields(name=name, **fields))


def text(lines: list[dict[str, Any]], type_: str = "assistant_text") -> str:
    """What the lines of a type say together."""
    return "".join(line["content"] for line in lines if line["type"] == type_)


def types(lines: list[dict[str, Any]]) -> list[str]:
    """The types of lines, repetitions left out."""
    found: list[str] = []
    for line in lines:
        if not found or found[-1] != line["type"]:
            found.append(line["type"])
    return found


@asynccontextmanager
async def world(
    database: Database,
    data: Path,
    database_url: str = "",
    *,
    process_id: str = EMBEDDED,
    policy: RunPolicy | None = None,
    web_search_url: str = "",
    version: str = "1",
    script: Any = None,
    secrets_key: bytes = bytes(32),
) -> AsyncIterator[World]:
    """The parts of one process, launched. The database stays open."""
    outbound = Outbound(["127.0.0.1"])
    place = JobsPlace.beside(data)
    if database_url:
        place = JobsPlace(database_url.replace("postgresql://", "postgresql+psycopg://"))
    log = EventLog(database, OneProcess() if process_id == EMBEDDED else Polling())
    box = SecretBox([secrets_key])
    provider_store = ProviderStore(database)
    providers = Providers(database, provider_store, log, box, outbound)
    choices = ModelChoices(
        providers,
        provider_store,
        box,
        outbound,
        {"embedded/script": script or ScriptModel(), "embedded/smollm2": Plain()},
    )
    agents = Agents(database, AgentStore(database), provider_store, log, embedded=frozenset(MODELS))
    tools = built_in(WebPages(outbound), WebSearch(outbound, web_search_url))
    mcp = McpServers(
        database,
        McpStore(database),
        log,
        box,
        outbound,
        McpClient(outbound),
        reserved=tools.names | TURN_TOOLS | FILE_TOOLS,
    )
    brought_mcp = BroughtMcp(
        box, outbound, McpClient(outbound), reserved=tools.names | TURN_TOOLS | FILE_TOOLS
    )
    parts = assemble(
        database,
        log,
        agents=agents,
        choices=choices,
        tools=tools,
        mcp=mcp,
        brought_mcp=brought_mcp,
        load_image=loader(outbound),
        workspaces=WorkspaceFiles(data / "workspaces"),
        workflows=Workflows(place, process_id, version),
        policy=policy or RunPolicy(),
        process_id=process_id,
        pace=Pace(beat_s=0.5, dead_s=3.0, halt_s=0.2, reconcile_s=60.0),
    )
    await parts.liveness.launch()
    try:
        yield World(database, parts, log, agents, mcp)
    finally:
        await parts.liveness.close()
        await log.close()
        await outbound.close()


__all__ = ["ADA", "BOB", "SCRIPT", "ConversationStore", "World", "text", "types", "world"]
