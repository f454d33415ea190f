"""Processes that are killed: every run ends, and no call is made twice."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.runs.liveness import EMBEDDED
from gateways.models.script_server import ScriptServer
from storage.conversations import ConversationStore
from storage.database import Database
from storage.events import EventLog
from storage.processes import ProcessStore
from storage.runs import Run, RunStore
from storage.wakeups import Polling
from tests.providers.parts import endpoint
from tests.runs.conftest import Here
from tests.runs.test_turns import script
from tests.runs.world import text, types
from tests.storage.accounts import make_accounts

ROOT = Path(__file__).parents[2]
STREAMING = script({"tokens": 400, "every_ms": 10})
BETWEEN = script({"call": "calculator", "args": {"expression": "2 + 2"}}, {"say": "so be it"})


class Host:
    """Runner processes over one database, and a look at what they do."""

    def __init__(self, database: Database, data: Path, url: str, model: dict[str, Any]) -> None:
        self._data = data
        self._url = url
        self._model = model
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self.log = EventLog(database, Polling())
        self.runs = RunStore(database)
        self.database = database

    async def begin(
        self,
        process_id: str = EMBEDDED,
        *,
        root: Path = ROOT,
        stand_after: int = 0,
        stand_below: int = 0,
    ) -> None:
        """Start a process and wait until it takes orders."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.runs.runner", str(self._data), process_id),
            *([self._url] if self._url else []),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=root,
            env={
                **os.environ,
                "PYTHONPATH": str(root),
                "STAND_AFTER": str(stand_after),
                "STAND_BELOW": str(stand_below),
            },
        )
        self._processes[process_id] = process
        assert await self.said(process_id) == "ready"

    async def said(self, process_id: str = EMBEDDED) -> str:
        """The next line that a process prints."""
        stdout = self._processes[process_id].stdout
        assert stdout is not None
        async with asyncio.timeout(40):
            return (await stdout.readline()).decode().strip()

    async def start(
        self, said: str, session: str, process_id: str = EMBEDDED, **fields: Any
    ) -> str:
        """Begin a run in a process."""
        stdin = self._processes[process_id].stdin
        assert stdin is not None
        order = {"say": said, "session": session, "llm_model_config": self._model, **fields}
        stdin.write(msgspec.json.encode(order) + b"\n")
        return await self.said(process_id)

    async def kill(self, process_id: str = EMBEDDED) -> None:
        process = self._processes.pop(process_id)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def shown(self, run_id: str, lines: int) -> None:
        """Return once so many lines of a run are logged."""
        async with asyncio.timeout(30), self.log.follow(f"run:{run_id}", idle_s=30) as records:
            async for batch in records:
                if (batch[-1].line or 0) >= lines:
                    return

    async def ended(self, run_id: str) -> Run:
        """The run once it has ended."""
        for _ in range(3000):
            run = await self.runs.get(run_id)
            assert run is not None
            if not run.live:
                return run
            await asyncio.sleep(0.02)
        raise AssertionError(f"the run goes on for ever: {run}")

    async def close(self) -> None:
        for process_id in list(self._processes):
            await self.kill(process_id)
        await self.log.close()


@pytest.fixture
async def peer() -> AsyncIterator[tuple[dict[str, Any], ScriptServer]]:
    """An endpoint that counts calls, and how llm_model_config names it."""
    async with endpoint("sk-test") as (url, counted):
        yield {"base_url": url, "api_key": "sk-test", "model": "script"}, counted


@pytest.fixture
async def calls(peer: tuple[dict[str, Any], ScriptServer]) -> ScriptServer:
    return peer[1]


@pytest.fixture
async def host(
    database: Database, data: Path, database_url: str, peer: tuple[dict[str, Any], ScriptServer]
) -> AsyncIterator[Host]:
    await make_accounts(database, "ada", "bob")
    made = Host(database, data, database_url, peer[0])
    yield made
    await made.close()


async def test_a_call_under_way_is_never_made_again(host: Host, calls: ScriptServer) -> None:
    await host.begin()
    runs = [await host.start(STREAMING, f"s{i}") for i in range(3)]
    for run_id in runs:
        await host.shown(run_id, 5)
    await host.kill()
    before = {run_id: await host.log.read(f"run:{run_id}") for run_id in runs}
    await host.begin()
    for run_id in runs:
        run = await host.ended(run_id)
        assert (run.state, run.reason) == ("failed", "interrupted_by_restart")
        records = await host.log.read(f"run:{run_id}")
        assert records[: len(before[run_id])] == before[run_id]
        added = [one.type for one in records[len(before[run_id]) :]]
        assert [type_ for type_ in added if type_ != "text.whole"] == ["failed", "run.ended"]
        assert run.lines == records[-1].line
    assert calls.calls == 3


async def test_a_run_between_steps_goes_on(host: Host, calls: ScriptServer, tmp_path: Path) -> None:
    """Also when the code was changed in between."""
    await host.begin(stand_after=1)
    run_id = await host.start(BETWEEN, "s")
    assert await host.said() == "standing"
    assert calls.calls == 1
    await host.kill()
    await host.begin(root=upgraded(tmp_path))
    run = await host.ended(run_id)
    assert (run.state, run.attempt) == ("completed", 3)
    assert calls.calls == 2
    told = [one.type for one in await host.log.read(f"run:{run_id}")]
    assert [type_ for type_ in told if type_ != "text"] == [
        "run.begun",
        "tokens",
        "tool.called",
        "run.begun",
        "tool.returned",
        "text.whole",
        "tokens",
        "run.ended",
    ]


def handing(*tasks: str) -> str:
    """A run that hands out tasks to its worker, all at once, and then answers."""
    parts = [{"agent": "worker", "task": task} for task in tasks]
    return script({"call": "delegate", "args": {"tasks": parts}}, {"say": "all is done"})


async def test_a_sub_agents_call_under_way_is_never_made_again(
    host: Host, calls: ScriptServer
) -> None:
    await host.begin()
    run_id = await host.start(handing(STREAMING, STREAMING), "s", multi_agent=True)
    await host.shown(run_id, 12)
    await host.kill()
    before = await host.log.read(f"run:{run_id}")
    await host.begin()
    run = await host.ended(run_id)
    assert (run.state, run.reason) == ("failed", "interrupted_by_restart")
    told = await host.log.read(f"run:{run_id}")
    assert told[: len(before)] == before
    # What was sent before the kill may commit after the look at it.
    assert [one.type for one in told][-2:] == ["failed", "run.ended"]
    assert calls.calls == 3
    kept = await ConversationStore(host.database).of_tasks(run.conversation_id, run_id)
    assert [message.agent_name for message in kept] == ["worker", "worker"]
    assert all((message.text or "").startswith("t0 t1 ") for message in kept)
    assert [task["status"] for task in run.tasks or ()] == ["in_progress", "in_progress"]


async def test_sub_agents_between_strides_go_on(host: Host, calls: ScriptServer) -> None:
    """Each from its own rows; the next process has them killed once more."""
    await host.begin(stand_below=1)
    run_id = await host.start(handing(BETWEEN, BETWEEN, "short"), "s", multi_agent=True)
    assert [await host.said() for _ in range(3)] == ["standing"] * 3
    assert calls.calls == 4
    await host.kill()
    await host.begin(stand_below=1)
    assert [await host.said() for _ in range(3)] == ["standing"] * 3
    assert calls.calls == 4
    await host.kill()
    await host.begin()
    run = await host.ended(run_id)
    assert run.state == "completed"
    assert calls.calls == 7
    assert [task["status"] for task in run.tasks or ()] == ["completed"] * 3
    history = await ConversationStore(host.database).history(run.conversation_id, 9)
    assert [message.text for message in history][2:] == [
        "\n\n".join(f"## worker\n{said}" for said in ("so be it", "so be it", "short")),
        "all is done",
    ]


async def test_a_run_without_a_workflow_is_started(make: Here, calls: ScriptServer) -> None:
    """As after a crash between the run's commit and its workflow's."""
    async with make() as here:

        async def nothing(*_: object) -> None:
            """A crash at this point."""

        starts, here.runs._workflows.start = here.runs._workflows.start, nothing
        run = await here.start("better late")
        assert (await here.run(run.id)).state == "queued"
    async with make() as here:
        assert text(await here.lines(run)) == "better late"
    assert starts is not nothing


async def test_a_run_whose_workflow_is_gone_is_ended(make: Here) -> None:
    async with make() as here:
        run = await here.start(script({"say": "a "}, {"stall_ms": 60_000}))
        await here.shown(run, 1)
        await here.runs._workflows.cancel([run.id])
    async with make() as here:
        lines = await here.lines(run)
        assert types(lines) == ["assistant_text", "error", "stream_end"]
        assert (await here.run(run.id)).reason == "lost"


async def test_another_version_ends_older_runs(make: Here) -> None:
    async with make() as here:
        run = await here.start(script({"say": "a "}, {"stall_ms": 60_000}))
        await here.shown(run, 1)
    async with make(version="2") as here:
        await here.lines(run)
        assert (await here.run(run.id)).reason == "outdated"


async def test_a_drained_process_leaves_runs_to_recovery(make: Here) -> None:
    async with make() as here:
        background = await here.start(STREAMING, "a")
        attended = await here.start(STREAMING, "b", stops_with_client=True)
        await here.shown(attended, 1)
    async with make() as here:
        assert (await here.run(attended.id)).reason == "shutdown"
        await here.lines(background)
        assert (await here.run(background.id)).reason == "interrupted_by_restart"


async def test_the_living_settle_the_runs_of_the_dead(
    host: Host, calls: ScriptServer, dialect: str
) -> None:
    """Several processes share a PostgreSQL database; on SQLite one is alone and keeps no heart."""
    if dialect == "sqlite":
        await host.begin()
        assert await ProcessStore(host.database).list_all() == []
        return
    await host.begin("first", stand_after=1)
    await host.begin("second")
    standing = await host.start(BETWEEN, "between", "first")
    assert await host.said("first") == "standing"
    streaming = await host.start(STREAMING, "streaming", "first")
    await host.shown(streaming, 5)
    alive = await host.start(script({"tokens": 300, "every_ms": 30}), "alive", "second")
    await host.kill("first")
    assert (await host.ended(streaming)).reason == "interrupted_by_restart"
    assert (await host.ended(standing)).state == "completed"
    assert (await host.ended(alive)).state == "completed"
    assert calls.calls == 4


def upgraded(tmp_path: Path) -> Path:
    """A copy of the source in which something has changed."""
    copy = tmp_path / "upgraded"
    for name in ("domain", "gateways", "generated", "handlers", "storage", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    loop = copy / "domain" / "turn" / "loop.py"
    loop.write_text(loop.read_text() + "\nUPGRADED = True\n")
    return copy
